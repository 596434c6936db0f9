"""A copy is what its snapshot is, in another vault; what is damaged is never copied as good."""

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from memkeep.errors import DamagedError, RefusedError, StorageError
from memkeep.library import OpenVault
from memkeep.model import Origin, Rung
from memkeep.ops.backup import backup
from memkeep.ops.copy import copy
from memkeep.ops.discover import discover
from memkeep.storage.local import LocalStorage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing import agent
from memkeep.testing.faults import Fault, FaultyStorage, flip
from memkeep.testing.snapshots import read, take
from memkeep.vault import opening
from memkeep.vault.vault import Vault

KEPT = (
    "created",
    "host",
    "tag",
    "label",
    "records",
    "rung",
    "findings",
    "mapping",
    "fingerprint",
    "summary",
    "memkeep",
)
Make = Callable[..., OpenVault]


def vault(storage: MemoryStorage | None = None) -> Vault:
    return opening.create(storage or MemoryStorage(), None)[0]


def again(one: Vault) -> Vault:
    """Return a vault as another process finds it."""
    return opening.open_vault(one.storage, None)


def days(number: int) -> list[dict[str, bytes]]:
    """Return what some days' snapshots hold: a file that changes a little, one that grows, one that is new."""
    base = random.Random(1).randbytes(500_000)
    return [
        {
            "a.db": base[:70_000] + b"day %d" % day + base[70_006:],
            "log": b"a line, " * (3000 + 900 * day),
            f"{day}": b"%d" % day * 999,
        }
        for day in range(number)
    ]


def filled(number: int = 4) -> Vault:
    made = vault()
    for day, files in enumerate(days(number)):
        take(made, files, created=f"2026-01-0{day + 1}T00:00:00.000000+00:00", check=True)
    return again(made)


def contents(one: Vault) -> list[dict[str, bytes]]:
    return [read(one, snapshot) for snapshot in one.snapshots()]


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_copy_restores_to_the_same_bytes_and_is_proven_equivalent(
    *, encrypted: bool, new_vault: Make, memory: Path, tmp_path: Path, tree_hash: Callable[[Path], dict[str, str]]
) -> None:
    source, target = new_vault("here"), new_vault("there", encrypted=encrypted)
    first = source.backup(memory, tag="one", label="the first").snapshots[0]
    with closing(sqlite3.connect(memory / "facts.db")) as connection, connection:
        connection.execute("update facts set text = text || ' and more' where rowid % 7 = 0")
    second = source.backup(memory).snapshots[0]
    result = source.copy(target)
    assert [row.source for row in result.copied] == [first.id, second.id]
    for row in result.copied:
        assert target.verify(row.snapshot, rung=Rung.EQUIVALENT).snapshots[0].rung is Rung.EQUIVALENT
        source.restore(row.source, to=tmp_path / row.source)
        target.restore(row.snapshot, to=tmp_path / row.snapshot)
        assert tree_hash(tmp_path / row.source) == tree_hash(tmp_path / row.snapshot)
    originals, copies = source._vault.snapshots(), target._vault.snapshots()
    for one, other in zip(originals, copies, strict=True):
        assert [getattr(one, name) for name in KEPT] == [getattr(other, name) for name in KEPT]
        assert other.origin == Origin(vault=source.id, snapshot=one.id)
    assert copies[1].parent == copies[0].id
    assert target.verify(all=True, rung=Rung.INTACT).all_findings == ()


def test_a_backup_into_the_mirror_goes_on_from_the_copy(new_vault: Make, memory: Path) -> None:
    source, target = new_vault("here"), new_vault("there")
    source.backup(memory)
    [row] = source.copy(target).copied
    report = target.backup(memory).snapshots[0]
    assert target._vault.resolve(report.id).parent == row.snapshot
    assert report.added_bytes < row.added_bytes / 4


def test_what_is_there_is_not_copied_again_through_however_many_vaults() -> None:
    a, b, c = filled(), vault(), vault()
    assert len(copy(a, b).copied) == 4
    assert len(copy(b, c).copied) == 4
    assert contents(c) == days(4)
    for source, target in ((a, b), (b, a), (a, c), (c, a), (c, b), (b, c)):
        result = copy(source, target)
        assert (len(result.copied), len(result.present), result.added_bytes) == (0, 4, 0)
    assert {one.origin.vault for one in c.snapshots() if one.origin} == {a.config.id}


def test_a_lost_snapshot_comes_back_from_its_mirror() -> None:
    a, b = filled(), vault()
    copy(a, b)
    lost = a.snapshots()[1]
    a.storage.delete(f"snapshots/{lost.id}")
    assert [row.created for row in copy(b, again(a)).copied] == [lost.created]
    assert contents(again(a)) == days(4)


def test_the_second_copy_costs_what_is_new_and_reads_little() -> None:
    a, b = filled(3), vault()
    copy(a, b)
    extra = days(4)[3]
    take(a, extra, created="2026-01-04T00:00:00.000000+00:00")
    before = sum(map(len, b.storage.objects.values()))  # type: ignore[attr-defined]
    result = copy(a, again(b))
    grown = sum(map(len, b.storage.objects.values())) - before  # type: ignore[attr-defined]
    whole = copy(a, vault())
    assert result.bytes < whole.bytes
    assert grown < 0.05 * before
    assert contents(again(b)) == days(4)


def test_a_copy_is_no_larger_than_what_it_was_made_of_and_compresses_nothing_again() -> None:
    a, b = filled(), vault()
    result = copy(a, b)
    stored = {
        name: sum(len(d) for k, d in v.storage.objects.items() if k[:5] == "data/") for name, v in (("a", a), ("b", b))
    }  # type: ignore[attr-defined]
    assert abs(stored["a"] - stored["b"]) < 0.02 * stored["a"]
    assert result.added_bytes <= sum(map(len, b.storage.objects.values()))  # type: ignore[attr-defined]


def test_only_the_named_are_copied_with_the_bases_that_they_need() -> None:
    a, b = filled(), vault()
    newest = a.snapshots()[-1]
    [row] = copy(a, b, [newest.id[:12], "latest"]).copied
    assert row.source == newest.id
    assert contents(again(b)) == days(4)[3:]
    assert again(b).snapshots()[0].parent is None
    assert len(copy(a, b).copied) == 3
    assert contents(again(b)) == days(4)


def test_a_dry_run_writes_nothing_and_says_how_much_there_is_to_move() -> None:
    a, storage = filled(), MemoryStorage()
    b = vault(storage)
    before = dict(storage.objects)
    said = copy(a, b, dry_run=True)
    assert storage.objects == before
    done = copy(a, b)
    assert [row.source for row in said.copied] == [row.source for row in done.copied]
    assert said.bytes == done.bytes
    assert copy(a, b, dry_run=True).bytes == 0


def test_a_vault_is_not_copied_into_itself() -> None:
    a = filled()
    with pytest.raises(RefusedError):
        copy(a, again(a))


def test_a_backup_that_ran_into_the_target_first_shares_its_chunks() -> None:
    a, b = filled(2), vault()
    take(b, days(2)[1], created="2026-01-09T00:00:00.000000+00:00")
    copy(a, again(b))
    assert contents(again(b)) == [*days(2), days(2)[1]]
    assert sum(map(len, b.storage.objects.values())) < 1.3 * sum(map(len, a.storage.objects.values()))  # type: ignore[attr-defined]


def test_two_copies_at_once_and_a_backup_between_them_leave_a_whole_vault() -> None:
    a, b = filled(), vault()
    one, other, third = again(b), again(b), again(b)

    class Between(FaultyStorage):
        """Lets the others write just before the first manifest is."""

        def put_new(self, key: str, data: object) -> int:
            if key.startswith("snapshots/") and len(self.calls) and not self.done:
                self.done = True
                take(third, days(2)[1], created="2026-01-09T00:00:00.000000+00:00")
                copy(a, other)
            return super().put_new(key, data)  # type: ignore[arg-type]

        done = False

    one.storage = Between(b.storage)
    copy(a, one)
    end = again(b)
    assert [read(end, snapshot) for snapshot in end.snapshots()][-1] == days(2)[1]
    rest = end.snapshots()[:-1]
    # The manifest that both were writing at that moment may be there twice; no other is.
    assert len(rest) <= 5
    by_day = {snapshot.created: read(end, snapshot) for snapshot in rest}
    assert [by_day[created] for created in sorted(by_day)] == days(4)
    assert end.damaged == []


@pytest.mark.parametrize("number", range(1, 24))
def test_a_target_that_fails_at_any_write_keeps_what_it_has_and_the_next_copy_ends_it(number: int) -> None:
    a, b = filled(), vault()
    take(b, days(1)[0], created="2025-12-31T00:00:00.000000+00:00")
    broken = opening.open_vault(
        FaultyStorage(b.storage, Fault(call="put_new", number=number, kind="full", lasting=True)), None
    )
    try:
        copy(a, broken)
    except StorageError:
        pass
    else:
        assert number > 10
    assert contents(a) == days(4)
    middle = contents(again(b))
    assert middle == [days(1)[0], *days(4)[: len(middle) - 1]]
    counted = FaultyStorage(b.storage)
    copy(a, opening.open_vault(counted, None))
    assert contents(again(b)) == [days(1)[0], *days(4)]


def test_chunks_that_an_index_segment_names_are_not_sent_again() -> None:
    a, b = filled(), vault()
    full = copy(a, vault()).added_bytes
    faults = Fault(call="put_new", number=1, kind="full", prefix="snapshots/", lasting=True)
    with pytest.raises(StorageError):
        copy(a, opening.open_vault(FaultyStorage(b.storage, faults), None))
    result = copy(a, again(b))
    assert len(result.copied) == 4
    assert result.added_bytes < full / 3


# -- damage -----------------------------------------------------------------------------------------------------


def test_damage_of_any_pack_or_segment_of_the_source_is_named_and_nothing_of_it_is_copied(tmp_path: Path) -> None:
    made = filled()
    objects = dict(made.storage.objects)  # type: ignore[attr-defined]
    for key in [key for key in objects if key.startswith(("data/", "index/", "snapshots/"))]:
        for how in ("flip", "cut", "drop"):
            storage = MemoryStorage()
            storage.objects = dict(objects)
            data = bytearray(objects[key])
            data[len(data) // 2] ^= 4
            if how == "drop":
                del storage.objects[key]
            else:
                storage.objects[key] = bytes(data) if how == "flip" else objects[key][: len(data) // 2]
            source, target = opening.open_vault(storage, None), vault()
            result = copy(source, target)
            expected = {f"2026-01-0{day + 1}T00:00:00.000000+00:00": files for day, files in enumerate(days(4))}
            end = again(target)
            assert {one.created: read(end, one) for one in end.snapshots()}.items() <= expected.items()
            assert len(result.copied) + len(result.failed) == 4 - (how == "drop" and key.startswith("snapshots/"))
            assert {name for one in result.findings for name in one.snapshots} == set(result.failed)
            assert all(one.object for one in result.findings)
            if how == "drop" and key.startswith("index/"):
                assert result.failed


def test_what_is_damaged_in_the_target_is_brought_again(tmp_path: Path) -> None:
    a = filled()
    target = opening.create(LocalStorage(tmp_path / "vault"), None)[0]
    copy(a, target, [a.snapshots()[0].id])
    pack = max((tmp_path / "vault" / "data").rglob("*/*"), key=lambda path: path.stat().st_size)
    flip(pack, -200)
    result = copy(a, opening.open_vault(LocalStorage(tmp_path / "vault"), None))
    assert [one.code for one in result.findings] == ["vault_damaged"]
    assert contents(opening.open_vault(LocalStorage(tmp_path / "vault"), None)) == days(4)


def test_a_disk_that_lies_about_a_copy_is_caught_before_the_copy_is_listed() -> None:
    a, b = filled(), vault()
    lying = FaultyStorage(b.storage, Fault(call="put_new", number=1, kind="corrupt", prefix="data/"))
    with pytest.raises(DamagedError):
        copy(a, opening.open_vault(lying, None))
    assert again(b).snapshots() == []


def test_bases_that_need_each_other_are_lost_and_end() -> None:
    a = filled(2)
    [two] = [place for place in a.reader.closure(_named(a)).items() if place[1].depth][:1]
    one, place = two
    base = a.index.find(place.base or b"")
    assert base is not None
    real = a.reader.closure

    def round_and_round(chunks: set[bytes]) -> dict:
        found = real(chunks)
        if place.base in found:
            found[place.base] = base._replace(base=one, depth=9)
        return found

    a.reader.closure = round_and_round  # type: ignore[method-assign]
    result = copy(a, vault())
    assert result.failed


def _named(one: Vault) -> set[bytes]:
    from memkeep.ops.prove import chunks_of

    return {
        chunk for snapshot in one.snapshots() for chunk in chunks_of((), [one.image(part) for part in snapshot.parts])
    }


# -- secrets ----------------------------------------------------------------------------------------------------

KEY = "sk-thisisaverysecretapikey1234567890"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return an OpenClaw state folder with an auth file and a key in its configuration."""
    folder = tmp_path / "openclaw"
    agent.build(folder / "memory", lance=False)
    for name, text in {
        "openclaw.json": json.dumps({"models": {"providers": {"openai": {"apiKey": KEY, "baseUrl": "http://x"}}}}),
        "workspace/MEMORY.md": "# Memory\n",
        "agents/main/agent/auth-profiles.json": json.dumps({"profiles": {"one": {"key": KEY}}}),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def everything(one: OpenVault) -> bytes:
    inner, found = one._vault, []
    for snapshot in inner.snapshots():
        found.append(msgspec.json.encode(snapshot))
        for part in snapshot.parts:
            image = inner.image(part)
            found += [inner.reader.read(entry.recipe) for entry in image.entries if entry.recipe is not None]
    found += [inner.storage.get(stat.key) for stat in inner.storage.list("") if not stat.key.startswith("keys/")]
    return b"\n".join(found)


def test_secrets_stay_out_of_an_unencrypted_mirror_unless_asked_for(state: Path, new_vault: Make) -> None:
    source = new_vault("here")
    source.backup(state)
    bare, full, coded = new_vault("bare", encrypted=False), new_vault("full", encrypted=False), new_vault("coded")
    assert KEY.encode() in everything(source)
    result = source.copy(bare)
    assert KEY.encode() not in everything(bare)
    left = {one.part: one.reason for row in result.copied for one in row.omitted}
    assert left["agents/main/agent/auth-profiles.json"] == "secret, and the vault is not encrypted"
    assert "apiKey" in left["openclaw.json"]
    assert left.items() <= {one.part: one.reason for made in bare._vault.snapshots() for one in made.omitted}.items()
    assert bare.verify(all=True, rung=Rung.READABLE).all_findings == ()
    source.copy(full, include_secrets=True)
    source.copy(coded)
    assert KEY.encode() in everything(full)
    assert KEY.encode() in everything(coded)
    # Asked for later, they come; and what left nothing out is not replaced by what did.
    assert source.copy(bare).copied == ()
    assert source.copy(bare, include_secrets=True).copied
    assert KEY.encode() in everything(bare)
    assert source.copy(bare, include_secrets=True).copied == ()


def test_a_database_that_grew_day_by_day_is_copied_by_its_deltas(tmp_path: Path, new_vault: Make) -> None:
    source, target = new_vault("here"), new_vault("there")
    memory = agent.build(tmp_path / "agent" / "memory", lance=False)
    for day in range(5):
        with closing(sqlite3.connect(memory / "facts.db")) as connection, connection:
            connection.execute("create table if not exists more(day, text)")
            connection.executemany("insert into more values (?, ?)", [(day, f"{day} {n} " * 9) for n in range(300)])
        backup(source._vault, discover([memory]))
    source.copy(target)
    depths = [target._vault.index.find(one) for one in _named(target._vault)]
    assert max(place.depth for place in depths if place is not None) >= 3
    assert target.verify(all=True, rung=Rung.EQUIVALENT).all_findings == ()
