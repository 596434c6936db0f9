"""Hold all parts of a store at one moment.

Parts are frozen one after another; then those frozen before the last are asked whether they have moved since. If none
has, all of them are as they were at the instant of the last freeze: one moment. Those that moved are frozen again, up
to `ATTEMPTS` times; what still moves then is kept and said.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from memkeep.engines.catalog import engine
from memkeep.errors import StoreError, UnsupportedError
from memkeep.model import Finding, Omission, Part, Role, Severity, Store

if TYPE_CHECKING:
    from memkeep.engines.base import Opened

ATTEMPTS = 10
_SLOW = [
    "postgres",
    "qdrant",
    "chroma",
    "qdrant-local",
    "sqlite",
    "files",
    "lance",
]  # engines by how long a freeze takes, longest first
UNREAD = "part_unread"
DRIFT = "parts_drifted"


class Held:
    """One part, frozen; `opened` is the moment."""

    def __init__(self, part: Part, root: Path, scratch: Path) -> None:
        self.part = part
        self.root = root
        self._scratch = scratch
        self._tries = 0
        self._stack = ExitStack()
        self.opened: Opened
        self.again()

    def again(self) -> None:
        """Freeze (again)."""
        self._stack.close()
        self._tries += 1
        folder = self._scratch / str(self._tries)
        folder.mkdir(parents=True)
        self.opened = self._stack.enter_context(engine(self.part.engine).freeze(self.part, self.root, folder))

    def turn_to(self, folder: Path) -> None:
        """Let the moment be what was written of it into a private folder."""
        how = self.opened.how
        self._stack.close()
        self.opened = self._stack.enter_context(engine(self.part.engine).open(self.part, folder))
        self.opened.how = how

    def close(self) -> None:
        """Let the moment go."""
        self._stack.close()


class Moment(msgspec.Struct, kw_only=True):
    """All parts of a store that could be held, and what was left out."""

    held: list[Held]
    consistent: bool = True
    omitted: list[Omission] = []
    findings: list[Finding] = []
    errors: list[StoreError] = []  # why parts were left out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.held:
            one.close()

    def leave(self, part: Part, error: StoreError) -> None:
        """Say that a part could not be read."""
        self.errors.append(error)
        self.omitted.append(Omission(part=part.name, reason=error.message))
        self.findings.append(unread(part, error))


def unread(part: Part, error: StoreError) -> Finding:
    """Return what to say of a part that could not be read."""
    return Finding(code=UNREAD, severity=Severity.ERROR, part=part.name, message=error.message, mend=error.hint)


def freeze(store: Store, parts: Sequence[Part], scratch: Path) -> Moment:
    """Freeze the parts of a store; a part that can't be read is left out and said, unless no canonical one can."""
    moment = Moment(held=[])
    try:
        for number, part in enumerate(_slow_first(parts)):
            try:
                moment.held.append(Held(part, Path(store.root), scratch / str(number)))
            except UnsupportedError:
                raise
            except StoreError as error:
                moment.leave(part, error)
        drifted = _settle(moment)
        _refuse_without_memory(parts, moment)
    except BaseException:
        moment.__exit__()
        raise
    if drifted:
        moment.consistent = False
        moment.findings.append(
            Finding(
                code=DRIFT,
                severity=Severity.WARNING,
                part=drifted[0],
                message=f"kept changing while the other parts were frozen: {', '.join(drifted)}",
                mend="back up again at a quieter time",
            )
        )
    return moment


def _settle(moment: Moment) -> list[str]:
    """Freeze again what moved; return the names of the parts that never held still together."""
    moved: list[Held] = []
    last = moment.held[-1] if moment.held else None
    for attempt in range(ATTEMPTS):
        moved = [one for one in moment.held if one is not last and one.opened.moved()]  # in the order of freezing
        if not moved or attempt == ATTEMPTS - 1:
            break
        for one in moved:
            try:
                one.again()
            except StoreError as error:
                one.close()
                moment.held.remove(one)
                moment.leave(one.part, error)
        last = moved[-1]
    return [one.part.name for one in moved]


def _refuse_without_memory(parts: Sequence[Part], moment: Moment) -> None:
    """Raise what went wrong when no part was held that matters: no canonical one, if there are such."""
    wanted = {part.name for part in parts if part.role is Role.CANONICAL} or {part.name for part in parts}
    if moment.errors and wanted.isdisjoint(held.part.name for held in moment.held):
        raise moment.errors[0]


def _slow_first(parts: Sequence[Part]) -> list[Part]:
    """Put first what takes long to freeze: between the first instant and the last as little time as may be."""
    return sorted(parts, key=lambda part: (_SLOW.index(part.engine), part.name))
