"""Whoever can write to a vault can't make a restore write outside of its target, whatever the vault says."""

import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from memkeep.errors import DamagedError, RefusedError, StorageError
from memkeep.library import OpenVault
from memkeep.model import Entry, PartImage, Recipe, Role, Rung, StoredEntry

Forge = Callable[..., str]
Store = Callable[..., StoredEntry]
HUGE = 1 << 62


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "down" / "notes"
    folder.mkdir(parents=True)
    (folder / "one.md").write_text("# One\n")
    (folder / "two.md").write_text("# Two\n")
    return folder


@pytest.fixture
def vault(notes: Path, new_vault: Callable[..., OpenVault]) -> OpenVault:
    made = new_vault()
    made.backup(notes)
    return made


def link(path: str, target: str) -> StoredEntry:
    return StoredEntry(entry=Entry(path=path, kind="link", target=target))


def folder(path: str, **values: Any) -> StoredEntry:
    return StoredEntry(entry=Entry(path=path, kind="dir", **{"mode": 0o700, **values}))


def add(*entries: Any) -> Callable[[PartImage, Store], PartImage]:
    """Return a change that adds entries; a text is the path of a file."""

    def change(image: PartImage, store: Store) -> PartImage:
        made = tuple(store(b"evil", path=one) if isinstance(one, str) else one for one in entries)
        return msgspec.structs.replace(image, entries=(*image.entries, *made))

    return change


LIES = {
    "an absolute path": add("/tmp/evil"),
    "a path that climbs": add("../evil"),
    "a path that climbs later": add("a/../../evil"),
    "a path that climbs at its end": add("a/.."),
    "a path of dots": add("."),
    "no path": add(""),
    "a path with NUL": add("a\0b"),
    "an absolute folder": add(folder("/tmp/evil")),
    "a folder that climbs": add(folder("../evil")),
    "a link that climbs as a path": add(link("../evil", "one.md")),
    "an absolute link": add(link("out", "/etc/passwd")),
    "a link out": add(link("out", "..")),
    "a link that goes in and out": add(link("out", "a/../../x")),
    "a link with NUL": add(link("out", "a\0b")),
    "a link to nothing": add(link("out", "")),
    "a link out through a link": add(folder("d"), link("d/up", ".."), link("out", "d/up/..")),
    "a link out through a link that comes later": add(folder("d"), link("out", "d/up/.."), link("d/up", "..")),
    "a file through a link": add(folder("d"), link("in", "d"), "in/evil"),
    "a file through a link that comes later": add("in/evil", folder("d"), link("in", "d")),
    "a link through links that lead out": add(
        folder("d"), link("d/up", ".."), link("out", "d/up/.."), link("out/evil", "x")
    ),
    "a folder through links that lead out": add(
        folder("d"), link("d/up", ".."), link("out", "d/up/.."), folder("out/evil")
    ),
    "a folder that is a link too": add(folder("d"), link("d", ".")),
    "the same file twice": add("a", "a"),
    "a file that is a folder too": add("d/a", folder("d/a")),
    "a file below a file": add("one.md/a"),
    "a file twice by another spelling": add("d/a", "d//a"),
    "a file twice by a dot": add("d/a", "d/./a"),
    "a file that is a link too": add("a", link("a", "one.md")),
    "a loop of links": add(link("a", "b"), link("b", "a"), "a/evil"),
}


def sized(**values: Any) -> Callable[[PartImage, Store], PartImage]:
    """Return a change that makes the first file's entry lie."""

    def change(image: PartImage, _: Store) -> PartImage:
        first, *rest = image.entries
        entry = msgspec.structs.replace(first.entry, **values)
        return msgspec.structs.replace(image, entries=(msgspec.structs.replace(first, entry=entry), *rest))

    return change


def recipe(**values: Any) -> Callable[[PartImage, Store], PartImage]:
    """Return a change that makes the first file's recipe lie."""

    def change(image: PartImage, _: Store) -> PartImage:
        first, *rest = image.entries
        assert first.recipe is not None
        entry = msgspec.structs.replace(first.entry, size=values.get("size", first.entry.size))
        lie = StoredEntry(entry=entry, recipe=msgspec.structs.replace(first.recipe, **values))
        return msgspec.structs.replace(image, entries=(lie, *rest))

    return change


LIES |= {
    "a huge size": sized(size=HUGE),
    "a negative size": recipe(size=-HUGE),
    "a time that no clock shows": sized(mtime_ns=(1 << 64) - 1),
    "a time before all clocks": sized(mtime_ns=-(1 << 63)),
    "a huge recipe": recipe(size=HUGE),
    "a piece beyond its chunk": recipe(starts=b"\xff\xff\xff\xff"),
    "a piece longer than its chunk": recipe(size=0xFFFFFFFF, lengths=b"\xff\xff\xff\xff"),
    "a chunk that is not there": recipe(ids=b"\0" * 16),
    "half a chunk id": recipe(ids=b"\0" * 7),
    "lengths that are no numbers": recipe(lengths=b"\1\2\3"),
    "another digest": recipe(digest=bytes(32)),
    "no recipe": lambda image, _: msgspec.structs.replace(
        image, entries=(msgspec.structs.replace(image.entries[0], recipe=None), *image.entries[1:])
    ),
}


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return all that lies in a folder, the vault and what `verify` remembers aside."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith(("home/", "tmp")):
            mode = path.lstat().st_mode
            content = (
                str(path.readlink()).encode() if stat.S_ISLNK(mode) else path.read_bytes() if path.is_file() else b""
            )
            found[name] = (mode, content)
    return found


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_and_nothing_is_written(
    lie: str, vault: OpenVault, forge: Forge, notes: Path, tmp_path: Path
) -> None:
    name = forge(vault, LIES[lie])
    before = everything(tmp_path)
    with pytest.raises((DamagedError, RefusedError)):
        vault.restore(name, to=tmp_path / "a" / "b" / "target")
    assert everything(tmp_path) == before
    with pytest.raises((DamagedError, RefusedError)):
        vault.restore(name, in_place=True, confirm="custom")
    assert everything(tmp_path) == before
    report = vault.verify(name, rung=Rung.EQUIVALENT)
    assert report.snapshots[0].rung.height < Rung.RESTORABLE.height
    assert report.damaged
    assert everything(tmp_path) == before
    assert notes.is_dir()


@pytest.mark.parametrize("lie", ["a piece beyond its chunk", "a piece longer than its chunk"])
def test_a_piece_out_of_its_chunk_is_no_intact_stream(lie: str, vault: OpenVault, forge: Forge) -> None:
    report = vault.verify(forge(vault, LIES[lie]), rung=Rung.INTACT)
    assert report.snapshots[0].rung is Rung.PRESENT
    assert report.damaged


@pytest.mark.parametrize(
    "honest",
    [
        add("a\nb"),
        add("-rf"),
        add("*"),
        add("日本 🧠"),
        add("a" * 255),
        add("/".join(["d"] * 40)),
        add(link("in", "one.md")),
        add(link("d/in", "../one.md")),
        add(link("dangling", "not/there")),
        add(folder("d"), link("in", "d"), "d/a"),
    ],
)
def test_odd_names_and_links_inside_come_back(honest: Any, vault: OpenVault, forge: Forge, tmp_path: Path) -> None:
    name = forge(vault, honest)
    vault.restore(name, to=tmp_path / "target")
    [image] = [vault._vault.image(part) for part in vault._vault.resolve(name).parts]
    for stored in image.entries:
        path = tmp_path / "target" / stored.entry.path
        assert path.is_symlink() or path.exists()
        assert not path.is_symlink() or str(path.readlink()) == stored.entry.target


def test_no_file_gets_the_powers_of_its_owner(vault: OpenVault, forge: Forge, tmp_path: Path) -> None:
    name = forge(vault, sized(mode=0o106755))
    vault.restore(name, to=tmp_path / "target")
    assert stat.S_IMODE((tmp_path / "target" / "one.md").stat().st_mode) == 0o755


@pytest.mark.parametrize("elsewhere", ["/etc", "../../evil"])
def test_a_snapshot_cannot_say_by_itself_that_a_part_lies_elsewhere(
    elsewhere: str, vault: OpenVault, forge: Forge, tmp_path: Path
) -> None:
    def change(image: PartImage, _: Store) -> PartImage:
        part = msgspec.structs.replace(
            image.part, name="evil", path=str(Path(tmp_path, elsewhere)), role=Role.CANONICAL
        )
        entries = tuple(
            msgspec.structs.replace(one, entry=msgspec.structs.replace(one.entry, path=f"evil/{one.entry.path}"))
            for one in image.entries
        )
        return msgspec.structs.replace(image, part=part, entries=entries)

    name = forge(vault, change)
    before = everything(tmp_path)
    with pytest.raises(RefusedError) as caught:
        vault.restore(name, in_place=True, confirm="custom")
    assert caught.value.code == "part_elsewhere"
    assert everything(tmp_path) == before


@pytest.mark.parametrize("part_name", ["../evil", "/tmp/evil", "", "a/../../evil"])
def test_a_part_cannot_be_named_out_of_the_store(
    part_name: str, vault: OpenVault, forge: Forge, tmp_path: Path
) -> None:
    def change(image: PartImage, _: Store) -> PartImage:
        return msgspec.structs.replace(image, part=msgspec.structs.replace(image.part, name=part_name))

    name = forge(vault, change)
    before = everything(tmp_path)
    with pytest.raises((DamagedError, RefusedError)):
        vault.restore(name, in_place=True, confirm="custom")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("path", ["evil", "facts.db-wal", "lancedb", "memory.wal2", "memory"])
def test_an_entry_cannot_lie_outside_of_its_part(
    path: str, memory: Path, new_vault: Callable[..., OpenVault], forge: Forge, tmp_path: Path
) -> None:
    vault = new_vault("other")
    vault.backup(memory)

    def change(image: PartImage, store: Store) -> PartImage:
        if image.part.name != "memory.wal":
            return image
        return msgspec.structs.replace(image, entries=(*image.entries, store(b"evil", path=path)))

    name = forge(vault, change)
    before = everything(tmp_path)
    with pytest.raises(DamagedError):
        vault.restore(name, to=tmp_path / "target")
    with pytest.raises(DamagedError):
        vault.restore(name, in_place=True, confirm="openclaw-hybrid", parts=["memory.wal"])
    assert everything(tmp_path) == before


def test_a_recipe_that_repeats_one_chunk_is_no_bomb(
    vault: OpenVault, forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small vault can say that a file is a terabyte; the disk must not be filled before that is noticed."""
    pieces = 1 << 6

    def change(image: PartImage, store: Store) -> PartImage:
        made = store(bytes(65536), path="bomb")
        assert made.recipe is not None
        size = made.recipe.size * pieces
        lie = Recipe(
            size=size,
            digest=bytes(32),
            ids=made.recipe.ids * pieces,
            starts=made.recipe.starts * pieces,
            lengths=made.recipe.lengths * pieces,
        )
        entry = msgspec.structs.replace(made.entry, size=size)
        return msgspec.structs.replace(image, entries=(*image.entries, StoredEntry(entry=entry, recipe=lie)))

    name = forge(vault, change)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=pieces * 65536 - 1))
    with pytest.raises(StorageError) as caught:
        vault.restore(name, to=tmp_path / "target")
    assert caught.value.code == "disk_full"
    assert not (tmp_path / "target").exists()
