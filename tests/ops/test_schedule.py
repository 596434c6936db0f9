"""`memkeep schedule` with a crontab and a systemctl that only remember: what is written, kept, and taken away.

Whether a cron daemon really runs it: `tests/e2e/test_cron.py`. A user manager of systemd can't be had in a test; here
its unit files are checked by `systemd-analyze verify`, where that is there.
"""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memkeep.errors import MemkeepError, RefusedError, UnsupportedError, UsageError
from memkeep.library import OpenVault
from memkeep.ops import run_state, schedule
from memkeep.ops.schedule_job import Job, job, script
from memkeep.ops.schedule_times import daily, every

CRONTAB = """#!/bin/sh
case "$*" in
  -l) [ -e "$TABLE" ] || { echo "no crontab for agent" >&2; exit 1; }; cat "$TABLE";;
  -) cat > "$TABLE.new"; mv "$TABLE.new" "$TABLE";;
  -r) rm "$TABLE";;
  *) exit 2;;
esac
"""
SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$CALLS"
[ "$2" != "$REFUSED" ] || { echo "no such bus" >&2; exit 1; }
"""
OTHERS = b'MAILTO=""\n# \xff not UTF-8\n* * * * * echo "100 \\%"\t \n\n'


@pytest.fixture
def programs(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return `programs(**{name: text})`: a PATH with these programs alone; the folder that they remember in."""

    def make(**texts: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(0o755)
        for name in ("cat", "mv", "rm", "nice", "sh"):
            (folder / name).symlink_to(shutil.which(name) or name)
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.setenv("TABLE", str(tmp_path / "table"))
        monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
        monkeypatch.delenv("REFUSED", raising=False)
        return tmp_path

    return make


@pytest.fixture
def one(home: Path) -> Job:
    return job((sys.executable, "-m", "memkeep"), ("--vault", str(home / "my vault 5%")))


@pytest.mark.parametrize("before", [b"", OTHERS, OTHERS.rstrip(b"\n") + b"\n"])
def test_all_other_lines_of_the_crontab_stay_byte_for_byte(before: bytes, programs: Callable, one: Job) -> None:
    table = programs(crontab=CRONTAB) / "table"
    if before:
        table.write_bytes(before)
    done = schedule.install(one, every("6h"), None, 0.5, check=False)
    assert done.installed == schedule.Installed(by="cron", when="every 6h")
    first = table.read_bytes()
    assert first.startswith(before)
    assert first[len(before) :].decode() == done.files["crontab"]
    assert b"30 0,6,12,18 * * * /bin/sh " in first
    schedule.install(one, every("6h"), None, 0.9, check=False)
    assert table.read_bytes() == first  # the same schedule keeps its minute
    table.write_bytes(table.read_bytes() + b"@daily later\n")
    schedule.install(one, daily("03:00"), None, 0.9, check=False)
    assert table.read_bytes().startswith(before + b"@daily later\n")
    assert table.read_bytes().count(b"cron.sh") == 1
    schedule.remove(one)
    assert table.read_bytes() == before + b"@daily later\n"
    assert schedule.installed() is None


def test_what_was_no_crontab_is_none_again(programs: Callable, one: Job) -> None:
    table = programs(crontab=CRONTAB) / "table"
    schedule.install(one, None, None, 0.5, check=False)
    assert table.exists()
    schedule.remove(one)
    assert not table.exists()
    assert list(run_state.folder().iterdir()) == []


def test_a_crontab_that_can_t_be_read_is_not_written(programs: Callable, one: Job) -> None:
    table = programs(crontab=CRONTAB.replace('cat "$TABLE";;', 'echo "not allowed" >&2; exit 1;;')) / "table"
    table.write_bytes(OTHERS)
    with pytest.raises(MemkeepError, match="not allowed") as raised:
        schedule.install(one, None, None, 0.5, check=False)
    assert raised.value.code == "crontab"
    assert table.read_bytes() == OTHERS
    assert not (run_state.folder() / "cron.sh").exists()


@pytest.mark.parametrize("lost", [b"# memkeep schedule end\n", b"# memkeep schedule begin: every 6h (+30 min)\n"])
def test_marks_that_were_changed_by_hand_are_refused(lost: bytes, programs: Callable, one: Job) -> None:
    table = programs(crontab=CRONTAB) / "table"
    schedule.install(one, every("6h"), None, 0.5, check=False)
    table.write_bytes(changed := table.read_bytes().replace(lost, b"") + OTHERS)
    for act in (lambda: schedule.remove(one), lambda: schedule.install(one, None, None, 0.5, check=False)):
        with pytest.raises(RefusedError, match="by hand"):
            act()
    assert table.read_bytes() == changed


def test_systemd_gets_a_timer_and_a_service(programs: Callable, one: Job, home: Path) -> None:
    calls = programs(systemctl=SYSTEMCTL, crontab=CRONTAB) / "calls"
    done = schedule.install(one, every("90m"), None, 0.5, check=False)
    assert done.installed == schedule.Installed(by="systemd", when="every 90m")
    units = home / ".config" / "systemd" / "user"
    service, timer = ((units / name).read_text(encoding="utf-8") for name in ("memkeep.service", "memkeep.timer"))
    assert {str(units / "memkeep.service"): service, str(units / "memkeep.timer"): timer} == done.files
    assert f'ExecStart="{sys.executable}" "-m" "memkeep" "run" "--quiet"' in service
    assert 'my vault 5%%"' in service
    for line in ("Type=oneshot", "Nice=10", "IOSchedulingClass=idle"):
        assert f"\n{line}\n" in service
    for line in ("Persistent=true", "RandomizedDelaySec=900", "WantedBy=timers.target"):
        assert f"\n{line}\n" in timer
    assert timer.count("OnCalendar=") == 2
    assert calls.read_text().splitlines()[-3:] == [
        "--user daemon-reload",
        "--user enable memkeep.timer",
        "--user restart memkeep.timer",
    ]
    schedule.install(one, every("90m"), None, 0.1, check=False)
    assert (units / "memkeep.timer").read_text(encoding="utf-8") == timer
    (units / "other.timer").write_text("mine")
    schedule.remove(one)
    assert [path.name for path in units.iterdir()] == ["other.timer"]
    assert "--user disable --now memkeep.timer" in calls.read_text()


def test_the_unit_files_are_what_systemd_reads(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here")
    from memkeep.ops import schedule_systemd

    odd = tmp_path / 'an "odd" 5% \\ $HOME'
    odd.mkdir()
    program = odd / "memkeep"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("MEMKEEP_PASSWORD_COMMAND", "printf \"%s\" 'it\\s'")
    one = job((str(program),), ("--vault", str(odd)))
    for place, text in schedule_systemd.rendered(one, every("45m"), 0).items():
        (tmp_path / Path(place).name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", tmp_path / "memkeep.timer", tmp_path / "memkeep.service"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "memkeep" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_a_unit_of_another_s_is_left_alone(programs: Callable, one: Job, home: Path) -> None:
    programs(systemctl=SYSTEMCTL)
    units = home / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "memkeep.service").write_text("[Service]\nExecStart=/mine\n")
    with pytest.raises(RefusedError, match="not memkeep's"):
        schedule.install(one, None, None, 0.5, check=False)
    schedule.remove(one)
    assert (units / "memkeep.service").read_text() == "[Service]\nExecStart=/mine\n"


def test_a_timer_that_systemd_refuses_leaves_nothing(
    programs: Callable, one: Job, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(systemctl=SYSTEMCTL)
    monkeypatch.setenv("REFUSED", "enable")
    with pytest.raises(MemkeepError, match="no such bus"):
        schedule.install(one, None, None, 0.5, check=False)
    assert schedule.installed() is None
    assert list((home / ".config" / "systemd" / "user").iterdir()) == []


def test_cron_is_taken_where_systemd_has_no_manager_and_one_replaces_the_other(
    programs: Callable, one: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = programs(systemctl=SYSTEMCTL, crontab=CRONTAB) / "table"
    monkeypatch.setenv("REFUSED", "show-environment")
    done = schedule.install(one, None, None, 0.5, check=False)
    assert done.installed is not None
    assert done.installed.by == "cron"
    assert any("missed" in note for note in done.notes)
    with pytest.raises(UnsupportedError):
        schedule.install(one, None, "systemd", 0.5, check=False)
    monkeypatch.delenv("REFUSED")
    done = schedule.install(one, None, "systemd", 0.5, check=False)
    assert done.installed is not None
    assert done.installed.by == "systemd"
    assert not table.exists()
    done = schedule.install(one, None, "cron", 0.5, check=False)
    assert done.installed is not None
    assert done.installed.by == "cron"


def test_without_either_it_says_so_and_show_still_has_the_lines_for_the_agent(programs: Callable, one: Job) -> None:
    programs()
    with pytest.raises(UnsupportedError, match="neither"):
        schedule.install(one, None, None, 0.5, check=False)
    shown = schedule.show(one, None, None, 0.5)
    assert (shown.installed, shown.by, shown.files) == (None, None, {})
    assert "memkeep run --json" in "".join(shown.heartbeat)
    assert "memkeep status --json" in "".join(shown.heartbeat)


def test_show_writes_nothing(programs: Callable, one: Job, tree_hash: Callable, tmp_path: Path) -> None:
    programs(crontab=CRONTAB)
    before = tree_hash(tmp_path)
    shown = schedule.show(one, daily("03:00"), None, 0.5)
    assert shown.files["crontab"].splitlines()[1].startswith("7 3 * * * ")
    assert tree_hash(tmp_path) == before


def test_secrets_of_this_shell_are_not_written_down(programs: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(crontab=CRONTAB)
    for name in ("MEMKEEP_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("MEMKEEP_PASSWORD_FILE", "word")
    one = job(("memkeep",), ())
    assert one.environment["MEMKEEP_PASSWORD_FILE"] == str(Path("word").absolute())
    done = schedule.install(one, None, None, 0.5, check=False)
    assert "hush" not in str(done)
    place = run_state.folder() / "cron.sh"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_line_break_in_a_path_is_refused() -> None:
    with pytest.raises(UsageError, match="line break"):
        job(("memkeep",), ("--vault", "a\nb"))


def test_the_script_gives_odd_words_through_whole(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = ["it's", "5%", "$HOME", "`id`", "two words", "\\", '"', "*"]
    monkeypatch.setenv("MEMKEEP_PASSWORD_COMMAND", "".join(odd))
    one = job(("x",), ())
    (home / ".config" / "memkeep").mkdir(parents=True)
    Path(one.env_file).write_text("MORE='from the file'\n")
    told = ("/bin/sh", "-c", 'printf "%s\\n" "$@" "$MEMKEEP_PASSWORD_COMMAND" "$MORE"', "sh", *odd)
    done = subprocess.run(["/bin/sh", "-c", script(one, told)], env={}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*odd, "".join(odd), "from the file"]


@pytest.fixture
def real(programs: Callable, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """Return `real(*words)`: a job that starts this memkeep."""
    programs(crontab=CRONTAB)
    import memkeep

    monkeypatch.setenv("PYTHONPATH", str(Path(memkeep.__file__).parent.parent))
    return lambda *words: job((sys.executable, "-m", "memkeep"), words)


def test_a_password_that_only_this_shell_knows_is_refused_with_the_way_out(
    real: Callable, new_vault: Callable[..., OpenVault], home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    new_vault()
    monkeypatch.setenv("MEMKEEP_PASSWORD", "pw")
    with pytest.raises(RefusedError, match="without a terminal") as raised:
        schedule.install(real("--vault", str(home / "vault")), None, None, 0.5)
    assert raised.value.code == "schedule_would_fail"
    assert "--password-file" in raised.value.hint
    assert not (tmp_path / "table").exists()
    word = home / "the word"
    word.write_text("pw\n")
    done = schedule.install(real("--vault", str(home / "vault"), "--password-file", str(word)), None, None, 0.5)
    assert done.installed is not None
    other = home / ".config" / "memkeep" / "run.env"
    other.parent.mkdir(parents=True)
    other.write_text("MEMKEEP_PASSWORD=pw\n")
    assert schedule.install(real("--vault", str(home / "vault")), None, None, 0.5).installed is not None


def test_a_vault_that_is_not_there_and_a_program_that_does_not_start_are_refused(real: Callable, home: Path) -> None:
    with pytest.raises(RefusedError, match="vault"):
        schedule.install(real("--vault", str(home / "nothing")), None, None, 0.5)
    with pytest.raises(RefusedError, match="does not start"):
        schedule.install(job(("/no/such/memkeep",), ()), None, None, 0.5)
    assert schedule.installed() is None


def test_a_mirror_whose_password_only_this_shell_knows_is_refused_too(
    real: Callable, new_vault: Callable[..., OpenVault], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_vault()
    (home / "note.md").write_text("# One\n")
    new_vault("mirror")
    word = home / "word"
    word.write_text("pw\n")
    monkeypatch.setenv("MEMKEEP_TO_PASSWORD", "pw")
    one = real("--vault", str(home / "vault"), "--password-file", str(word))
    with pytest.raises(RefusedError, match="mirror") as raised:
        schedule.install(one, None, None, 0.5, vaults=[str(home / "mirror")])
    assert "MEMKEEP_TO_PASSWORD_FILE" in raised.value.hint
    monkeypatch.setenv("MEMKEEP_TO_PASSWORD_FILE", str(word))
    one = real("--vault", str(home / "vault"), "--password-file", str(word))
    done = schedule.install(one, None, None, 0.5, vaults=[str(home / "mirror")])
    assert done.installed is not None
    assert not [note for note in done.notes if "failed" in note]


def test_a_store_whose_secret_only_this_shell_knows_is_refused_with_the_way_out(
    real: Callable, new_vault: Callable[..., OpenVault], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_vault(encrypted=False)
    folder = home / "Thanos" / "State"
    folder.mkdir(parents=True)
    con = sqlite3.connect(folder / "relationships.db")
    con.execute("CREATE TABLE relationships (id INTEGER PRIMARY KEY, source_id, target_id, rel_type, strength)")
    con.close()
    config = home / ".config" / "memkeep" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[stores.thanos]\npath = "~/Thanos"\n')
    monkeypatch.setenv("THANOS_MEMORY_DATABASE_URL", "postgresql://me:hush@127.0.0.1:1/memories")
    with pytest.raises(RefusedError, match="where the memories are") as raised:
        schedule.install(real("--vault", str(home / "vault")), None, None, 0.5)
    assert "run.env" in raised.value.hint
    assert schedule.installed() is None
    (config.parent / "run.env").write_text("THANOS_MEMORY_DATABASE_URL=postgresql://me:hush@127.0.0.1:1/memories\n")
    done = schedule.install(real("--vault", str(home / "vault")), None, None, 0.5)
    assert done.installed is not None  # a server that is away now may be there by then
    assert any("127.0.0.1:1" in note for note in done.notes)
    assert "hush" not in str(done)
