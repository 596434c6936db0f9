import pickle
import pickletools
import struct
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.engines import pickles
from memkeep.engines.pickles import PickleError, Record

POINT = "qdrant_client.http.models.models.PointStruct"
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6),
    max_leaves=60,
)


@given(PLAIN, st.sampled_from([2, 3, 4, 5]))
def test_plain_data_is_what_pythons_own_reader_makes_of_it(value: Any, protocol: int) -> None:
    assert pickles.plain(pickles.loads(pickle.dumps(value, protocol=protocol))) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_long_lists_of_numbers_and_tuples_among_them_are_read_right(protocol: int) -> None:
    value = [[float(n) for n in range(9000)], [1.0, 2.0, (3.0, 4.0, 5.0)], [(1.0, 2.0)] * 5, {"a": 1.5}, "text"]
    read = pickles.plain(pickles.loads(pickle.dumps(value, protocol=protocol)))
    assert read == [value[0], [1.0, 2.0, [3.0, 4.0, 5.0]], [[1.0, 2.0]] * 5, {"a": 1.5}, "text"]


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_times_are_read_as_their_text(protocol: int) -> None:
    """Points that older clients of Qdrant wrote hold what the program gave them."""
    east = timezone(timedelta(hours=5, minutes=30))
    value = {"a": datetime(2026, 1, 2, 3, 4, 5, 6), "b": datetime(2026, 1, 2, tzinfo=UTC), "c": date(2026, 1, 2)}  # noqa: DTZ001
    value["d"] = datetime(1926, 1, 2, tzinfo=east)
    read = pickles.plain(pickles.loads(pickle.dumps(value, protocol=protocol)))
    assert read == {key: one.isoformat() for key, one in value.items()}


class Trap:
    """Leaves a file behind when anything of it is run."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def _global(name: bytes) -> bytes:
    module, _, last = name.rpartition(b".")
    return b"\x8c%c%b\x8c%c%b\x93" % (len(module), module, len(last), last)


def _malicious(mark: Path) -> dict[str, bytes]:
    path = str(mark).encode()
    argument = b"\x8c%c%b" % (len(path), path)
    point = _global(POINT.encode())
    command = b"touch " + path
    run = b"\x8c%c%b\x85R" % (len(command), command)
    return {
        "reduce": pickle.dumps(Trap(mark)),
        "reduce, old": pickle.dumps(Trap(mark), protocol=2),
        "in the payload": pickle.dumps({"payload": Trap(mark)}),
        "global": b"\x80\x02cos\nsystem\n" + b"U%c%b\x85R." % (len(command), command),
        "stack global": b"\x80\x04" + _global(b"os.system") + run + b".",
        "dotted name of the module": b"\x80\x04" + _global(b"qdrant_client.http.models.models.os.system") + run + b".",
        "dotted name of the class": b"\x80\x04\x8c\x20qdrant_client.http.models.models\x8c\x16PointStruct.__reduce__"
        b"\x93.",
        "no text for a name": b"\x80\x04K\x01K\x02\x93.",
        "protocol 0": b"cos\nsystem\n(S'" + command + b"'\ntR.",
        "inst": b"\x80\x02(S'" + command + b"'\nios\nsystem\n.",
        "obj": b"\x80\x02(cos\nsystem\n" + b"U%c%bo." % (len(command), command),
        "known class called": b"\x80\x04" + point + argument + b"\x85R.",
        "known class made with arguments": b"\x80\x04" + point + argument + b"\x85\x81.",
        "made with keywords": b"\x80\x04" + point + b")}" + b"\x92.",
        "build of a class": b"\x80\x04" + point + b"}\x8c\x0c__setstate__" + argument + b"sb.",
        "build of a dict": b"\x80\x04}}\x8c\x01a" + argument + b"sb.",
        "state of a pair": b"\x80\x04" + point + b")\x81N}\x86b.",
        "persistent id": b"\x80\x02X\x01\0\0\0aQ.",
        "persistent id, old": b"\x80\x02Pabc\n.",
        "extension registry": b"\x80\x02\x82\x01.",
        "extension registry, wide": b"\x80\x02\x84\x01\0\0\0.",
        "buffer": b"\x80\x05\x97.",
        "bytearray of all memory": b"\x80\x05\x96" + struct.pack("<Q", 1 << 46) + b".",
        "text of all memory": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 46) + b".",
        "bytes of all memory": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 46) + b".",
        "integer of all memory": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b".",
        "appends to what is no list": b"\x80\x04" + point + b")\x81(K\x01e.",
        "items of what is no dict": b"\x80\x04](K\x01K\x02u.",
        "a key that can't be one": b"\x80\x04}]K\x01s.",
        "nothing": b"",
        "only a beginning": b"\x80\x04",
        "no mark": b"\x80\x04]K\x01e.",
        "left over": b"\x80\x04K\x01K\x02.",
        "behind the end": b"\x80\x04K\x01.K\x02.",
        "unknown place in memory": b"\x80\x04h\x05.",
        "a time of day": pickle.dumps(datetime(2026, 1, 1, tzinfo=UTC).time()),
        "a time that is none": pickle.dumps(datetime(2026, 1, 1)).replace(b"\x07\xea\x01", b"\x07\xea\x0e"),  # noqa: DTZ001
        "laughs": _laughs(),
        "laughs of numbers": _numbers(),
        "laughs of keys": _keys(),
        "in itself": b"\x80\x04]\x94h\x00a.",
        "deep": b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b".",
    }


def _laughs() -> bytes:
    data = b"\x80\x04]\x94"
    for level in range(40):
        data += b"](" + b"h%c" % level * 10 + b"e\x94"
    return data + b"."


def _numbers() -> bytes:
    return b"\x80\x04(" + b"G" + bytes(8) + (b"G" + bytes(8)) * 4000 + b"\x94" + b"h\x00" * 60000 + b"t."


def _keys() -> bytes:
    text = b"X" + struct.pack("<I", 100000) + b"x" * 100000 + b"\x94"
    return b"\x80\x04](}" + text + b"Ns" + b"}h\x00Ns" * 50000 + b"e."


@pytest.mark.parametrize("kind", list(_malicious(Path("/"))))
def test_what_asks_for_more_than_data_is_refused_at_once_and_runs_nothing(kind: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    data = _malicious(mark)[kind]
    began = time.process_time()
    with pytest.raises(PickleError):
        pickles.loads(data, [POINT])
    assert not mark.exists()
    assert time.process_time() - began < 5


def test_a_place_in_memory_may_have_any_number(measured: Callable[[Callable[[], Any]], int]) -> None:
    far = b"\x80\x04](K\x07r\xff\xff\xff\xffj\xff\xff\xff\xffe."
    assert measured(lambda: pickles.loads(far)) < 1 << 20
    assert pickles.loads(far) == [7, 7]


@pytest.fixture
def measured() -> Callable[[Callable[[], Any]], int]:
    """Return what tells the most memory, in bytes, that something takes."""
    import tracemalloc

    def measure(work: Callable[[], Any]) -> int:
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_refusal(data: bytes) -> None:
    for one in (data, b"\x80\x04" + data, b"\x80\x04" + data + b"."):
        try:
            pickles.loads(one, [POINT])
        except PickleError:
            continue


def test_a_known_class_becomes_a_record_that_is_only_data() -> None:
    state = b"}\x8c\x08__dict__}\x8c\x02idK\x05ss"
    data = b"\x80\x04" + _global(POINT.encode()) + b")\x81" + state + b"b."
    assert len(list(pickletools.genops(data))) > 10  # it is well formed
    assert pickles.loads(data, [POINT]) == Record(POINT, {"__dict__": {"id": 5}})
    with pytest.raises(PickleError, match="names 'qdrant_client"):
        pickles.loads(data)
