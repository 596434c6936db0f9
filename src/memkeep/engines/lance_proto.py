"""The wire format of Protocol Buffers, as far as a reader needs it (https://protobuf.dev/programming-guides/encoding)."""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
_MORE = 0x80
_SIGN = 1 << 63


class ProtoError(ValueError):
    """The bytes are not a message, or a field is not of the kind that it should be."""


class Message:
    """One message: its fields by number, as they come; a field that is not there has the default of proto3."""

    def __init__(self, data: bytes) -> None:
        """Read all fields; raises `ProtoError`."""
        self._fields: dict[int, list[int | bytes]] = {}
        for number, value in _fields(data):
            self._fields.setdefault(number, []).append(value)

    def has(self, field: int) -> bool:
        """Say whether a field is there."""
        return field in self._fields

    def number(self, field: int) -> int:
        """Return an unsigned integer."""
        value = self._fields.get(field, [0])[-1]
        if not isinstance(value, int):
            raise ProtoError(f"field {field} is no number")
        return value

    def signed(self, field: int) -> int:
        """Return a signed integer."""
        return _signed(self.number(field))

    def maybe(self, field: int) -> int | None:
        """Return an unsigned integer, None when it is not there."""
        return self.number(field) if field in self._fields else None

    def block(self, field: int) -> bytes:
        """Return raw bytes."""
        return self.blocks(field)[-1] if field in self._fields else b""

    def blocks(self, field: int) -> list[bytes]:
        """Return the raw bytes of a repeated field."""
        found = []
        for value in self._fields.get(field, ()):
            if isinstance(value, int):
                raise ProtoError(f"field {field} is a number")
            found.append(value)
        return found

    def text(self, field: int) -> str:
        """Return text."""
        try:
            return self.block(field).decode()
        except UnicodeDecodeError as error:
            raise ProtoError(f"field {field} is no text") from error

    def message(self, field: int) -> "Message":
        """Return a message."""
        return Message(self.block(field))

    def messages(self, field: int) -> "list[Message]":
        """Return the messages of a repeated field."""
        return [Message(data) for data in self.blocks(field)]

    def integers(self, field: int, known: dict[bytes, tuple[int, ...]] | None = None) -> tuple[int, ...]:
        """Return a repeated signed integer, packed or not; `known` remembers packed ones that come again and again."""
        found: tuple[int, ...] = ()
        for value in self._fields.get(field, ()):
            if isinstance(value, int):
                found += (_signed(value),)
                continue
            numbers = known.get(value) if known is not None else None
            if numbers is None:
                numbers = tuple(_packed(value))
                if known is not None:
                    known[value] = numbers
            found += numbers
        return found


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in {_FIXED64, _FIXED32}:
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ProtoError("it is not a protobuf message")
        if at + length > end:
            raise ProtoError("a field reaches beyond its message")
        yield key >> 3, data[at : at + length]
        at += length


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        yield _signed(number)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = 0
    for shift in range(_LONGEST_VARINT):
        if at >= len(data):
            raise ProtoError("a number is cut")
        byte = data[at]
        at += 1
        result |= (byte & (_MORE - 1)) << (7 * shift)
        if byte < _MORE:
            return result, at
    raise ProtoError("a number is too long")


def _signed(value: int) -> int:
    return value - 2 * _SIGN if value >= _SIGN else value
