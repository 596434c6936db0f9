"""Whoever may only read a vault can do everything that only reads it."""

import pytest
from tests.faults.conftest import Worlds
from tests.faults.operations import OPERATIONS, Operation

from memkeep.errors import StorageError
from memkeep.testing.faults import Fault

READING = [one for one in OPERATIONS if one.reads]
REFUSED = (
    Fault(call="put_new", number=1, kind="denied", lasting=True),
    Fault(call="delete", number=1, kind="denied", lasting=True),
)


@pytest.mark.parametrize("far", [False, True], ids=["near", "far"])
@pytest.mark.parametrize("operation", READING, ids=[one.name for one in READING])
def test_what_only_reads_works_where_nothing_may_be_written_and_does_not_try_to(
    operation: Operation,
    far: bool,  # noqa: FBT001 - a parameter
    both: Worlds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = both[far]
    monkeypatch.setattr("memkeep.ops.open.storage_at", world.connect)
    world.reset(operation.start)
    world.fail("here", *REFUSED)
    operation.do(world)
    assert {call for call, _ in world.calls} <= {"get", "get_range", "stat", "list"}


def test_what_writes_says_so_there(both: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    world = both[0]
    monkeypatch.setattr("memkeep.ops.open.storage_at", world.connect)
    for operation in OPERATIONS:
        if operation.reads or operation.faulty != "here" or operation.name in {"run", "copy from"}:
            continue
        world.reset(operation.start)
        world.fail("here", *REFUSED)
        with pytest.raises(StorageError):
            operation.do(world)
