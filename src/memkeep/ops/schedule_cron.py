"""A schedule in the user's crontab: a few lines between two marks, and the script that they start.

The script is there because a crontab line has no PATH to speak of, ends at `%`, may be no longer than 998 bytes, and
would share its variables with every line below it. All other lines of the crontab stay as they are, byte for byte.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from memkeep.errors import MemkeepError, RefusedError
from memkeep.ops.run_state import folder, made_folder
from memkeep.ops.schedule_job import Job, script
from memkeep.ops.schedule_times import When, cron_times

name = "cron"
gives: tuple[str, ...] = ()
MISSED = "cron does not make up for a run that was missed while the machine was off; systemd does"
_BEGIN = "# memkeep schedule begin: "
_END = "# memkeep schedule end"
_BLOCK = re.compile(
    rb"^" + re.escape(_BEGIN).encode() + rb"(?P<when>[^\n]*?) \(\+(?P<delay>\d+) min\)\n(?:.*?\n)?"
    rb"" + re.escape(_END).encode() + rb"\n",
    re.MULTILINE | re.DOTALL,
)
_NONE = re.compile(rb"no crontab for|can't open .*No such file")


def available() -> bool:
    """Say whether there is a crontab to write to."""
    return shutil.which("crontab") is not None


def installed() -> str | None:
    """Return when it runs, None when there is no schedule."""
    if not _script().exists() or not available():
        return None
    block = _block(_read())
    return block["when"].decode() if block else None


def rendered(job: Job, when: When, delay: int) -> dict[str, str]:
    """Return what an installation writes: the script, and under `crontab` the lines."""
    return {str(_script()): script(job, job.command), "crontab": _lines(when, _delay(when, delay))}


def install(job: Job, when: When, delay: int) -> None:
    """Write the script and the lines; a schedule that is there is replaced, and keeps its delay."""
    written = rendered(job, when, delay)
    before = _read()
    _write_script(written[str(_script())])
    _write(before, _without(before) + written["crontab"].encode("utf-8", "surrogateescape"))


def remove() -> None:
    """Take the lines and the script away."""
    if available():
        before = _read()
        _write(before, _without(before))
    _script().unlink(missing_ok=True)


def notes() -> list[str]:
    """Return what the user should know."""
    return [MISSED]


def _script() -> Path:
    return folder() / "cron.sh"


def _delay(when: When, delay: int) -> int:
    """Return the delay of an installed schedule that is the same, else the given one."""
    block = _block(_read()) if available() else None
    return int(block["delay"]) if block and block["when"].decode() == when.text else delay


def _lines(when: When, delay: int) -> str:
    command = shlex.join(["/bin/sh", str(_script())]).replace("%", r"\%")
    lines = [f"{times} {command}" for times in cron_times(when, delay)]
    return "\n".join((f"{_BEGIN}{when.text} (+{delay} min)", *lines, _END, ""))


def _block(table: bytes) -> "re.Match[bytes] | None":
    found = _BLOCK.search(table)
    if not found and any(mark.encode() in table for mark in (_BEGIN, _END)):
        raise RefusedError(
            "the crontab has one of memkeep's two marks, but not the other: it was changed by hand",
            hint="crontab -e",
            code="crontab_changed",
        )
    return found


def _without(table: bytes) -> bytes:
    block = _block(table)
    rest = table[: block.start()] + table[block.end() :] if block else table
    return rest if rest.endswith(b"\n") or not rest else rest + b"\n"


def _read() -> bytes:
    done = subprocess.run(["crontab", "-l"], env=_environ(), capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout
    if _NONE.search(done.stderr):
        return b""
    raise _failed("read", done.stderr)  # never take "can't tell" for "empty": it would be overwritten


def _write(before: bytes, table: bytes) -> None:
    if table == before:
        return
    words = ["crontab", "-"] if table else ["crontab", "-r"]
    done = subprocess.run(words, env=_environ(), input=table, capture_output=True, check=False)
    if done.returncode:
        raise _failed("written", done.stderr)


def _failed(what: str, stderr: bytes) -> MemkeepError:
    said = " ".join(stderr.decode("utf-8", "replace").split())
    return MemkeepError(
        f"the crontab can't be {what}: {said}", unchanged="The crontab is as it was.", hint="crontab -l", code="crontab"
    )


def _environ() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _write_script(text: str) -> None:
    temporary = made_folder() / "cron.new"
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(text.encode("utf-8", "surrogateescape"))
    temporary.replace(_script())
