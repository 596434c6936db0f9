"""From what an operation found to its exit status, and the worst of several.

The order, best first: 0, 4 (finished, problems found), 3 (finished, some of the source unread), then the failures by
their number: 1, 2, 10 to 14, 20 (stored bytes are damaged), 130.
"""

from collections.abc import Iterable

from memkeep.errors import INCOMPLETE, PROBLEMS, DamagedError
from memkeep.model import Finding, Rung, Severity
from memkeep.ops.backup import BackupResult, FailedStore
from memkeep.ops.freeze import UNREAD
from memkeep.ops.prune import PruneResult
from memkeep.ops.verify import VerifyReport

FINISHED = (0, PROBLEMS, INCOMPLETE)


def worst(statuses: Iterable[int]) -> int:
    """Return the worst exit status of several; 0 of none."""
    return max(statuses, key=_badness, default=0)


def _badness(status: int) -> int:
    return FINISHED.index(status) if status in FINISHED else len(FINISHED) + status


def status_of(findings: Iterable[Finding]) -> int:
    """Return the exit status that findings ask for: damaged bytes, then unread sources, then other errors, else 0."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if any(finding.object for finding in errors):
        return DamagedError.exit
    if any(finding.code == UNREAD for finding in errors):
        return INCOMPLETE
    return PROBLEMS if errors else 0


def status_of_backup(result: BackupResult, *, proven: bool = True) -> int:
    """Return the exit status of a backup; `proven` says that it was to read back what it wrote.

    A store that failed beside others that did not is a source that was not read; worse when its failure was worse.
    """
    short = proven and any(report.rung.height < Rung.READABLE.height for report in result.snapshots)
    return worst(
        (
            status_of(finding for report in result.snapshots for finding in report.findings),
            PROBLEMS if short else 0,
            status_of_failed(result.failed),
        )
    )


def status_of_failed(failed: Iterable[FailedStore]) -> int:
    """Return the exit status of stores that were not read, 0 of none."""
    return worst(INCOMPLETE if one.exit == 1 else one.exit for one in failed)


def status_of_prune(result: PruneResult) -> int:
    """Return the exit status of a prune: what the storage did not give up is a problem."""
    return PROBLEMS if result.held else 0


def status_of_verify(report: VerifyReport, rung: Rung) -> int:
    """Return the exit status of a verification that was to reach `rung`."""
    short = any(one.rung.height < rung.height for one in report.snapshots)
    notable = any(one.severity is not Severity.INFO for one in report.all_findings)
    return worst((status_of(report.all_findings), PROBLEMS if short or notable else 0))
