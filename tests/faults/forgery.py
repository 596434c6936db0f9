"""What a disk, or somebody who has the keys, could put in the place of an object: mangled bytes, twisted values."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import zstandard
from hypothesis import strategies as st
from tests.faults.world import START

from memkeep.storage.memory import MemoryStorage
from memkeep.vault import codec
from memkeep.vault import format as layout
from memkeep.vault.crypto import HEADER_SIZE, INDEX, LEASE, MARK, PACK, SEAL, SNAPSHOT
from memkeep.vault.lease import LIFETIME
from memkeep.vault.pack import Pack
from memkeep.vault.vault import Vault
from memkeep.vault.writer import put_segment

ODD = (
    *(None, True, -1, 0, 1 << 20, 1 << 31, (1 << 40) - 1, 1 << 62, (1 << 63) - 1, 1e308, 0.5),
    *("", "x", ".", "../up", "/tmp/up", "a\0b", "\ufeff\u202e", "é" * 300, "latest", "sqlite", "lance", "files"),
    *("2026-01-01T00:00:00", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59-23:59", "2026-13-01", "1"),
    *([], {}, [[]], {"": None}, ["x"], b"", b"\0" * 16, b"\xff" * 64),
)
Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def mangled(draw: Draw, data: bytes) -> bytes:
    """Return other bytes: any at all, or some that were cut, flipped, doubled or overwritten."""
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    length = draw(st.integers(1, 64))
    flipped = bytes([byte ^ 1 << draw(st.integers(0, 7)) for byte in data[at : at + 1]])
    return bytes(
        draw(
            st.one_of(
                st.binary(max_size=300),
                st.sampled_from(
                    (
                        data[:at],
                        data[at:],
                        data[:at] + flipped + data[at + 1 :],
                        data[:at] + bytes(length) + data[at + length :],
                        data[:at] + b"\xff" * length + data[at + length :],
                        data[: at + length] + data[at:],
                    )
                ),
            )
        )
    )


@st.composite
def twisted(draw: Draw, tree: Any) -> Any:
    """Return a copy of a tree of values in which one or two places say something else, or nothing, or all twice."""
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(_paths(tree)) or [()]))
        tree = _twist(tree, path, draw(st.sampled_from(ODD)), draw(st.sampled_from(("set", "set", "drop", "double"))))
    return tree


def json(draw: Draw, data: bytes | memoryview) -> bytes:
    """Return twisted or mangled JSON."""
    if draw(st.booleans()):
        return bytes(draw(mangled(bytes(data))))
    if draw(st.integers(0, 9)) == 0:
        return b'{"a":' + b"[" * 100_000
    tree = draw(twisted(msgspec.json.decode(data)))
    return msgspec.json.encode(tree)


def config(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Replace `config`, its digest made anew."""
    made = json(draw, storage.objects[layout.CONFIG])
    try:
        tree = msgspec.json.decode(made)
        tree["digest"] = ""
        blank = msgspec.json.encode(tree) + b"\n"
        made = blank.replace(b'"digest":""', f'"digest":"{layout.digest_of(blank)}"'.encode())
    except (TypeError, KeyError, msgspec.MsgspecError, ValueError, RecursionError):
        pass
    storage.objects[layout.CONFIG] = made


def slot(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Replace a key slot."""
    key = draw(st.sampled_from(sorted(key for key in storage.objects if key.startswith(layout.KEYS))))
    _put(storage, layout.KEYS, json(draw, storage.objects.pop(key)))


def manifest(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Replace a snapshot's manifest, or add another."""
    key = draw(st.sampled_from(sorted(key for key in storage.objects if key.startswith(layout.SNAPSHOTS))))
    plain = codec.inflate(vault.keys.open_envelope(SNAPSHOT, storage.objects[key], key), 1 << 28, key)
    if draw(st.booleans()):
        del storage.objects[key]
    made = zstandard.ZstdCompressor().compress(json(draw, plain))
    if draw(st.integers(0, 4)) == 0:
        made = draw(mangled(made))
    _put(storage, layout.SNAPSHOTS, vault.keys.envelope(SNAPSHOT, made))


def segment(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Replace an index segment."""
    key = draw(st.sampled_from(sorted(key for key in storage.objects if key.startswith(layout.INDEX))))
    plain = vault.keys.open_envelope(INDEX, storage.objects.pop(key), key)
    _put(storage, layout.INDEX, vault.keys.envelope(INDEX, draw(mangled(bytes(plain)))))


def seal(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Replace an entry of the log."""
    key = draw(st.sampled_from(sorted(key for key in storage.objects if key.startswith(layout.SEALS))))
    plain = vault.keys.open_envelope(SEAL, storage.objects.pop(key), key)
    number = draw(st.sampled_from((key[6:14], "00000000", "99999999", "9" * 18)))
    _put(storage, f"{layout.SEALS}{number}-", vault.keys.envelope(SEAL, json(draw, plain)))


def lease(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Add the lease of another."""
    with vault.lease("prune", exclusive=draw(st.booleans())):
        key = next(key for key in vault.storage.objects if key.startswith(layout.LEASES))  # type: ignore[attr-defined]
        plain = vault.keys.open_envelope(LEASE, vault.storage.get(key), key)
    _put(storage, layout.LEASES, vault.keys.envelope(LEASE, json(draw, plain)))


def mark(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Add a mark of packs that are needed."""
    objects = tuple(key for key in storage.objects if key.startswith((layout.DATA, layout.INDEX)))
    now = (START - LIFETIME).isoformat()
    plain = msgspec.json.encode(layout.Mark(created=now, ready=now, objects=objects))
    _put(storage, layout.MARKS, vault.keys.envelope(MARK, json(draw, plain)))


def pack(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Put all chunks of a pack into another one, one of them mangled, and let the index say that they lie there."""
    key = draw(st.sampled_from(sorted(vault.index.packs)))
    data = storage.objects.pop(key)
    entries = sorted(vault.index.entries({key}), key=lambda one: one[1].offset)
    chosen = draw(st.sampled_from(entries))[0]
    cipher = vault.keys.cipher(data[:HEADER_SIZE], PACK, key)
    made = Pack(vault.keys)
    for chunk, place in entries:
        blob = cipher.unseal(data[place.offset : place.offset + place.length], place.offset)
        made.append(chunk, draw(mangled(blob)) if chunk == chosen else blob, place.raw, place.depth, place.base)
    storage.put_new(made.close(), made.buffers)
    put_segment(storage, vault.keys, vault.index, made.entries(), {made.key: made.size})


def pack_bytes(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Replace a pack by one whose name is right."""
    key = draw(st.sampled_from(sorted(vault.index.packs)))
    made = draw(mangled(storage.objects.pop(key)))
    digest = layout.digest_of(made)
    storage.objects[f"{layout.DATA}{digest[:2]}/{digest}"] = made


def image(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Commit the latest snapshot again with another image of a part."""

    def change(data: bytes) -> bytes:
        if draw(st.integers(0, 3)) == 0:
            return bytes(draw(mangled(data)))
        return msgspec.msgpack.encode(draw(twisted(msgspec.msgpack.decode(data))))

    _commit(vault, change)


def group(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Commit the latest snapshot again with other records."""
    with vault.writer() as writer:

        def change(data: bytes) -> bytes:
            tree = msgspec.msgpack.decode(data)
            for table in tree["collections"]:
                for one in table["groups"]:
                    made = json(draw, vault.reader.chunk(one["chunk"]))
                    one["chunk"] = writer.put_stream([made]).ids[:16] or one["chunk"]
            return msgspec.msgpack.encode(tree)

        _commit_with(vault, writer, change)


def whatever(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Mangle any object as it is stored."""
    key = draw(st.sampled_from(sorted(storage.objects)))
    storage.objects[key] = draw(mangled(storage.objects[key]))


def name(draw: Draw, vault: Vault, storage: MemoryStorage) -> None:
    """Add what has no place in a vault."""
    prefix = draw(st.sampled_from((*layout.PREFIXES, "", "tmp/", "seals/-", "data/zz/")))
    storage.objects[prefix + draw(st.text("0123456789abcdefg./-ü \n", max_size=70))] = draw(st.binary(max_size=40))


KINDS = (config, slot, manifest, segment, seal, lease, mark, pack, pack_bytes, image, group, whatever, name)


def _commit(vault: Vault, change: Callable[[bytes], bytes]) -> None:
    with vault.writer() as writer:
        _commit_with(vault, writer, change)


def _commit_with(vault: Vault, writer: Any, change: Callable[[bytes], bytes]) -> None:
    latest = vault.resolve("latest")
    parts = []
    for part in latest.parts:
        assert part.image is not None
        recipe = writer.put_stream([change(vault.reader.read(part.image))])
        parts.append(msgspec.structs.replace(part, image=recipe))
    writer.flush()
    lie = msgspec.structs.replace(latest, parts=tuple(parts), created="2026-11-22T00:00:00+00:00")
    writer.commit(lie, *vault.next_seal())


def _put(storage: MemoryStorage, prefix: str, data: bytes) -> None:
    storage.objects[prefix + layout.digest_of(data)] = data


def _paths(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield from _paths(value, (*at, key))


def _twist(tree: Any, path: tuple[Any, ...], value: Any, how: str) -> Any:
    if not path:
        return value
    key, *rest = path
    copy = tree.copy()
    if rest:
        copy[key] = _twist(tree[key], tuple(rest), value, how)
    elif how == "drop":
        del copy[key]
    elif how == "double" and isinstance(copy, list):
        copy.insert(key, copy[key])
    else:
        copy[key] = value
    return copy
