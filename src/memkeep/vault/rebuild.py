"""What packs say of themselves: finding the chunks in them without an index.

A pack tells where its blobs begin, a blob whether it is a delta and against which chunk, and what it decodes to is its
id. So a lost index can be made again from packs alone; a base may lie in any of them, or be known already.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from memkeep.errors import DamagedError
from memkeep.vault import codec
from memkeep.vault.crypto import HEADER_SIZE, PACK, TAG_SIZE, Cipher
from memkeep.vault.index import Location
from memkeep.vault.reader import chunk_id
from memkeep.vault.vault import Vault

_LENGTH = 4
_DEEPEST = 255
_BLOCK = 1 << 20  # bytes that are read at once: blobs of neighbours are needed one after another
_BLOCKS = 64  # kept, one a pack
_READINGS = 3  # of a piece, for two to agree


class Span(NamedTuple):
    """Where a sealed blob lies."""

    pack: str
    offset: int
    length: int


class Found(NamedTuple):
    """A chunk that was found in a pack, and its blob."""

    one: bytes
    place: Location
    blob: bytes
    raw: bytes


def walk(pack: str, data: bytes) -> list[Span]:
    """Return where the blobs of a pack begin by its own words, up to the first that can't be."""
    spans = []
    at = HEADER_SIZE
    while at + _LENGTH <= len(data):
        length = int.from_bytes(data[at : at + _LENGTH], "little")
        at += _LENGTH
        if length > codec.MAX_BLOB + TAG_SIZE or at + length > len(data):
            break
        spans.append(Span(pack, at, length))
        at += length
    return spans


class Rebuild:
    """The search for the chunks at some places. `unresolved` are the places that gave none."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._ciphers: dict[str, Cipher] = {}
        self._blocks: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._again: set[tuple[str, int]] = set()  # packs, and where blocks begin that were read a second time
        self._above: dict[bytes | None, list[Span]] = {}
        self.depths: dict[bytes, int] = {}
        self.unresolved: set[Span] = set()

    def add(self, spans: Iterable[Span]) -> None:
        """Look at the blobs at some places."""
        for span in dict.fromkeys(spans):
            if span in self.unresolved:
                continue
            self.unresolved.add(span)
            try:
                base = codec.base_of(self._blob(span), span.pack)
            except DamagedError:
                continue
            self._above.setdefault(base, []).append(span)

    def resolve(self) -> Iterator[Found]:
        """Yield every chunk that can be decoded, bases first, each found one right after its base."""
        for span in self._above.pop(None, []):
            yield from self._tree(span)
        for base in list(self._above):
            if base is None or base not in self._above:
                continue  # it was among what the one before needed
            place = self._vault.index.find(base)
            if place is not None:
                try:
                    raw = self._vault.reader.chunk(base)
                except DamagedError:
                    continue
                self.depths.setdefault(base, place.depth)
                for span in self._above.pop(base, []):
                    yield from self._tree(span, base, raw)

    def _tree(self, root: Span, base: bytes | None = None, base_raw: bytes = b"") -> Iterator[Found]:
        """Decode a blob and all that need it; a chain may be long, so without recursion."""
        todo = [(root, base, base_raw)]
        coder = codec.Coder()
        while todo:
            span, below, theirs = todo.pop()
            depth = self.depths[below] + 1 if below is not None else 0
            if depth > _DEEPEST:
                continue
            try:
                blob = self._blob(span)
                raw = coder.decode(blob, theirs, span.pack)
            except DamagedError:
                continue
            self.unresolved.discard(span)
            one = chunk_id(self._vault.keys, raw)
            # A delta must be deeper than its base, whichever copy of that will be taken.
            there = self._vault.index.find(one)
            self.depths[one] = max(depth, self.depths.get(one, 0), there.depth if there is not None else 0)
            yield Found(one, Location(span.pack, span.offset, span.length, len(raw), depth, below), blob, raw)
            todo += [(other, one, raw) for other in self._above.pop(one, [])]

    def _blob(self, span: Span) -> bytes:
        """Return an opened blob; one that can't be opened is read once more: the storage may have given other bytes."""
        try:
            return self._opened(span)
        except DamagedError:
            start, _ = self._blocks.pop(span.pack, (span.offset, b""))
            if (span.pack, start) in self._again:
                raise
            self._again.update([(span.pack, start), (span.pack, span.offset)])
            self._ciphers.pop(span.pack, None)
            return self._opened(span)

    def _opened(self, span: Span) -> bytes:
        cipher = self._ciphers.get(span.pack)
        if cipher is None:
            header = self._vault.storage.get_range(span.pack, 0, HEADER_SIZE)
            cipher = self._ciphers[span.pack] = self._vault.keys.cipher(header, PACK, span.pack)
        return cipher.unseal(self._sealed(span), span.offset)

    def _sealed(self, span: Span) -> bytes:
        start, block = self._blocks.get(span.pack, (0, b""))
        if not start <= span.offset <= span.offset + span.length <= start + len(block):
            start = span.offset
            block = self._range(span.pack, start, max(_BLOCK, span.length))
            self._blocks[span.pack] = start, block
            while len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        if span.offset + span.length > start + len(block):
            raise DamagedError(f"{span.pack} is cut off", obj=span.pack)
        return block[span.offset - start :][: span.length]

    def _range(self, pack: str, start: int, length: int) -> bytes:
        """Return a piece of a pack; without encryption only what two readings give, since nothing else would show."""
        block = self._vault.storage.get_range(pack, start, length)
        for _ in range(_READINGS):
            if self._vault.keys.encrypted:
                break
            before, block = block, self._vault.storage.get_range(pack, start, length)
            if block == before:
                break
        return block
