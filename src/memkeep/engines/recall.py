"""Whether a server's own search answers as it did before: through its index, as whoever asks it for memories does.

The questions are those of the baseline's probes: the vectors of some rows as the image has them. An index that was
built anew may find other neighbours, and that is said; but no index loses a row that is asked for by its own vector,
nor gets much worse at finding those that comparing with every row finds.
"""

from typing import Any

from memkeep.model import Baseline, Finding, Severity

FACT = "recall"
_WORSE = 2  # times fewer of the true neighbours: no index that is built anew is that much worse

Answers = dict[tuple[str, str, str], list[str]]
"""By table, column and question: the ids that a server gave, the nearest first."""


def fact(answers: Answers) -> dict[str, Any]:
    """Return what a baseline's facts say of the answers; nothing when there are none."""
    return {FACT: [[*key, ids] for key, ids in answers.items()]} if answers else {}


def wanted(baseline: Baseline) -> Answers:
    """Return the answers that a baseline has."""
    return {(table, column, question): ids for table, column, question, ids in baseline.facts.get(FACT, ())}


def compare(part: str, baseline: Baseline, after: Answers) -> list[Finding]:
    """Compare the answers to a baseline's questions with those that it has, column by column."""
    before = wanted(baseline)
    true = {(probe.table, probe.column, probe.question): set(probe.ids) for probe in baseline.probes}
    found = []
    for table, column in dict.fromkeys((table, column) for table, column, _ in before):
        keys = [key for key in before if key[:2] == (table, column)]
        now = {key: after.get(key, []) for key in keys}
        same = sum(len({*before[key]} & {*now[key]}) for key in keys)
        count = sum(len(before[key]) for key in keys)
        if same == count:
            continue
        lost = [key[2] for key in keys if key[2] in before[key] and key[2] not in now[key]]
        hits = [sum(len(true.get(key, set()) & {*answers[key]}) for key in keys) for answers in (before, now)]
        bad = bool(lost) or hits[1] * _WORSE < hits[0]
        message = f"{part}: the server's own search of {table}.{column} gives {same} of {count} neighbours as before"
        if lost:
            message += f", and does not find {', '.join(lost)} by {'their' if len(lost) > 1 else 'its'} own vector"
        found.append(
            Finding(
                code="recall_differs",
                severity=Severity.ERROR if bad else Severity.WARNING,
                part=part,
                record=lost[0] if lost else None,
                message=message,
                mend="have the server build its index anew",
            )
        )
    return found
