"""`memkeep forget`."""

from typing import TYPE_CHECKING, Any

import click

from memkeep.amounts import count
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span, Text, moment
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.config import Config, Retention
    from memkeep.ops.forget import ForgetResult

POLICY_NAMES = ("thanos", "openmemory", "rolling-7")
NUMBER = click.IntRange(min=0)


@verb(example="memkeep forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run")
@click.argument("snapshots", required=False, nargs=-1, type=SNAPSHOT, help="Forget these, whatever any rule says.")
@click.option("--keep-last", type=NUMBER, metavar="N", help="Keep the newest N of each store.")
@click.option("--keep-hourly", type=NUMBER, metavar="N", help="Keep the newest of each of N hours,")
@click.option("--keep-daily", type=NUMBER, metavar="N", help="of N days,")
@click.option("--keep-weekly", type=NUMBER, metavar="N", help="of N weeks (Monday to Sunday),")
@click.option("--keep-monthly", type=NUMBER, metavar="N", help="of N months,")
@click.option("--keep-yearly", type=NUMBER, metavar="N", help="of N years.")
@click.option("--keep-within", metavar="SPAN", help="Keep all of the last 30d, or 2y5m7d3h, before the newest one.")
@click.option("--keep-tag", metavar="T", multiple=True, help="Keep all with this tag; may be given again.")
@click.option("--policy", type=click.Choice(POLICY_NAMES), help="The rules of this name; other flags win over its own.")
@click.option("--confirm", metavar="SYSTEM", help="Let the last good snapshot of this system go too.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def command(face: Face, *, snapshots: tuple[str, ...], confirm: str | None, dry_run: bool, **rules: Any) -> Reply:
    """Forget snapshots that no rule keeps, or those that are named.

    Each store is judged by itself, by the local time zone. Only hours, days, weeks ... that have a snapshot count. A
    store's last good snapshot (proven to `readable` or higher) is kept in any case. Without flags the rules are those
    of [retention] in the settings.

    thanos: 7 daily, 4 weekly on Sundays. openmemory: 7 daily, 4 weekly, 12 monthly. rolling-7: all of the last 7 days.

    The space is given back by `memkeep prune`.
    """
    from memkeep.cli.wiring import open_vault, settings

    config = settings(face)
    retention = None
    if not snapshots:
        retention = _rules(rules, config)
    elif any(value not in (None, ()) for value in rules.values()):
        raise click.UsageError("SNAPSHOT and rules were both given: named snapshots are forgotten whatever rules say")
    vault = open_vault(face, config, ahead="memkeep.ops.forget")
    from memkeep.ops.forget import forget

    result = forget(vault, snapshots, retention=retention, confirm=confirm, dry_run=dry_run)
    return Reply(result, lambda out: _render(out, result, named=bool(snapshots)))


def _rules(given: dict[str, Any], config: "Config") -> "Retention":
    """Return the rules of the flags, or else of the settings; `UsageError` when neither has any."""
    from memkeep.config import Retention
    from memkeep.errors import UsageError
    from memkeep.ops.retention import EXAMPLE, settled

    for rules in (Retention(**given), config.retention):
        if rules != Retention():
            settled(rules)  # so that rules that make no sense are told of before a password is asked for
            return rules
    raise UsageError(
        "nothing says which snapshots to keep: give rules or snapshots, or set [retention] in the settings",
        hint=EXAMPLE,
        code="retention",
    )


def _render(out: Printer, result: "ForgetResult", *, named: bool) -> None:
    from memkeep.cli.views import short

    rows: list[tuple[str, list[Text]]] = []
    for gone in result.forgotten:
        why = Span("forgotten" if not result.dry_run else "would go", "warn")
        taken = _taken(gone.created) if gone.created else "damaged"
        rows.append((gone.created or "", [short(gone.snapshot), taken, gone.system or "?", why, gone.path or ""]))
    for kept in result.kept if not named else ():
        why = Span("kept: " + ", ".join(kept.reasons), "good")
        rows.append((kept.created, [short(kept.snapshot), _taken(kept.created), kept.system, why, kept.path]))
    if rows:
        rows.sort(key=lambda row: row[0])
        out.table(("snapshot", "taken", "system", "verdict", "store"), [row for _, row in rows])
    many = count(len(result.forgotten), "snapshot")
    if result.dry_run:
        out.advice(f"Would forget {many} and keep {len(result.kept)}.")
        out.advice("Nothing was written: this was a dry run.")
        return
    out.advice(f"Forgot {many}, kept {len(result.kept)}.")
    days = [one.locked_until for one in result.forgotten if one.locked_until]
    if days:
        out.line(f"Object Lock holds {len(days)} of them until {moment(max(days))}: hidden, and still there.")
    if result.forgotten:
        out.next("memkeep prune")


def _taken(created: str) -> str:
    try:
        return moment(created)
    except ValueError:
        return created
