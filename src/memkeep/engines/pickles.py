"""Read pickles of plain data without running anything: a reader of its own for the few opcodes that data needs.

Python's unpickler calls what a pickle tells it to call, and lets it claim any amount of memory. This one knows only
how to build text, numbers, lists, tuples, sets, dicts, times (as their ISO text) and records of the classes that the
caller names; a record is a name and a state, never an instance. Whatever else a pickle asks for is a `PickleError`, and
so are nesting that is deeper, and values that are larger, than a pickle of its length can honestly hold (one that
repeats its own pieces).
Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py, protocols 2 to 5.
"""

import struct
from collections.abc import Callable, Collection
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

_DEPTH = 200
_ROOM = 64  # values that a pickle may have beyond one for each of its bytes
_RUN = 4096  # floats that are read at once
_SHORTEST = 4  # floats in a row that are worth it
_LARGEST = 16  # bytes of an integer
_FLOAT = 9  # bytes: an opcode and a double, big-endian
_PROTOCOLS = range(2, 6)
_STOP, _BINFLOAT = 0x2E, 0x47


class PickleError(ValueError):
    """A pickle that is damaged, or asks for more than plain data."""


class Record(NamedTuple):
    """An instance of one of the known classes: its name, and its attributes."""

    name: str
    state: dict[str, Any]


class Floats(NamedTuple):
    """Some numbers of a list, one after another, as float64."""

    values: Any  # numpy array


class _Class(NamedTuple):
    name: str


class _Instance:
    """A record that has no state yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: dict[Any, Any] = {}


def loads(data: bytes, classes: Collection[str] = ()) -> Any:
    """Return the value that a pickle holds; `classes` are the full names of those that may occur in it.

    Lists that hold a vector have `Floats` among their elements. Raises `PickleError`.
    """
    try:
        value = _Reader(data, frozenset(classes)).read()
        return _Finish(len(data) + _ROOM).value(value, 0)
    except (IndexError, struct.error, TypeError, AttributeError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise PickleError("it is no whole pickle") from error


def plain(value: Any) -> Any:
    """Return a value as others know it: the numbers of a list one by one, a record as a dict of its attributes."""
    if isinstance(value, Record):
        return {key: plain(one) for key, one in value.state.items()}
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if not isinstance(value, list):
        return value
    out: list[Any] = []
    for one in value:
        out += one.values.tolist() if isinstance(one, Floats) else [plain(one)]
    return out


class _Reader:
    """One pass over the opcodes; memory stays in proportion to the length of the data."""

    def __init__(self, data: bytes, classes: frozenset[str]) -> None:
        self.data = data
        self.at = 0
        self.classes = classes
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.marks: list[int] = []  # how high the stack was at each

    def read(self) -> Any:
        if self.take(1) != b"\x80" or self.number(1) not in _PROTOCOLS:
            raise PickleError("it does not begin as a pickle does")
        stack, data = self.stack, self.data
        while True:
            code = data[self.at]
            if code == _STOP:
                break
            self.at += 1
            if code == _BINFLOAT:
                self.floats()
            elif code in _PUSHED:
                stack.append(_PUSHED[code])
            elif code in _DO:
                _DO[code](self)
            else:
                raise PickleError(f"it asks for more than data (opcode {code:#04x})")
        if self.at + 1 != len(data) or len(stack) != 1 or self.marks:
            raise PickleError("it does not end where it should")
        return stack.pop()

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if len(piece) != size:
            raise PickleError("it ends too early")
        self.at += size
        return piece

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def pop_to_mark(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def floats(self) -> None:
        import numpy as np

        start = self.at - 1
        codes = self.data[start : start + _RUN * _FLOAT : _FLOAT]
        count = min(len(codes) - len(codes.lstrip(b"G")), (len(self.data) - start) // _FLOAT)
        if count < _SHORTEST:
            self.stack.append(struct.unpack(">d", self.take(8))[0])
            return
        rows = np.frombuffer(self.data, np.uint8, count * _FLOAT, start).reshape(count, _FLOAT)
        self.stack.append(Floats(np.ascontiguousarray(rows[:, 1:]).view(">f8").ravel()))
        self.at = start + count * _FLOAT

    def text(self, width: int) -> None:
        self.stack.append(self.take(self.number(width)).decode("utf-8", "surrogatepass"))

    def blob(self, width: int) -> None:
        self.stack.append(self.take(self.number(width)))

    def integer(self, width: int, *, signed: bool = False) -> None:
        self.stack.append(int.from_bytes(self.take(width), "little", signed=signed))

    def long(self) -> None:
        width = self.number(1)
        if width > _LARGEST:
            raise PickleError("it holds a number of more digits than data has")
        self.integer(width, signed=True)

    def put(self, width: int) -> None:
        if isinstance(self.stack[-1], Floats):
            raise PickleError("it keeps a number to repeat it")
        self.memo[self.number(width) if width else len(self.memo)] = self.stack[-1]

    def get(self, width: int) -> None:
        self.stack.append(self.memo[self.number(width)])

    def few(self, count: int) -> None:
        if isinstance(self.stack[-1], Floats):  # the last of a list's numbers, and then those of a tuple in it
            self.stack += _spread([self.stack.pop()])
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def marked_tuple(self) -> None:
        self.stack.append(_spread(self.pop_to_mark()))

    def append(self) -> None:
        item = self.stack.pop()
        _must(self.stack[-1], list).append(item)

    def appends(self) -> None:
        items = self.pop_to_mark()
        _must(self.stack[-1], list).extend(items)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _must(self.stack[-1], dict)[_key(key)] = value

    def set_items(self) -> None:
        items = _spread(self.pop_to_mark())
        target = _must(self.stack[-1], dict)
        if len(items) % 2:
            raise PickleError("it is no whole pickle")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def add_items(self) -> None:
        items = _spread(self.pop_to_mark())
        _must(self.stack[-1], set).update(map(_key, items))

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.known(f"{_must(module, str)}.{_must(name, str)}")

    def named(self) -> None:
        module, name = self.line(), self.line()
        self.known(f"{module}.{name}")

    def line(self) -> str:
        end = self.data.find(b"\n", self.at)
        line = self.take(max(0, end - self.at))
        self.at += 1
        return line.decode()

    def known(self, name: str) -> None:
        if name not in self.classes and name not in _MOMENTS:
            raise PickleError(f"it names {name[:100]!r}, which is not data")
        self.stack.append(_Class(name))

    def new(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        if arguments != ():
            raise PickleError("it makes something with arguments")
        self.stack.append(_Instance(_must(made, _Class).name))

    def moment(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        make = _MOMENTS.get(_must(made, _Class).name)
        if make is None:
            raise PickleError("it calls something with arguments")
        try:
            self.stack.append(make(*_must(arguments, tuple)))
        except ValueError as error:
            raise PickleError("it holds a time that is none") from error

    def build(self) -> None:
        state = self.stack.pop()
        _must(self.stack[-1], _Instance).state = _must(state, dict)


def _datetime(state: bytes, zone: timezone | None = None) -> datetime:
    if zone is not None:
        _must(zone, timezone)
    make: Callable[..., datetime] = datetime  # of the bytes that its own pickles have
    return make(_must(state, bytes), zone)


def _date(state: bytes) -> date:
    make: Callable[..., date] = date
    return make(_must(state, bytes))


def _zone(offset: timedelta) -> timezone:
    return timezone(_must(offset, timedelta))


def _span(days: int, seconds: int, microseconds: int) -> timedelta:
    return timedelta(_must(days, int), _must(seconds, int), _must(microseconds, int))


def _must(value: Any, kind: type) -> Any:
    """Return a value that is exactly of a kind: nothing is done to anything else."""
    if type(value) is not kind:
        raise PickleError("it is no whole pickle")
    return value


def _key(value: Any) -> Any:
    if type(value) not in (str, int):
        raise PickleError("it has a key that is neither text nor a number")
    return value


def _spread(items: Any) -> tuple[Any, ...]:
    """Return items with the numbers of `Floats` one by one."""
    out: list[Any] = []
    for item in items:
        out += item.values.tolist() if isinstance(item, Floats) else [item]
    return tuple(out)


class _Finish:
    """Turns what was read into values, which are counted: a pickle can name a piece of its own many times."""

    def __init__(self, room: int) -> None:
        self._room = room

    def value(self, value: Any, depth: int) -> Any:
        self._room -= 1
        if self._room < 0:
            raise PickleError("it repeats its own pieces too often")
        if depth > _DEPTH:
            raise PickleError("it is nested too deeply")
        depth += 1
        if isinstance(value, _Instance):
            state = {str(key): self.value(one, depth) for key, one in value.state.items()}
            return Record(value.name, state)
        if isinstance(value, Floats):
            self._room -= len(value.values)
            return value
        if isinstance(value, dict):
            self._room -= sum(len(key) // 8 for key in value if isinstance(key, str))
            return {key: self.value(one, depth) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one, depth) for one in value]
        if isinstance(value, str):
            self._room -= len(value) // 8
        elif isinstance(value, date):
            value = value.isoformat()
        elif isinstance(value, set | _Class | timedelta | timezone):
            return None
        return value


_MOMENTS: dict[str, Callable[..., Any]] = {
    "datetime.datetime": _datetime,
    "datetime.date": _date,
    "datetime.timezone": _zone,
    "datetime.timedelta": _span,
}
_PUSHED: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False}
_DO: dict[int, Callable[[_Reader], object]] = {
    ord("("): lambda it: it.marks.append(len(it.stack)),
    ord("}"): lambda it: it.stack.append({}),
    ord("]"): lambda it: it.stack.append([]),
    ord(")"): lambda it: it.stack.append(()),
    0x8F: lambda it: it.stack.append(set()),
    0x85: lambda it: it.few(1),
    0x86: lambda it: it.few(2),
    0x87: lambda it: it.few(3),
    ord("t"): _Reader.marked_tuple,
    ord("a"): _Reader.append,
    ord("e"): _Reader.appends,
    ord("s"): _Reader.set_item,
    ord("u"): _Reader.set_items,
    0x90: _Reader.add_items,
    0x8C: lambda it: it.text(1),
    ord("X"): lambda it: it.text(4),
    0x8D: lambda it: it.text(8),
    ord("C"): lambda it: it.blob(1),
    ord("B"): lambda it: it.blob(4),
    ord("K"): lambda it: it.integer(1),
    ord("M"): lambda it: it.integer(2),
    ord("J"): lambda it: it.integer(4, signed=True),
    0x8A: _Reader.long,
    0x94: lambda it: it.put(0),
    ord("q"): lambda it: it.put(1),
    ord("r"): lambda it: it.put(4),
    ord("h"): lambda it: it.get(1),
    ord("j"): lambda it: it.get(4),
    0x95: lambda it: it.take(8),  # FRAME: its length matters to readers of streams only
    0x93: _Reader.stack_global,
    ord("c"): _Reader.named,
    0x81: _Reader.new,
    ord("b"): _Reader.build,
    ord("R"): _Reader.moment,
}
