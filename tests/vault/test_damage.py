"""Break every object of a vault in every way: verify names it, and no snapshot is ever read as other than it was."""

import contextlib
import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

from memkeep.errors import DamagedError, WrongKeyError
from memkeep.model import Rung
from memkeep.ops.backup import backup
from memkeep.ops.discover import discover
from memkeep.ops.verify import VerifyReport, verify
from memkeep.storage.local import LocalStorage
from memkeep.testing.faults import Fault, FaultyStorage, cut, flip, swap
from memkeep.vault import crypto, opening
from memkeep.vault.vault import Vault

PASSWORD = "correct horse"
CHEAP = {"memory_kib": 32, "iterations": 1, "lanes": 1}
UNSEALED = "unsealed"
T = TypeVar("T")

pytestmark = [pytest.mark.damage, pytest.mark.usefixtures("home")]


class Made(NamedTuple):
    """A vault with three snapshots of an aging store, and what each of them holds."""

    root: Path
    recovery: str
    content: dict[str, dict[str, str]]  # snapshot -> stream or group -> SHA-256
    keys: list[str]


@pytest.fixture(scope="module")
def made(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Return the vault that all tests copy."""
    folder = tmp_path_factory.mktemp("damage")
    store, root = folder / "store", folder / "vault"
    shutil.copytree(stores / "oc-memory", store)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CHEAP.items():
            patch.setitem(crypto.ARGON, name, value)
        vault, recovery = opening.create(LocalStorage(root), PASSWORD)
    assert recovery is not None
    for day in range(3):
        database = sqlite3.connect(store / "memory.db")
        database.execute("create table if not exists aging (day integer, text text)")
        database.execute("insert into aging values (?, ?)", (day, f"what day {day} has brought; " * 400))
        database.commit()
        database.close()
        backup(vault, discover([store]))
    keys = sorted(stat.key for stat in vault.storage.list(""))
    kinds = [key.split("/")[0] for key in keys]
    assert [kinds.count(kind) for kind in ("config", "keys", "seals", "snapshots")] == [1, 2, 4, 3]
    assert min(kinds.count("data"), kinds.count("index")) >= 3
    report = verify(vault, all=True, rung=Rung.INTACT)
    assert report.all_findings == ()
    yield Made(root, recovery, {one.id: content_of(vault, one.id) for one in vault.snapshots()}, keys)
    shutil.rmtree(folder)


def content_of(vault: Vault, snapshot: str) -> dict[str, str]:
    """Read all that a snapshot holds; `DamagedError` where it can't be."""
    found = {}
    for part in vault.resolve(snapshot).parts:
        image = vault.image(part)
        for entry in image.entries:
            if entry.recipe is not None:
                found[f"{part.name}: {entry.entry.path}"] = hashlib.sha256(vault.reader.read(entry.recipe)).hexdigest()
        for collection in image.collections:
            for group in collection.groups:
                name = f"{part.name}: {collection.map.collection} {group.bucket}"
                found[name] = hashlib.sha256(vault.reader.chunk(group.chunk)).hexdigest()
    return found


def tried(do: Callable[[], T]) -> T | DamagedError:
    """Return what a call gives, or how it found damage."""
    try:
        return do()
    except DamagedError as error:
        return error


def opened(storage: LocalStorage, made: Made) -> tuple[Vault | None, set[str]]:
    """Open a vault with its password or, as a person would then, with its recovery key; say what stops both."""
    stopped = set()
    for secret in (PASSWORD, made.recovery):
        with contextlib.suppress(WrongKeyError):
            found = tried(lambda: opening.open_vault(storage, secret))  # noqa: B023 - called at once
            if isinstance(found, Vault):
                return found, set()
            stopped.add(found.obj)
    return None, stopped


def examined(made: Made, root: Path) -> tuple[set[str], VerifyReport | None]:
    """Return what opening or verifying a vault reports as damaged, having read all that can be read."""
    storage = LocalStorage(root)
    vault, stopped = opened(storage, made)
    if vault is None:
        return stopped, None
    unreadable = set()
    for snapshot in vault.snapshots():
        found = tried(lambda: content_of(vault, snapshot.id))  # noqa: B023 - called at once
        if isinstance(found, DamagedError):
            assert found.obj
            unreadable.add(snapshot.id)
        else:
            assert found == made.content[snapshot.id]
    # What reading has noticed must not be what verify leans on.
    fresh, _ = opened(storage, made)
    assert fresh is not None
    report = verify(fresh, all=True, rung=Rung.INTACT)
    named = {finding.object or UNSEALED * (finding.code == UNSEALED) for finding in report.all_findings}
    hurt = {snapshot for finding in report.all_findings for snapshot in finding.snapshots}
    lost = made.content.keys() - {snapshot.id for snapshot in vault.snapshots()}
    assert unreadable | lost <= hurt
    for result in report.snapshots:
        # A pack may be damaged where no snapshot needs it; never the other way round.
        assert not (result.rung is Rung.INTACT and result.snapshot in unreadable)
    return named, report


def break_each(made: Made, tmp_path: Path, how: Callable[[Path, str], set[str]]) -> None:
    """Break one object after another in a copy of the vault; `how` returns the keys that must be named."""
    for number, key in enumerate(made.keys):
        root = tmp_path / str(number)
        shutil.copytree(made.root, root)
        expected = how(root, key)
        named, _ = examined(made, root)
        assert expected <= named, f"{key}: {named}"
        shutil.rmtree(root)


@pytest.mark.parametrize("offset", [0, 20, 50, 0.5, -1])
def test_a_flipped_bit_is_found_in_every_object(made: Made, tmp_path: Path, offset: float) -> None:
    def how(root: Path, key: str) -> set[str]:
        size = (root / key).stat().st_size
        flip(root / key, offset if isinstance(offset, int) else int(size * offset), bit=size % 8)
        return {key}

    break_each(made, tmp_path, how)


@pytest.mark.parametrize("size", [-1, 0, 48, 0.5])
def test_a_cut_or_emptied_object_is_found(made: Made, tmp_path: Path, size: float) -> None:
    def how(root: Path, key: str) -> set[str]:
        cut(root / key, size if isinstance(size, int) else int((root / key).stat().st_size * size))
        return {key}

    break_each(made, tmp_path, how)


def test_an_object_that_has_grown_is_found(made: Made, tmp_path: Path) -> None:
    def how(root: Path, key: str) -> set[str]:
        (root / key).write_bytes((root / key).read_bytes() + b"\0")
        return {key}

    break_each(made, tmp_path, how)


def test_a_removed_object_is_found(made: Made, tmp_path: Path) -> None:
    newest_seal = max(key for key in made.keys if key.startswith("seals/"))

    def how(root: Path, key: str) -> set[str]:
        (root / key).unlink()
        # Nothing names the newest seal; what is left without it is a snapshot that nothing has sealed.
        return {UNSEALED} if key == newest_seal else {key}

    break_each(made, tmp_path, how)


@pytest.mark.parametrize("kind", ["same", "other"])
def test_objects_that_changed_places_are_found(made: Made, tmp_path: Path, kind: str) -> None:
    def kind_of(key: str) -> str:
        return key.partition("/")[0]

    def how(root: Path, key: str) -> set[str]:
        alike = [other for other in made.keys if kind_of(other) == kind_of(key) and other != key]
        fitting = alike if kind == "same" else sorted(set(made.keys) - {key, *alike})
        if not fitting:
            return set()  # there is one config
        other = fitting[made.keys.index(key) % len(fitting)]
        swap(root / key, root / other)
        if kind_of(key) == kind_of(other) == "keys":
            return set()  # neither opens the vault: see below
        # A vault that can't be opened is told by what stops it.
        return {"config"} if "config" in {key, other} else {key, other}

    break_each(made, tmp_path, how)


def test_two_key_slots_that_changed_places_open_nothing_and_are_named(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "vault"
    shutil.copytree(made.root, root)
    one, other = (key for key in made.keys if key.startswith("keys/"))
    swap(root / one, root / other)
    with pytest.raises(DamagedError) as error:
        opening.open_vault(LocalStorage(root), PASSWORD)
    assert error.value.obj in {one, other}


def test_everything_of_one_kind_removed_is_found(made: Made, tmp_path: Path) -> None:
    for kind in ("data", "index", "snapshots", "seals"):
        root = tmp_path / kind
        shutil.copytree(made.root, root)
        shutil.rmtree(root / kind)
        named, report = examined(made, root)
        assert report is not None
        assert report.damaged
        if kind == "seals":
            assert any(name.startswith("seals/") for name in named)
        else:
            assert {key for key in made.keys if key.startswith(f"{kind}/")} <= named


def test_nothing_of_the_store_can_be_read_in_any_object(made: Made) -> None:
    with contextlib.closing(sqlite3.connect(made.root.parent / "store" / "memory.db")) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        cells = [cell for name in tables for row in database.execute(f'select * from "{name}"') for cell in row]
    texts = {cell for cell in cells if isinstance(cell, str) and len(cell) >= 8}
    assert len(texts) > 20
    words = {*texts, *tables, "memory.db", "oc-memory", str(made.root.parent), "what day 1 has brought"}
    for key in made.keys:
        data = (made.root / key).read_bytes()
        assert not [word for word in words if len(word) >= 5 and word.encode() in data], key
        assert not [word for word in words if len(word) >= 5 and word in key]


def test_a_backup_into_a_vault_with_a_damaged_pack_stores_again_what_it_needs(
    made: Made, stores: Path, tmp_path: Path
) -> None:
    packs = [key for key in made.keys if key.startswith("data/")]
    store = tmp_path / "store"
    shutil.copytree(stores / "oc-memory", store)
    for number, pack in enumerate(packs):
        for damage in ("flip", "remove"):
            root = tmp_path / f"{number} {damage}"
            shutil.copytree(made.root, root)
            if damage == "flip":
                flip(root / pack, (root / pack).stat().st_size // 2)
            else:
                (root / pack).unlink()
            # The path of the store is another one now, so nothing is taken over unread from a parent.
            (one,) = backup(opening.open_vault(LocalStorage(root), PASSWORD), discover([store])).snapshots
            assert one.rung is Rung.READABLE
            fresh = opening.open_vault(LocalStorage(root), PASSWORD)
            assert verify(fresh, one.id, rung=Rung.READABLE).snapshots[0].rung is Rung.READABLE


def test_a_disk_that_stores_other_bytes_than_it_was_given_is_found_out_by_the_backup(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CHEAP.items():
        monkeypatch.setitem(crypto.ARGON, name, value)
    store = tmp_path / "store"
    shutil.copytree(stores / "oc-memory", store)
    beneath = LocalStorage(tmp_path / "vault")
    opening.create(beneath, PASSWORD)
    lying = FaultyStorage(beneath, Fault(call="put_new", number=1, kind="corrupt", prefix="data/", lasting=True))
    with pytest.raises(DamagedError) as error:
        backup(opening.open_vault(lying, PASSWORD), discover([store]))
    assert error.value.obj.startswith("data/")
    assert opening.open_vault(beneath, PASSWORD).snapshots() == []
