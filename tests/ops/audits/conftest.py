"""Records in memory, and what an audit says of them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from memkeep.ops.audit import Audited, chosen, look
from memkeep.ops.audits.base import Noticed
from memkeep.records.formats.base import About
from memkeep.records.record import Portable, Record, Relationship

NOW = "2026-11-21T12:00:00+00:00"


class Given:
    """A source of records that are given."""

    def __init__(self, made: Sequence[Portable], path: str = "/nowhere", snapshot: str | None = "0" * 64) -> None:
        self._made = made
        self.about = About(system="test", path=path, taken=NOW, snapshot=snapshot, records=len(made))

    def records(self) -> Iterator[Record]:
        return (one for one in self._made if isinstance(one, Record))

    def relationships(self) -> Iterator[Relationship]:
        return (one for one in self._made if isinstance(one, Relationship))


@pytest.fixture
def audited(private_tmp: Path) -> Callable[..., Audited]:
    """Return `audited(records, *categories)`."""

    def run(made: Sequence[Portable], *categories: str, path: str = "/nowhere", live: bool = False) -> Audited:
        return look(Given(made, path, None if live else "0" * 64), chosen(categories))

    return run


@pytest.fixture
def told(audited: Callable[..., Audited]) -> Callable[..., dict[str, list[Noticed]]]:
    """Return `told(records, *categories)`: what was noticed, by kind."""

    def run(made: Sequence[Portable], *categories: str, **more: object) -> dict[str, list[Noticed]]:
        return {kind.name: list(found) for kind, found in audited(made, *categories, **more).noticed if found}

    return run
