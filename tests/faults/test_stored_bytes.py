"""Whatever lies in the place of what memkeep stored: every operation ends, as it should or with an error of memkeep's.

Forged objects have right names, right digests and right encryption: nothing but the parsers stands in their way.
"""

import fcntl
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.faults.conftest import Worlds
from tests.faults.forgery import KINDS, json, mangled
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.world import PASSWORD, World

from memkeep.errors import MemkeepError, VaultLeasedError
from memkeep.model import Rung
from memkeep.ops import in_place, ledger, parcel, run_state, tar
from memkeep.ops.age import Unlock
from memkeep.ops.pack import _finished, pack
from memkeep.ops.parcel_read import open_parcel
from memkeep.ops.unpack import restore_file, verify_file
from memkeep.vault import format as layout
from memkeep.vault import opening

FEW = settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=3000, derandomize=False)
NEAR = [one for one in OPERATIONS if not one.far and one.start == "filled" and one.faulty == "here"]
MEMORY = 1 << 30  # bytes that one operation may take beside what the tests have
Forger = Callable[..., None]


@pytest.fixture
def bounded() -> Iterator[None]:
    """Let who asks for a lot of memory get none."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def attempt(world: World, forge: Forger, data: st.DataObject) -> None:
    """Forge an object, do an operation, and see that no snapshot has gone that was not to go."""
    world.reset("filled")
    storage = world.storages["here"]
    forge(data.draw, opening.open_vault(storage, PASSWORD), storage)
    before = {key for key in storage.objects if key.startswith(layout.SNAPSHOTS)}
    operation: Operation = data.draw(st.sampled_from(NEAR).map(_Named)).operation
    world.heal()
    with suppress(MemkeepError):
        operation.do(world)
    for path in world.folder.glob("* *"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if operation.name not in {"run", "forget by rules", "forget by name"}:
        assert before <= storage.objects.keys()


class _Named:
    """An operation that a failure shows by its name."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation

    def __repr__(self) -> str:
        return self.operation.name


@pytest.mark.property
@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("forge", KINDS, ids=lambda one: one.__name__)
@FEW
@given(data=st.data())
def test_whatever_lies_in_a_vault_is_told(
    forge: Forger, both: Worlds, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    monkeypatch.setattr("memkeep.ops.open.storage_at", both[0].connect)
    attempt(both[0], forge, data)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("forge", KINDS, ids=lambda one: one.__name__)
@MANY
@given(data=st.data())
def test_much_of_whatever_may_lie_in_a_vault_is_told(
    forge: Forger, both: Worlds, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    monkeypatch.setattr("memkeep.ops.open.storage_at", both[0].connect)
    attempt(both[0], forge, data)


def _locked() -> None:
    """Ask for the lock that another process seems to hold."""
    with (run_state.folder() / "run.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(VaultLeasedError), run_state.only_one():
            pass


LOCAL: dict[str, tuple[bytes, Callable[[], object]]] = {
    "last run": (
        msgspec.json.encode(run_state.LastRun(started="2026-01-01T00:00:00+00:00", seconds=1.0, exit=0)),
        run_state.last_run,
    ),
    "the lock of runs": (b'{"pid":1,"since":"2026-01-01T00:00:00+00:00"}', _locked),
    "checks": (b'{"0123":{"rung":"intact","at":"2026-01-01T00:00:00+00:00","good":true}}', lambda: ledger.read("id")),
}
PLACES = {"last run": "last-run.json", "the lock of runs": "run.lock", "checks": "checks/id.json"}


@pytest.mark.property
@pytest.mark.parametrize("name", LOCAL)
@settings(FEW, max_examples=60)
@given(data=st.data())
def test_whatever_lies_in_the_state_folder_is_no_news(name: str, home: Path, data: st.DataObject) -> None:
    content, read = LOCAL[name]
    path = run_state.folder() / PLACES[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json(data.draw, content))
    read()


@pytest.mark.property
@settings(FEW, max_examples=60)
@given(data=st.data())
def test_whatever_stands_in_a_journal_moves_nothing_that_is_not_the_store_s(home: Path, data: st.DataObject) -> None:
    store, mine = home / "store", home / "mine"
    parked = store / ".memkeep-parked-x"
    parked.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    (parked / "one").write_text("one")
    moves = [{"source": str(store / "one"), "target": str(parked / "one")}]
    moves += [{"source": str(store / "taken"), "target": str(mine)}, {"source": str(mine) + "2", "target": str(mine)}]
    chosen = data.draw(st.lists(st.sampled_from(moves), min_size=1, max_size=2))
    journal = msgspec.json.encode({"snapshot": "0" * 64, "staging": [], "parked": [str(parked)], "moves": chosen})
    (store / in_place.JOURNAL).write_bytes(json(data.draw, journal))
    with suppress(MemkeepError, OSError):  # who calls it tells of the latter
        in_place.recover(store)
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in home.iterdir()) == ["mine", "store"]
    shutil.rmtree(store)


@pytest.fixture(scope="module")
def packed() -> dict[str, bytes]:
    """Return where a packed file is kept, so that it is made once."""
    return {}


@pytest.mark.property
@pytest.mark.usefixtures("bounded")
@settings(FEW, max_examples=60)
@given(data=st.data())
def test_whatever_is_in_a_packed_file_is_told(
    both: Worlds, packed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    world = both[0]
    file = world.folder / "packed.tar.zst"
    if not packed:
        monkeypatch.setattr("memkeep.ops.open.storage_at", world.connect)
        world.reset("filled")
        pack(world.open(), "latest", file)
        packed["file"] = file.read_bytes()
        packed["archive"] = zstandard.ZstdDecompressor().stream_reader(packed["file"]).read()
        with open_parcel(file, Unlock()) as source:
            packed["manifest"] = parcel.encode(source.manifest)
    file.write_bytes(_repacked(data.draw, packed))
    for read in (lambda: verify_file(file, rung=Rung.RESTORABLE), lambda: restore_file(file, to=world.folder / "back")):
        with suppress(MemkeepError):
            read()
    shutil.rmtree(world.folder / "back", ignore_errors=True)


def _repacked(draw: Callable[..., Any], packed: dict[str, bytes]) -> bytes:
    """Return something else: of the file, of its archive (the digest right), or of its manifest (the archive fits)."""
    how = draw(st.sampled_from(("file", "archive", "manifest")))
    if how == "file":
        return bytes(draw(mangled(packed["file"])))
    if how == "archive":
        return b"".join(_finished([draw(mangled(packed["archive"]))]))
    made = json(draw, packed["manifest"])
    old = len(packed["manifest"])
    head, rest = packed["archive"][: 2 * tar.BLOCK], packed["archive"][2 * tar.BLOCK + old + -old % tar.BLOCK :]
    with suppress(MemkeepError):
        head = parcel.head(parcel.decode(made), len(made))
    return b"".join(_finished([head, made, bytes(-len(made) % tar.BLOCK), rest]))
