"""A pack being filled: a header, then `length (u32) | sealed blob` one after another."""

import hashlib

from memkeep.vault.crypto import HEADER_SIZE, PACK, Keys
from memkeep.vault.index import Location, pack_key

_LENGTH = 4


class Pack:
    """Blobs in the order that they came. They are sealed when the pack is closed, on the thread that writes it."""

    def __init__(self, keys: Keys) -> None:
        header = keys.header(PACK)
        self._cipher = keys.cipher(header, PACK, "new pack")
        self.buffers: list[bytes] = [header]
        self.size = HEADER_SIZE
        self.key = ""  # when closed
        self.chunks: list[tuple[bytes, Location]] = []  # the places lack the pack's key until it is closed

    def append(self, one: bytes, blob: bytes, raw: int, depth: int, base: bytes | None) -> None:
        """Take in the blob of a chunk of `raw` bytes."""
        offset = self.size + _LENGTH
        length = len(blob) + self._cipher.overhead
        self.buffers.append(blob)
        self.chunks.append((one, Location("", offset, length, raw, depth, base)))
        self.size = offset + length

    def close(self) -> str:
        """Seal all blobs; return the pack's key, the SHA-256 of the bytes that `buffers` are now."""
        hasher = hashlib.sha256(self.buffers[0])
        for number, (_, place) in enumerate(self.chunks, 1):
            sealed = place.length.to_bytes(_LENGTH, "little") + self._cipher.seal(self.buffers[number], place.offset)
            hasher.update(sealed)
            self.buffers[number] = sealed
        self.key = pack_key(hasher.digest())
        return self.key

    def entries(self) -> list[tuple[bytes, Location]]:
        """Return the places of the chunks of a closed pack."""
        return [(one, place._replace(pack=self.key)) for one, place in self.chunks]
