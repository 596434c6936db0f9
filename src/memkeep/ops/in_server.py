"""Put the parts of a snapshot that lie in servers back into servers.

What is replaced there is kept as a snapshot of the vault first: that is the parking, and undoing it is a restore.
"""

import shlex
from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path

from memkeep.config import Config
from memkeep.engines.catalog import server_engine
from memkeep.errors import MemkeepError, RefusedError, StoreError, UsageError, quoted
from memkeep.events import Events
from memkeep.model import BEFORE_RESTORE, Finding, Omission, Part, PartImage, Role, Severity, Store, is_url
from memkeep.ops.backup import backup
from memkeep.ops.materialise import materialise
from memkeep.ops.scratch import scratch
from memkeep.systems import detect_urls, servers
from memkeep.vault.vault import Vault

Aimed = tuple[PartImage, str]
"""A part, and the URL that it goes to."""

LAY_IN_A_SERVER = "lay_in_a_server"


def aimed(images: Sequence[PartImage], url: str, snapshot: str) -> list[Aimed]:
    """Return the parts that a server of this kind keeps, and where in it each goes; `UsageError` when there is none."""
    engine = server_engine(url)
    fitting = [(image, engine.aim(image.part, url)) for image in images if image.part.engine == engine.name]
    if not fitting:
        raise UsageError(
            f"snapshot {snapshot} has nothing that lies in {engine.name}", hint=f"memkeep restore {snapshot} --to DIR"
        )
    if any(_meet(one, other) for one, other in combinations(fitting, 2)):
        names = ", ".join(image.part.name for image, _ in fitting)
        raise UsageError(
            f"{url} is the place of one part, and snapshot {snapshot} has {len(fitting)}: {names}",
            hint=f"memkeep restore {snapshot} --part NAME --to {quoted(url)}",
        )
    return fitting


def _meet(one: Aimed, other: Aimed) -> bool:
    """Say whether two parts would be put into one another: tables of two parts may lie in one database."""
    (image, target), (second, elsewhere) = one, other
    apart = image.part.include and second.part.include and set(image.part.include).isdisjoint(second.part.include)
    return target == elsewhere and not apart


def address(url: str, config: Config | None) -> str:
    """Return a URL without its secrets; those that it lacks are what the settings say for a store of its server."""
    bare = servers.told(url)[1]
    detect_urls.remember_login(bare, config or Config())
    return bare


def at_home(images: Sequence[PartImage], live: Store | None) -> list[Aimed]:
    """Return where the live store keeps each part, or where it was."""
    known = {part.name: part.path for part in live.parts} if live is not None else {}
    return [(image, known.get(image.part.name, image.part.path)) for image in images]


def refuse_taken(parts: Sequence[Aimed]) -> None:
    """Raise `RefusedError` when something lies where a part would go."""
    for image, target in parts:
        if server_engine(target).exists(image.part, target):
            raise RefusedError(
                f"there is something at {target} already",
                hint=f"memkeep discover {shlex.quote(target)}   # choose another place; or restore --in-place",
                code="target_exists",
            )


def refuse_unkept(parts: Sequence[Aimed], live: Store | None) -> None:
    """Raise `RefusedError` when something lies where a part would go that is not of the store as it is now known."""
    known = {part.name for part in live.parts} if live is not None else set()
    for image, target in parts:
        if image.part.name not in known and server_engine(target).exists(image.part, target):
            raise RefusedError(
                f"there is something at {target} that could not be kept before it is replaced: "
                "neither the settings nor the store as it is now name it",
                hint="memkeep discover " + shlex.quote(target),
                code="not_parked",
            )


def park(vault: Vault, live: Store | None, events: Events, *, served: Collection[str] | None = None) -> str | None:
    """Take a snapshot of a store that will be changed; return its id, None when there is no store.

    Raises `RefusedError` when not all of its memory could be read, or, with `served`, of these parts, the others being
    kept in another way: then nothing may be changed. Where nothing is in a server there is nothing to keep.
    """
    if live is None:
        return None
    report = backup(vault, [live], tag=BEFORE_RESTORE, events=events).snapshots[0]
    memory = {part.name for part in live.parts if part.role is Role.CANONICAL and _matters(part, served)}
    if lost := [one for one in report.omitted if one.part in memory]:
        raise RefusedError(
            f"what is in {lost[0].part} could not be kept before it is changed: {lost[0].reason}",
            hint="memkeep backup"
            if vault.config.encrypted
            else "memkeep init --vault OTHER   # encrypted, it keeps all",
            code="not_parked",
        )
    return report.id


def _matters(part: Part, served: Collection[str] | None) -> bool:
    if served is None:
        return True
    return part.name in served and server_engine(part.path).exists(part, part.path)


def put_back(vault: Vault, before: str | None, parts: Sequence[Aimed], events: Events) -> None:
    """Put what was parked of parts that were replaced back into their servers, because what followed has failed."""
    kept = {part.name: part for part in vault.resolve(before).parts} if before is not None else {}
    for image, target in parts:
        if image.part.name not in kept:
            continue
        try:
            rebuild(vault, [(vault.image(kept[image.part.name]), target)], replace=True, events=events)
        except MemkeepError as error:
            raise StoreError(
                f"what was in {target} could not be put back after a failure: {error.message}",
                unchanged=f"It is kept in snapshot {str(before)[:12]}.",
                hint=f"memkeep restore {str(before)[:12]} --part {shlex.quote(image.part.name)} --to {quoted(target)}",
            ) from error


def undo(vault: Vault, before: str, parts: Sequence[Aimed], system: str) -> str | None:
    """Return the command that puts back what was parked; None when nothing was there before."""
    kept = {part.name for part in vault.resolve(before).parts}
    chosen = " ".join(f"--part {shlex.quote(image.part.name)}" for image, _ in parts if image.part.name in kept)
    return f"memkeep restore {before[:12]} {chosen} --in-place --confirm={system}" if chosen else None


def as_files(images: Sequence[PartImage], root: Path) -> list[Finding]:
    """Say of each part that lay in a server and lies in a folder now how a server gets it."""
    return [
        Finding(
            code=LAY_IN_A_SERVER,
            severity=Severity.INFO,
            part=image.part.name,
            message="it lay in a server: these are its files, which no product reads before a server has taken them",
            mend=server_engine(image.part.path).by_hand(image.part, root),
        )
        for image in images
        if is_url(image.part.path)
    ]


def rebuild(vault: Vault, parts: Sequence[Aimed], *, replace: bool, events: Events) -> list[Finding]:
    """Put each part into its server, one after another; return what was noticed."""
    findings: list[Finding] = []
    for image, target in parts:
        with scratch() as folder:
            events.step(f"restoring {image.part.name}", sum(one.entry.size for one in image.entries))
            materialise(vault, [image], folder, events, durable=False)
            findings += load([(image, target)], folder, replace=replace, events=events)
    return findings


def load(parts: Sequence[Aimed], root: Path, *, replace: bool, events: Events) -> list[Finding]:
    """Put images that lie under `root` into their servers, one after another; return what was noticed."""
    findings: list[Finding] = []
    for image, target in parts:
        findings += server_engine(target).rebuild(image.part, root, target, replace=replace, events=events).findings
        events.step("asking")
        findings += _recall(image, root, target)
    return findings


def left(images: Sequence[PartImage], parts: Sequence[Aimed]) -> list[Omission]:
    """Say which parts do not go into a server of the kind that the others go to."""
    going = {image.part.name for image, _ in parts}
    return [
        Omission(
            part=image.part.name, reason=f"it does not lie in such a server: give --part {image.part.name} --to DIR"
        )
        for image in images
        if image.part.name not in going
    ]


def _recall(image: PartImage, root: Path, target: str) -> list[Finding]:
    """Try the server's own search; that it does not answer is no failure of the restore."""
    try:
        return server_engine(target).recall(image.part, root, target, image.baseline)
    except StoreError as error:
        return [
            Finding(
                code="recall_differs",
                severity=Severity.WARNING,
                part=image.part.name,
                message=f"{image.part.name}: the server's own search could not be tried: {error.message}",
                mend=error.hint,
            )
        ]
