"""What a scheduler is to start: this memkeep, with the places that were given here and never a password."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memkeep.errors import RefusedError, UsageError
from memkeep.model import Value

CARRIED = (
    "PATH",
    "PYTHONPATH",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "OPENCLAW_STATE_DIR",
    "MEMKEEP_CONFIG",
    "MEMKEEP_PASSWORD_FILE",
    "MEMKEEP_PASSWORD_COMMAND",
    "MEMKEEP_TO_PASSWORD_FILE",
    "MEMKEEP_TO_PASSWORD_COMMAND",
    "PASSWORD_STORE_DIR",
    "GNUPGHOME",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "QDRANT_API_KEY_FILE",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
)
"""Variables of this shell that the runs need too. Whatever is a secret is not among them."""

_FILES = (
    "MEMKEEP_CONFIG",
    "MEMKEEP_PASSWORD_FILE",
    "MEMKEEP_TO_PASSWORD_FILE",
    "QDRANT_API_KEY_FILE",
    "PGPASSFILE",
    "PGSERVICEFILE",
)
_PATIENCE = 120
_HOPELESS = (2, 10, 12, 13)  # statuses that do not mend themselves: usage, no vault, wrong key, refused


_SECRETS = ("store_denied", "memories_elsewhere")  # codes of what a variable of this shell may have opened here
_NOTHING = ("no_snapshot", "no_store")


class Job(Value):
    """A program, the words after its verb, and its environment; `env_file` may hold more, secrets too."""

    program: tuple[str, ...]
    words: tuple[str, ...]
    environment: dict[str, str]
    env_file: str

    @property
    def command(self) -> tuple[str, ...]:
        """What is started."""
        return (*self.program, "run", "--quiet", *self.words)


def job(program: tuple[str, ...], words: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> Job:
    """Return the job for this user; raises `UsageError` where a path has a line break, which no scheduler takes."""
    import platformdirs

    environment = {"HOME": environ.get("HOME") or str(Path.home())}
    for name in CARRIED:
        if value := environ.get(name):
            environment[name] = str(Path(value).expanduser().absolute()) if name in _FILES else value
    made = Job(
        program=program,
        words=words,
        environment=environment,
        env_file=str(platformdirs.user_config_path("memkeep") / "run.env"),
    )
    for text in (*made.command, *environment.values(), made.env_file):
        if any(char in text for char in "\n\r\0"):
            raise UsageError(f"{text!r} has a line break, which schedulers don't take", hint="memkeep schedule show")
    return made


def script(one: Job, command: tuple[str, ...]) -> str:
    """Return a shell script that runs a command with the job's environment, when the machine has nothing else to do."""
    return "\n".join(
        (
            "#!/bin/sh",
            "# Made by `memkeep schedule install`; `memkeep schedule remove` takes it away.",
            *(f"export {name}={shlex.quote(value)}" for name, value in one.environment.items()),
            f"if [ -r {shlex.quote(one.env_file)} ]; then set -a; . {shlex.quote(one.env_file)}; set +a; fi",
            f"set -- {shlex.join(command)}",
            'if command -v ionice >/dev/null; then set -- ionice -c 3 "$@"; fi',
            'exec nice -n 10 "$@"',
            "",
        )
    )


def rehearse(one: Job, vaults: tuple[str, ...], given: dict[str, str]) -> list[str]:
    """Open the vault, the others that are named and the stores, as a scheduled run would; return what is worth a note.

    `given` are the variables that the scheduler has for it beside the job's own.
    Raises `RefusedError` when a run could not even begin, so that it is noticed now and not when a backup is needed.
    """
    notes = []
    copies = [("copy", "latest", "--dry-run", "--to", name) for name in vaults]
    verbs: list[tuple[str, ...]] = [("snapshots",), *copies, ("backup", "--dry-run")]
    for verb in verbs:
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", script(one, (*one.program, *verb, "--json", *one.words))],
                env=given,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                start_new_session=True,  # without a terminal to ask on
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            notes.append(f"tried just now, it did not end in {_PATIENCE} s")
            continue
        try:
            answer = json.loads(done.stdout)
            error = answer.get("error")
        except ValueError:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            said_so = f"it does not start: {''.join(said)}"
            answer, error = {}, {"code": "internal", "message": said_so, "exit": 2, "hint": "memkeep schedule show"}
        for message in _locked(error, answer.get("result") or {}):
            raise _refused({"code": "store_denied", "message": message, "hint": ""}, verb, one.env_file)
        if error and error["exit"] in _HOPELESS:
            raise _refused(error, verb, one.env_file)
        notes += [f"tried just now, it failed: {message}" for message in _failures(error, answer.get("result") or {})]
    return notes


def _locked(error: dict[str, Any] | None, result: dict[str, Any]) -> Iterator[str]:
    """Yield what is said of stores that only a variable of this shell may open."""
    for one in (error, *result.get("failed", ())):
        if one and one["code"] in _SECRETS:
            yield one["message"]
    for report in result.get("snapshots", ()):
        yield from (one["message"] for one in report.get("findings", ()) if one["code"] in _SECRETS)


def _failures(error: dict[str, Any] | None, result: dict[str, Any]) -> Iterator[str]:
    """Yield what else failed, though it may have mended itself by the time of a run."""
    for one in (error, *result.get("failed", ())):
        if one and one["code"] not in _NOTHING:
            yield one["message"]
    for report in result.get("snapshots", ()):
        yield from (one["message"] for one in report.get("findings", ()) if one["severity"] == "error")


def _refused(error: dict[str, str], verb: tuple[str, ...], env_file: str) -> RefusedError:
    ways = "memkeep schedule install --password-file FILE   # mode 0600; or password_file in the settings"
    if verb[0] == "copy":
        ways = (
            "MEMKEEP_TO_PASSWORD_FILE=FILE memkeep schedule install   # or password_file of that vault in the settings"
        )
    return RefusedError(
        f"a scheduled run would fail, tried without a terminal and this shell's secrets: {error['message']}",
        unchanged="Nothing was installed.",
        hint={"wrong_key": ways, "store_denied": _for_stores(env_file)}.get(error["code"], error["hint"]),
        code="schedule_would_fail",
    )


def _for_stores(env_file: str) -> str:
    return (
        f"${{EDITOR:-vi}} {shlex.quote(env_file)}   # mode 0600, lines like PGPASSWORD=...; "
        "or password_file of the store in the settings, or ~/.pgpass"
    )
