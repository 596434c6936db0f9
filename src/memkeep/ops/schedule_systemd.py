"""A schedule as a timer of systemd's user manager: two unit files, and their enabling."""

import getpass
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from memkeep.errors import MemkeepError, RefusedError
from memkeep.ops.schedule_job import Job
from memkeep.ops.schedule_times import When, calendar_times

name = "systemd"
gives: tuple[str, ...] = ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR")  # what a keyring is reached by
_MARK = "# Made by `memkeep schedule install`, "
_TIMER = "memkeep.timer"
_SERVICE = "memkeep.service"
_LATEST = 15 * 60  # seconds by which a run is put off at most


def available() -> bool:
    """Say whether there is a user manager to ask."""
    return shutil.which("systemctl") is not None and _systemctl("show-environment").returncode == 0


def installed() -> str | None:
    """Return when it runs, None when there is no schedule."""
    with suppress(OSError):
        first = (_folder() / _TIMER).read_text(encoding="utf-8").partition("\n")[0]
        if first.startswith(_MARK):
            return first.removeprefix(_MARK)
    return None


def rendered(job: Job, when: When, delay: int) -> dict[str, str]:  # noqa: ARG001 - systemd draws its own delay
    """Return the two unit files."""
    jitter = min(_LATEST, when.spread * 60 // 4)
    service = (
        f"{_MARK}{when.text}",
        "[Unit]",
        "Description=memkeep: keep the memory of AI agents safe",
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in _startable(job.command))}",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in job.environment.items()),
        f"EnvironmentFile=-{job.env_file.replace('%', '%%')}",
        "Nice=10",
        "IOSchedulingClass=idle",
        "",
    )
    timer = (
        f"{_MARK}{when.text}",
        "[Unit]",
        f"Description=memkeep, {when.text}",
        "",
        "[Timer]",
        *(f"OnCalendar={times}" for times in calendar_times(when)),
        "Persistent=true",
        f"RandomizedDelaySec={jitter}",
        "AccuracySec=1min",
        "",
        "[Install]",
        "WantedBy=timers.target",
        "",
    )
    return {str(_folder() / _SERVICE): "\n".join(service), str(_folder() / _TIMER): "\n".join(timer)}


def install(job: Job, when: When, delay: int) -> None:
    """Write the units and start the timer; a schedule that is there is replaced."""
    written = {
        Path(place): text.encode("utf-8", "surrogateescape") for place, text in rendered(job, when, delay).items()
    }
    for path in written:
        _refuse_stranger(path)
    before = {path: path.read_bytes() if path.exists() else None for path in written}
    _folder().mkdir(parents=True, exist_ok=True)
    for path, text in written.items():
        path.write_bytes(text)
    for words in (["daemon-reload"], ["enable", _TIMER], ["restart", _TIMER]):
        done = _systemctl(*words)
        if done.returncode:
            for path, old in before.items():
                path.unlink() if old is None else path.write_bytes(old)
            _systemctl("daemon-reload")
            said = " ".join(done.stderr.decode("utf-8", "replace").split())
            raise MemkeepError(
                f"systemctl --user {' '.join(words)} failed: {said}",
                unchanged="The unit files are as they were.",
                hint="memkeep schedule install --with cron",
                code="systemd",
            )


def remove() -> None:
    """Stop the timer and take both unit files away."""
    if installed() is None:
        return
    if shutil.which("systemctl"):
        _systemctl("disable", "--now", _TIMER)
    for unit in (_TIMER, _SERVICE):
        path = _folder() / unit
        if path.exists():
            _refuse_stranger(path)
            path.unlink()
    if shutil.which("systemctl"):
        _systemctl("daemon-reload")


def notes() -> list[str]:
    """Return what the user should know."""
    with suppress(OSError, KeyError):
        if not Path("/var/lib/systemd/linger", getpass.getuser()).exists():
            return ["it runs only while you are logged in; for always: loginctl enable-linger"]
    return []


def _folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "systemd" / "user"


def _refuse_stranger(path: Path) -> None:
    if path.exists() and not path.read_bytes().startswith(_MARK.encode()):
        raise RefusedError(f"{path} is there and is not memkeep's", hint="memkeep schedule show", code="target_exists")


def _systemctl(*words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["systemctl", "--user", *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _startable(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command whose program has a name that systemd takes: no quotes, backslashes or `$`."""
    return ("/usr/bin/env", *command) if set(command[0]) & set("\"'\\$") else command


def _quoted(text: str) -> str:
    r"""Return a word as systemd reads it: `\` and `"` escaped, and `%`, which begins a specifier."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
