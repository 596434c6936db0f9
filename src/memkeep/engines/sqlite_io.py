"""Bytes in and out of descriptors, and the frames in which the child process and its parent talk.

A frame is the length of its body (u32, little-endian) and the body, msgpack. Requests are `[id, op, arguments]`,
replies `[id, kind, payload]` with kind "item" (more to come), "done" or "error". File bytes go through a pipe of their
own: the id of the request and a length (u32 each), then so many bytes; length 0 ends it, and ERROR announces a frame
that says what failed.
"""

import os
import struct
from typing import Any

import msgspec

BUFFER = 1 << 20
ERROR = 0xFFFFFFFF
LENGTH = struct.Struct("<I")
STREAM = struct.Struct("<II")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def read_at(fd: int, into: memoryview, offset: int) -> int:
    """Fill a buffer from an offset of a file; return the number of bytes there were."""
    done = 0
    while done < len(into):
        size = os.preadv(fd, [into[done:]], offset + done)
        if size == 0:
            break
        done += size
    return done


def write_all(fd: int, *parts: bytes | memoryview) -> None:
    """Write buffers one after another, all of them."""
    views = [memoryview(part) for part in parts if len(part)]
    while views:
        size = os.writev(fd, views)
        while views and size >= len(views[0]):
            size -= len(views.pop(0))
        if size:
            views[0] = views[0][size:]


def read_exactly(fd: int, size: int) -> bytes:
    """Read so many bytes from a pipe; raises `EOFError` when the other side is gone."""
    parts = []
    while size:
        part = os.read(fd, min(size, BUFFER))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_frame(fd: int, message: Any) -> None:
    """Send one message."""
    body = _encoder.encode(message)
    write_all(fd, LENGTH.pack(len(body)), body)


def read_frame(fd: int) -> Any:
    """Receive one message; raises `EOFError` when the other side is gone."""
    (size,) = LENGTH.unpack(read_exactly(fd, LENGTH.size))
    return _decoder.decode(read_exactly(fd, size))
