"""Each rung of the ladder proves what it says: what the one below can't see, the one above finds and names."""

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from memkeep.cli.main import run
from memkeep.library import OpenVault
from memkeep.model import PartImage, Rung, StoredEntry
from memkeep.testing import agent

Forge = Callable[..., str]
Store = Callable[..., StoredEntry]
FACT = agent.identity(30)


def other_bytes(
    part: str, change: Callable[[bytes], bytes], *, path: str = ""
) -> Callable[[PartImage, Store], PartImage]:
    """Return a change of an image in which a file of a part has other bytes, and all else is as it was.

    So a vault looks that faithfully keeps what a torn copy or a broken engine once gave it.
    """

    def changed(image: PartImage, store: Store) -> PartImage:
        if image.part.name != part:
            return image
        inner = [one for one in image.entries if one.entry.kind == "file"]
        entries = []
        for one in image.entries:
            live = Path(image.part.path).parents[len(Path(part).parts) - 1] / one.entry.path
            mine = one in inner and path in one.entry.path
            data = change(live.read_bytes()) if mine else b""
            fields = {"path": one.entry.path, "mode": one.entry.mode, "mtime_ns": one.entry.mtime_ns}
            entries.append(store(data, **fields) if mine and data != live.read_bytes() else one)
        assert entries != list(image.entries)
        return msgspec.structs.replace(image, entries=tuple(entries))

    return changed


def by_sql(folder: Path, *statements: str) -> Callable[[bytes], bytes]:
    """Return a change of a database by statements."""

    def change(data: bytes) -> bytes:
        path = folder / "changed.db"
        path.write_bytes(data)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()

    return change


@pytest.fixture
def proven(
    memory: Path, new_vault: Callable[..., OpenVault], forge: Forge
) -> Callable[[Any], tuple[Rung, set[str], set[str | None]]]:
    """Return `proven(change)`: how far such a snapshot gets, the codes of its findings, and the records they name."""

    def prove(change: Any) -> tuple[Rung, set[str], set[str | None]]:
        vault = new_vault()
        vault.backup(memory)
        name = forge(vault, change)
        [result] = vault.verify(name, rung=Rung.EQUIVALENT).snapshots
        assert {finding.part for finding in result.findings} <= {"facts.db", "lancedb/memories.lance", "memory.wal"}
        return result.rung, {one.code for one in result.findings}, {one.record for one in result.findings}

    return prove


def test_a_sound_snapshot_climbs_to_the_top(proven: Any) -> None:
    assert proven(lambda image, _: image) == (Rung.EQUIVALENT, set(), set())


def test_a_database_that_does_not_open_is_not_readable(proven: Any) -> None:
    rung, codes, _ = proven(other_bytes("facts.db", lambda data: bytes(4096) + data[4096:]))
    assert rung is Rung.INTACT
    assert codes


def test_a_torn_page_is_not_readable(proven: Any) -> None:
    def tear(data: bytes) -> bytes:
        size = len(data) // 4096 // 2 * 4096
        return data[:size] + bytes(range(256)) * 16 + data[size + 4096 :]

    rung, codes, _ = proven(other_bytes("facts.db", tear))
    assert rung is Rung.INTACT
    assert codes


def test_a_full_text_index_that_is_out_of_step_is_not_readable(proven: Any, tmp_path: Path) -> None:
    forget = by_sql(tmp_path, "INSERT INTO facts_fts(facts_fts) VALUES ('delete-all')")
    rung, codes, _ = proven(other_bytes("facts.db", forget))
    assert rung is Rung.INTACT
    assert any("fts" in code for code in codes)


def test_a_row_too_few_is_not_readable(proven: Any, tmp_path: Path) -> None:
    rung, codes, _ = proven(other_bytes("facts.db", by_sql(tmp_path, f"DELETE FROM facts WHERE id = '{FACT}'")))
    assert rung is Rung.INTACT
    assert "rows_differ" in codes


def test_another_value_in_one_field_is_not_equivalent_and_is_named(proven: Any, tmp_path: Path) -> None:
    trigger = (
        "CREATE TRIGGER facts_au AFTER UPDATE ON facts BEGIN"
        + agent._SCHEMA.partition("facts_au AFTER UPDATE ON facts BEGIN")[2]
    )
    update = f"UPDATE facts SET importance = 0.75 WHERE id = '{FACT}'"  # not through the index, whose own rows count
    change = by_sql(tmp_path, "DROP TRIGGER facts_au", update, trigger.partition("END;")[0] + "END;")
    rung, codes, records = proven(other_bytes("facts.db", change))
    assert rung is Rung.RESTORABLE
    assert {"digest_differs", "record_differs"} <= codes
    assert FACT in records


def test_one_bit_of_one_vector_is_not_equivalent_and_is_named(proven: Any) -> None:
    vector = struct.pack(f"<{agent.DIMS}f", *agent._vector(30))

    def flip(data: bytes) -> bytes:
        assert data.count(vector) == 1
        at = data.index(vector) + 2
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    def where_it_is(data: bytes) -> bytes:
        return flip(data) if vector in data else data

    rung, codes, records = proven(other_bytes("lancedb/memories.lance", where_it_is, path="/data/"))
    assert rung is Rung.RESTORABLE
    assert {"digest_differs", "record_differs"} <= codes
    assert FACT in records


def test_one_byte_of_a_file_is_not_equivalent(proven: Any) -> None:
    rung, codes, _ = proven(other_bytes("memory.wal", lambda data: data.replace(b"store", b"stare", 1)))
    assert rung is Rung.RESTORABLE
    assert codes == {"digest_differs"}


def test_a_snapshot_that_is_not_equivalent_is_a_problem_for_the_command_line(
    memory: Path,
    new_vault: Callable[..., OpenVault],
    forge: Forge,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vault = new_vault()
    vault.backup(memory)
    name = forge(vault, other_bytes("memory.wal", lambda data: data.replace(b"store", b"stare", 1)))
    monkeypatch.setenv("MEMKEEP_PASSWORD", "pw")
    verify = ["verify", name[:12], "--vault", str(home / "vault"), "--rung"]
    assert [run([*verify, rung]) for rung in ("intact", "readable", "restorable", "equivalent")] == [0, 0, 0, 4]
    out = capsys.readouterr().out
    assert "memory.wal" in out
    assert "restorable" in out
    assert vault.show(name).rung == "restorable"  # what was found last is what counts
