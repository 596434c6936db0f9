"""The headers of a tar archive, byte for byte the same for the same entry: POSIX ustar, and pax where that is short."""

from memkeep.model import Entry

BLOCK = 512
END = bytes(2 * BLOCK)
SIZE = slice(124, 135)  # of a header block: the octal digits of the size
_KINDS = {"file": b"0", "link": b"2", "dir": b"5"}
_NAME, _PREFIX = 100, 155  # bytes
_MOST = 8**11  # what eleven octal digits can't say
_SECOND = 10**9  # nanoseconds


def header(entry: Entry) -> bytes:
    """Return all that comes before the bytes of an entry. The owner is root: who unpacks as another stays that."""
    name = entry.path.encode() + (b"/" if entry.kind == "dir" else b"")
    target = entry.target.encode()
    size = entry.size if entry.kind == "file" else 0
    seconds, rest = divmod(entry.mtime_ns, _SECOND)
    prefix, short = _split(name)
    records = []
    if not name.isascii() or short is None:
        records.append((b"path", name))
    if not target.isascii() or len(target) > _NAME:
        records.append((b"linkpath", target))
    if size >= _MOST:
        records.append((b"size", b"%d" % size))
    if rest or not 0 <= seconds < _MOST:
        records.append((b"mtime", _decimal(entry.mtime_ns)))
    pax = b"".join(_record(key, value) for key, value in records)
    before = _block(b"x", b"././@PaxHeader", b"", 0o644, len(pax), 0, b"") + pax + padding(len(pax)) if pax else b""
    when = seconds if 0 <= seconds < _MOST else 0
    mode = entry.mode & 0o7777
    said = size if size < _MOST else 0
    return before + _block(_KINDS[entry.kind], short or name[:_NAME], prefix, mode, said, when, target[:_NAME])


def padding(size: int) -> bytes:
    """Return the zeros that fill up the last block of so many bytes."""
    return bytes(-size % BLOCK)


def _block(kind: bytes, name: bytes, prefix: bytes, mode: int, size: int, when: int, target: bytes) -> bytes:  # noqa: PLR0917 - the fields of a block
    block = b"".join(
        (
            name.ljust(_NAME, b"\0"),
            b"%07o\0" % mode,
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            b"%011o\0" % size,
            b"%011o\0" % when,
            b" " * 8,  # where the checksum goes
            kind,
            target.ljust(_NAME, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            prefix.ljust(_PREFIX, b"\0"),
            bytes(12),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Return a long name's prefix and rest, as old readers know it; None where it can't be cut so."""
    if len(name) <= _NAME:
        return b"", name
    at = name.find(b"/", max(0, len(name) - _NAME - 1), -1)
    if 0 < at <= _PREFIX:
        return name[:at], name[at + 1 :]
    return b"", None


def _decimal(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), _SECOND)
    return b"%s%d.%09d" % (b"-" if nanoseconds < 0 else b"", seconds, rest)


def _record(key: bytes, value: bytes) -> bytes:
    """Return a pax record, which begins with its own length in decimal."""
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    if length != size + len(str(length)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)
