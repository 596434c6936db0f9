"""Read a vault without memkeep: what `docs/format.md` says, and nothing else.

restore(Path("vault"), "the password or the recovery key") -> {snapshot: {path: bytes}}
"""

import base64
import hashlib
import itertools
import json
import struct
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PAGE = 4096
SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class FormatError(Exception):
    """The vault is not what the format says."""


def need(condition: object, what: str) -> None:
    if not condition:
        raise FormatError(what)


def derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


class Reader:
    """A vault in a folder, opened with its password or recovery key (None: not encrypted)."""

    def __init__(self, root: Path, secret: str | None) -> None:
        self.root = root
        self.config = self._read_config()
        self.master = self._find_master(secret) if self.config["encrypted"] else None
        chunk_secret = self.master or self.config["id"].encode("ascii")
        self.chunk_key = derive(chunk_secret, b"", b"memkeep chunk id")
        self.index: dict[bytes, tuple[str, int, int, int, int, bytes | None]] = {}
        for key in self.keys("index"):
            self._read_segment(key)

    # -- objects

    def keys(self, folder: str) -> list[str]:
        return sorted(
            path.relative_to(self.root).as_posix() for path in (self.root / folder).rglob("*") if path.is_file()
        )

    def whole(self, key: str) -> bytes:
        data = (self.root / key).read_bytes()
        need(hashlib.sha256(data).hexdigest() == key[-64:], f"{key} has another digest")
        return data

    def _read_config(self) -> dict[str, Any]:
        data = (self.root / "config").read_bytes()
        config: dict[str, Any] = json.loads(data)
        blank = data.replace(b'"%s"' % config["digest"].encode(), b'""')
        need(hashlib.sha256(blank).hexdigest() == config["digest"], "config has another digest")
        need((config["format"], config["version"]) == ("memkeep vault", 1), "another format")
        return config

    # -- keys

    def _find_master(self, secret: str | None) -> bytes:
        need(secret is not None, "a password is needed")
        assert secret is not None
        for key in self.keys("keys"):
            slot = json.loads(self.whole(key))
            salt = bytes.fromhex(slot["salt"])
            if slot["kind"] == "password":
                plain = unicodedata.normalize("NFC", secret).encode("utf-8")
                argon = Argon2id(
                    salt=salt,
                    length=32,
                    iterations=slot["iterations"],
                    lanes=slot["lanes"],
                    memory_cost=slot["memory_kib"],
                )
                wrapping = argon.derive(plain)
            else:
                recovered = recovery_bytes(secret)
                if recovered is None:
                    continue
                wrapping = derive(recovered, salt, b"memkeep recovery")
            try:
                wrapped = bytes.fromhex(slot["wrapped"])
                return AESGCM(wrapping).decrypt(bytes(12), wrapped, self.config["id"].encode("ascii"))
            except InvalidTag:
                continue
        raise FormatError("the secret opens no slot")

    # -- envelopes

    def unseal(self, header: bytes, kind: bytes, sealed: bytes, offset: int) -> bytes:
        flag = b"\1" if self.master else b"\0"
        need(len(header) == 48 and header[:16] == b"memkeep1" + kind + flag + bytes(6), "another header")
        if self.master is None:
            return sealed
        subkey = derive(self.master, header[16:], b"memkeep " + kind)
        return AESGCM(subkey).decrypt(offset.to_bytes(12, "little"), sealed, None)

    def envelope(self, key: str, kind: bytes) -> bytes:
        data = self.whole(key)
        return self.unseal(data[:48], kind, data[48:], 48)

    # -- chunks

    def _read_segment(self, key: str) -> None:
        data = self.envelope(key, b"I")
        packs, entries, deltas, zero = struct.unpack_from("<4I", data)
        layout = f"<{entries}Q{entries}Q{16 * deltas}s{packs}Q{entries}I{entries}I{entries}I{entries}I{32 * packs}s"
        need(zero == 0 and len(data) == 16 + struct.calcsize(layout) + entries, "a segment of another size")
        values = iter(struct.unpack_from(layout, data, 16))

        def column(count: int) -> list[Any]:
            return list(itertools.islice(values, count))

        heads, tails = column(entries), column(entries)
        bases = iter(split(next(values)))
        sizes = column(packs)
        offsets, lengths, raws, numbers = (column(entries) for _ in range(4))
        joined = next(values)
        names = [joined[at : at + 32].hex() for at in range(0, 32 * packs, 32)]
        need(heads == sorted(heads), "a segment out of order")
        for head, tail, pack, offset, length, raw, depth in zip(
            heads, tails, numbers, offsets, lengths, raws, data[-entries:] if entries else b"", strict=True
        ):
            need(offset + length <= sizes[pack], "a blob out of its pack")
            one = struct.pack("<2Q", head, tail)
            base = next(bases) if depth else None
            if one not in self.index or depth < self.index[one][4]:
                path = f"data/{names[pack][:2]}/{names[pack]}"
                self.index[one] = (path, offset, length, raw, depth, base)
        need(next(bases, None) is None, "a base without a delta")

    def chunk(self, one: bytes, depth: int = 256) -> bytes:
        need(one in self.index, f"chunk {one.hex()} is nowhere")
        path, offset, length, raw, own_depth, base = self.index[one]
        need(own_depth < depth, "a chain that does not end")
        with (self.root / path).open("rb") as file:
            header = file.read(48)
            file.seek(offset - 4)
            need(int.from_bytes(file.read(4), "little") == length, "another length")
            blob = self.unseal(header, b"P", file.read(length), offset)
        kind, size = struct.unpack_from("<BI", blob)
        need(size == raw, "another raw length")
        rest = blob[5:]
        base_chunk = b""
        if kind in (2, 3):
            need(base == rest[:16], "another base")
            base_chunk = self.chunk(rest[:16], own_depth)
            rest = rest[16:]
        data = inflate(rest, size, base_chunk) if kind == 3 else unpack_pages(rest, size, base_chunk, delta=kind == 2)
        need(len(data) == size and blake3(data, key=self.chunk_key).digest(16) == one, "another chunk")
        return data

    def stream(self, recipe: dict[str, Any]) -> bytes:
        lengths = [value for (value,) in struct.iter_unpack("<I", binary(recipe["lengths"]))]
        starts = [value for (value,) in struct.iter_unpack("<I", binary(recipe["starts"]))]
        pieces = []
        for one, start, length in zip(split(binary(recipe["ids"])), starts, lengths, strict=True):
            piece = self.chunk(one)[start : start + length]
            need(len(piece) == length, "a piece out of its chunk")
            pieces.append(piece)
        data = b"".join(pieces)
        need(len(data) == recipe["size"] and blake3(data).digest() == binary(recipe["digest"]), "another stream")
        return data

    # -- snapshots

    def snapshots(self) -> dict[str, dict[str, Any]]:
        found = {key[-64:]: json.loads(inflate(self.envelope(key, b"S"))) for key in self.keys("snapshots")}
        return dict(sorted(found.items(), key=lambda item: (item[1]["created"], item[0])))

    def seals(self) -> dict[str, dict[str, Any]]:
        return {key: json.loads(self.envelope(key, b"L")) for key in self.keys("seals")}

    def images(self, manifest: dict[str, Any]) -> list[dict[str, Any]]:
        return [msgspec.msgpack.decode(self.stream(part["image"])) for part in manifest["parts"]]

    def files(self, manifest: dict[str, Any]) -> dict[str, bytes]:
        found = {}
        for image in self.images(manifest):
            for stored in image["entries"]:
                if stored["entry"]["kind"] == "file":
                    found[stored["entry"]["path"]] = data = self.stream(stored["recipe"])
                    need(len(data) == stored["entry"]["size"], "another size")
        return found

    def records(self, manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of each collection, named `<part>/<collection>`."""
        found: dict[str, list[dict[str, Any]]] = {}
        for image in self.images(manifest):
            for collection in image["collections"]:
                rows = found.setdefault(f"{image['part']['name']}/{collection['map']['collection']}", [])
                for stored in collection["groups"]:
                    group = json.loads(self.chunk(stored["chunk"]))
                    need(group["rows"] == stored["rows"], "another number of rows")
                    rows += [
                        dict(zip(group["columns"], row, strict=True)) for row in zip(*group["values"], strict=True)
                    ]
        return found


def recovery_bytes(typed: str) -> bytes | None:
    plain = typed.upper().replace("-", "").replace(" ", "").replace("I", "1").replace("L", "1").replace("O", "0")
    if len(plain) != 32 or set(plain) - set(SYMBOLS):
        return None
    number = 0
    for symbol in plain:
        number = number * 32 + SYMBOLS.index(symbol)
    data = number.to_bytes(20)
    return data[:16] if blake3(data[:16]).digest(4) == data[16:] else None


def binary(value: bytes | str) -> bytes:
    return base64.b64decode(value) if isinstance(value, str) else value


def split(ids: bytes) -> list[bytes]:
    return [ids[at : at + 16] for at in range(0, len(ids), 16)]


def inflate(frame: bytes, size: int | None = None, dictionary: bytes = b"") -> bytes:
    if size == 0:
        need(not frame, "bytes where nothing should be")
        return b""
    says = zstandard.frame_content_size(frame)
    need(0 <= says <= 1 << 28 and size in (None, says), "another content size")
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    decompressor = zstandard.ZstdDecompressor(dict_data=raw) if len(dictionary) >= 8 else zstandard.ZstdDecompressor()
    return decompressor.decompress(frame, allow_extra_data=False)


def unpack_pages(data: bytes, size: int, base: bytes, *, delta: bool) -> bytes:
    count = -(-size // PAGE)
    packed = data[: (count + 1) // 2]
    kinds = [packed[page // 2] >> 4 * (page % 2) & 15 for page in range(count)]
    need(all(kind < 6 for kind in kinds) and (delta or 5 not in kinds), "another kind of page")
    data = data[len(packed) :]
    of_kind = {kind: [page for page in range(count) if kinds[page] == kind] for kind in range(6)}
    floats = sum(len(of_kind[kind]) for kind in range(1, 5))
    (length,) = struct.unpack_from("<I", data)
    exponents = inflate(data[4 : 4 + length], floats * 1024)
    mantissas = data[4 + length : 4 + length + floats * 3072]
    stored = [page for page in range(count) if kinds[page] != 5]
    dictionary = b"".join(base[page * PAGE : (page + 1) * PAGE] for page in stored) if delta else b""
    plain_size = sum(min(PAGE, size - page * PAGE) for page in of_kind[0])
    plain = inflate(data[4 + length + floats * 3072 :], plain_size, dictionary)
    pages = {page: plain[number * PAGE : (number + 1) * PAGE] for number, page in enumerate(of_kind[0])}
    for kind in range(1, 5):
        amount = len(of_kind[kind])
        middles, mantissas = mantissas[: amount * 1024], mantissas[amount * 1024 :]
        pairs, mantissas = mantissas[: amount * 2048], mantissas[amount * 2048 :]
        p = kind - 1
        h = 2 if p < 2 else 0
        for number, page in enumerate(of_kind[kind]):
            out = bytearray(PAGE)
            out[p::4] = exponents[:1024]
            exponents = exponents[1024:]
            out[p ^ 1 :: 4] = middles[number * 1024 : (number + 1) * 1024]
            out[h::4] = pairs[number * 2048 : (number + 1) * 2048 : 2]
            out[h + 1 :: 4] = pairs[number * 2048 + 1 : (number + 1) * 2048 : 2]
            pages[page] = bytes(out)
    for page in of_kind[5]:
        pages[page] = base[page * PAGE : (page + 1) * PAGE]
    whole = all(len(pages[page]) == min(PAGE, size - page * PAGE) for page in range(count))
    need(whole and all(kinds[page] == 0 for page in range(size // PAGE, count)), "a page of another size")
    return b"".join(pages[page] for page in range(count))
