"""The next command that is named works when it is pasted where the last one was typed."""

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from memkeep.cli.face import Face
from memkeep.errors import StoreError
from memkeep.ops.parcel_read import is_parcel
from memkeep.ops.survey import mend_of


def face(**given: str) -> Face:
    made = Face([])
    for name, text in given.items():
        setattr(made, name, text)
    return made


def test_what_opened_the_vault_is_said_again() -> None:
    given = face(vault="my vault", password_file="pw", config="c.toml")
    assert given.runnable("memkeep backup") == "memkeep backup --vault 'my vault' --config c.toml --password-file pw"


def test_the_password_of_one_vault_is_not_offered_to_another() -> None:
    given = face(vault="one", password_file="pw")
    assert given.runnable("memkeep verify --all --vault two") == "memkeep verify --all --vault two"
    assert given.runnable("memkeep status --password-file FILE") == "memkeep status --password-file FILE --vault one"


def test_a_remark_is_one_that_a_shell_takes() -> None:
    command = face(vault="v").runnable("memkeep backup   # then, to do without them: (that)")
    assert command == "memkeep backup --vault v   # then, to do without them: (that)"
    assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0


def test_a_lost_index_segment_is_for_repair_and_a_lost_snapshot_is_not() -> None:
    assert mend_of("index/00") == mend_of("data/00/00") == "memkeep repair"
    assert mend_of("snapshots/" + "ab" * 32).endswith("memkeep forget abababababab")


def test_a_packed_file_that_is_not_there_is_told_from_a_snapshot_that_is_not() -> None:
    with pytest.raises(StoreError, match="there is no file"):
        is_parcel("missing.tar.zst")
    assert not is_parcel("latest")


def test_what_is_shown_of_a_schedule_is_what_the_next_command_installs(run_cli: Callable) -> None:
    shown = run_cli("schedule", "show", "--daily", "03:00", "--with", "cron")
    assert "Next: memkeep schedule install --daily 03:00 --with cron\n" in shown.stdout + shown.stderr


def test_a_part_that_was_restored_alone_is_not_compared_with_the_whole(run_cli: Callable, home: Path) -> None:
    for name in ("a.db", "b.db"):
        (home / "store").mkdir(exist_ok=True)
        with closing(sqlite3.connect(home / "store" / name)) as con, con:
            con.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, content TEXT)")
            con.execute("INSERT INTO memories VALUES (1, 'tea')")
    vault = ("--vault", home / "vault")
    run_cli("init", "--no-encryption", *vault)
    run_cli("backup", home / "store", *vault)
    alone = run_cli("restore", "latest", "--part", "a.db", "--to", home / "alone", *vault)
    assert f"Next: memkeep discover {home / 'alone'}" in alone.stdout + alone.stderr
    whole = run_cli("restore", "latest", "--to", home / "whole", *vault)
    assert "Next: memkeep diff " in whole.stdout + whole.stderr
