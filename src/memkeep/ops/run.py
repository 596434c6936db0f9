"""Do what the settings say in one go: back up, verify, forget, prune, copy.

To add a step, write a function and name it in `STEPS`. A step that fails keeps only those from being done that name
it in `after`: nothing is taken out of a vault that was not just found to be good.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from memkeep import clock
from memkeep.amounts import count, size
from memkeep.config import Config
from memkeep.errors import MemkeepError, UsageError
from memkeep.events import SILENT, Events
from memkeep.model import BEFORE_RESTORE, Rung, Store
from memkeep.ops.backup import BackupResult, FailedStore, backup
from memkeep.ops.copy import copy
from memkeep.ops.forget import forget
from memkeep.ops.outcome import status_of, status_of_backup, status_of_prune, status_of_verify, worst
from memkeep.ops.prune import prune
from memkeep.ops.run_state import LastRun, Log, note_last, only_one
from memkeep.ops.verify import VerifyReport, verify
from memkeep.vault.vault import Vault

INTERRUPTED = 130


class StepError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a step failed."""

    code: str
    message: str
    hint: str


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one step did; `exit` is the status that its verb would have ended with.

    `ok` says that it was done and nothing was wrong, `skipped` why it was not begun, `said` what it did in few words.
    `result` is what the verb gives with `--json`, null when the step failed or was skipped.
    """

    name: str
    to: str | None = None  # of a copy: the vault
    ok: bool
    exit: int = 0
    seconds: float = 0.0
    said: str = ""
    skipped: str | None = None
    error: StepError | None = None
    result: Any = None


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did: its steps in order, and the worst of their statuses."""

    started: str
    seconds: float
    exit: int
    steps: tuple[StepReport, ...]


class Work(NamedTuple):
    """What the steps work with: the settings, how to open a vault by name, how to find stores, who hears of it."""

    config: Config
    vault: Vault
    open: Callable[[str], Vault]
    find: Callable[[list[FailedStore]], list[Store]]
    events: Events


class Done(NamedTuple):
    """What a step gives back."""

    result: Any
    exit: int
    said: str


class Step(NamedTuple):
    """One kind of step: what it does, and the steps without which it is not begun."""

    do: Callable[[Work, str | None], Done]
    after: tuple[str, ...] = ()


def run(
    config: Config,
    open_vault: Callable[[], Vault],
    open_other: Callable[[str], Vault],
    find: Callable[[list[FailedStore]], list[Store]],
    *,
    events: Events = SILENT,
) -> RunResult:
    """Do the steps of the settings, one run at a time, and return what each of them did.

    `open_vault` opens the vault, `open_other` one that copies go to. Raises `VaultLeasedError` while another run is at
    work, `UsageError` for settings that contradict themselves, and what opening the vault raises; both the log and
    `last_run` tell of that too.
    """
    plan = planned(config)
    with only_one() as me:
        started = clock.monotonic()
        log = Log()
        reports: list[StepReport] = []
        note_last(LastRun(started=me.since))
        log.line("run begins: " + ", ".join(map(_title, plan)))
        failure: BaseException | None = None
        try:
            work = Work(config, open_vault(), open_other, find, events)
            for name, to in plan:
                reports.append(_step(work, name, to, reports))
                log.line(_line(reports[-1]))
        except BaseException as error:
            failure = error
            raise
        finally:
            last = _last(me.since, clock.monotonic() - started, reports, failure)
            note_last(last)
            log.line(f"run ends: exit {last.exit}, {last.seconds} s" + (f", {last.code}" if failure else ""))
            log.close()
    return RunResult(started=me.since, seconds=last.seconds or 0.0, exit=last.exit or 0, steps=tuple(reports))


def planned(config: Config) -> list[tuple[str, str | None]]:
    """Return the steps that the settings ask for, in the order in which they are done, and where a copy goes."""
    settings = config.run
    forgets = any(getattr(config.retention, name) for name in config.retention.__struct_fields__)
    lacks = {
        "forget": "" if forgets else "[retention] says nothing",
        "copy": "" if settings.copy_to else "copy_to is empty",
    }
    for name in settings.steps:
        if lacks.get(name):
            raise UsageError(
                f"[run] names the step {name!r}, but {lacks[name]}", hint="memkeep run --help", code="config"
            )
    asked = settings.steps or ["backup", "verify", *(["forget", "prune"] if forgets else []), "copy"]
    chosen = [name for name in STEPS if name in asked]
    return [(name, to) for name in chosen for to in (settings.copy_to if name == "copy" else [None])]


def _step(work: Work, name: str, to: str | None, before: list[StepReport]) -> StepReport:
    """Do one step, unless one that it needs did not go well."""
    for one in before:
        if one.name in STEPS[name].after and not one.ok:
            return StepReport(name=name, to=to, ok=False, skipped=f"{one.name} did not go well")
    began = clock.monotonic()
    try:
        done = STEPS[name].do(work, to)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other steps are still done
        told = _told(error, name)
        status = error.exit if isinstance(error, MemkeepError) else 1
        return StepReport(name=name, to=to, ok=False, exit=status, seconds=_since(began), error=told, said=told.message)
    return StepReport(
        name=name,
        to=to,
        ok=done.exit == 0,
        exit=done.exit,
        seconds=_since(began),
        said=done.said,
        result=done.result,
    )


def _told(error: Exception, verb: str) -> StepError:
    if isinstance(error, MemkeepError):
        return StepError(code=error.code, message=error.message, hint=error.hint)
    if isinstance(error, OSError):
        return StepError(code="system", message=f"{error.strerror}: {error.filename or ''}", hint="memkeep status")
    message = f"an error in memkeep: {type(error).__name__}"  # no more of it: it may hold a memory
    return StepError(code="internal", message=message, hint=f"MEMKEEP_TRACEBACK=1 memkeep {verb}")


def _back_up(work: Work, _: str | None) -> Done:
    unfound: list[FailedStore] = []
    result: BackupResult = backup(work.vault, work.find(unfound), unfound=unfound, events=work.events)
    failed = f", {count(len(result.failed), 'store')} failed" if result.failed else ""
    added = sum(one.added_bytes for one in result.snapshots)
    return Done(
        result, status_of_backup(result), f"{count(len(result.snapshots), 'snapshot')}, {size(added)} added{failed}"
    )


def _verify(work: Work, _: str | None) -> Done:
    """Verify the newest snapshot of every store, or all."""
    newest = {(one.system, one.path, one.user): one.id for one in work.vault.snapshots() if one.tag != BEFORE_RESTORE}
    rung = Rung(work.config.run.verify)
    every = work.config.run.verify_all
    report: VerifyReport = verify(work.vault, list(newest.values()), rung=rung, all=every, events=work.events)
    reached = sum(one.rung.height >= rung.height for one in report.snapshots)
    said = (
        f"{reached} of {count(len(report.snapshots), 'snapshot')} {rung}, {count(len(report.all_findings), 'finding')}"
    )
    return Done(report, status_of_verify(report, rung), said)


def _forget(work: Work, _: str | None) -> Done:
    result = forget(work.vault, retention=work.config.retention)
    return Done(result, 0, f"{count(len(result.forgotten), 'snapshot')} forgotten, {len(result.kept)} kept")


def _prune(work: Work, _: str | None) -> Done:
    result = prune(work.vault, events=work.events)
    held = f", {count(len(result.held), 'object')} held" if result.held else ""
    locked = f" ({size(result.locked_bytes)} locked until {result.locked_until})" if result.locked_until else ""
    return Done(result, status_of_prune(result), f"{size(result.removed_bytes)} removed{locked}{held}")


def _copy(work: Work, to: str | None) -> Done:
    result = copy(work.vault, work.open(str(to)), events=work.events)
    lost = f", {len(result.failed)} not whole" if result.failed else ""
    there = f"{len(result.present)} there already"
    said = f"{count(len(result.copied), 'snapshot')} copied, {there}{lost}, {size(result.added_bytes)} added"
    return Done(result, status_of(result.findings), said)


PROVEN = ("backup", "verify")

STEPS: dict[str, Step] = {
    "backup": Step(_back_up),
    "verify": Step(_verify),
    "forget": Step(_forget, after=PROVEN),
    "prune": Step(_prune, after=(*PROVEN, "forget")),
    "copy": Step(_copy),
}


def _last(since: str, seconds: float, reports: list[StepReport], failure: BaseException | None) -> LastRun:
    if isinstance(failure, Exception):
        told = _told(failure, "run")
        status = failure.exit if isinstance(failure, MemkeepError) else 1
        return LastRun(started=since, seconds=round(seconds, 3), exit=status, code=told.code, message=told.message)
    if failure is not None:
        return LastRun(started=since, seconds=round(seconds, 3), exit=INTERRUPTED, code="interrupted")
    status = worst(one.exit for one in reports)
    bad = next((one for one in reports if status and one.exit == status), None)
    return LastRun(
        started=since,
        seconds=round(seconds, 3),
        exit=status,
        step=_title((bad.name, bad.to)) if bad else "",
        code=bad.error.code if bad and bad.error else "",
        message=bad.said if bad else "",
    )


def _line(report: StepReport) -> str:
    title = _title((report.name, report.to))
    if report.skipped:
        return f"{title}: skipped, {report.skipped}"
    code = f", {report.error.code}" if report.error else ""
    return f"{title}: exit {report.exit}, {report.seconds} s{code}: {report.said}"


def _title(step: tuple[str, str | None]) -> str:
    return f"{step[0]} to {step[1]}" if step[1] else step[0]


def _since(began: float) -> float:
    return round(clock.monotonic() - began, 3)
