"""Find again vectors that lie elsewhere now: an index of where the parent snapshot has each of them.

A Lance compaction moves all of them, a row that is added to a table those behind it.
Made only when a part brings many new bytes of vectors, since it decodes those of the parent.
"""

from collections.abc import Sequence

from memkeep.engines.base import Opened
from memkeep.model import Entry, PartImage, Recipe, Run
from memkeep.vault.reader import split_ids
from memkeep.vault.vault import Vault
from memkeep.vault.writer import Blocks, block_digest

WORTH = 4 << 20  # bytes of vectors in changed files, below which they are just stored


def known_blocks(vault: Vault, opened: Opened, changed: Sequence[Entry], parent: PartImage | None) -> Blocks | None:
    """Return the parent's vectors for files that are not as it has them, or None when the search would not pay."""
    if parent is None:
        return None
    new = [run for entry in changed for run in opened.runs(entry)]
    if sum(run.count * run.stride for run in new) < WORTH:
        return None
    strides = {run.stride for run in new}
    by_chunk: dict[bytes, set[tuple[int, int]]] = {}
    for stored in parent.entries:
        if stored.recipe is not None:
            for run in stored.recipe.runs:
                if run.stride in strides:
                    _collect(stored.recipe, run, by_chunk)
    return _digested(vault, by_chunk)


def _digested(vault: Vault, by_chunk: dict[bytes, set[tuple[int, int]]]) -> Blocks:
    wanted = list(by_chunk)
    known: dict[bytes, tuple[bytes, int]] = {}
    for chunk, raw in zip(wanted, vault.reader.chunks(wanted), strict=True):
        for start, stride in sorted(by_chunk[chunk]):
            if start + stride <= len(raw):
                known.setdefault(block_digest(raw[start : start + stride]), (chunk, start))
    return Blocks(known)


def _collect(recipe: Recipe, run: Run, by_chunk: dict[bytes, set[tuple[int, int]]]) -> None:
    """Note where in which chunks the blocks of a run begin; blocks that two pieces share are passed over."""
    import numpy as np

    lengths = np.frombuffer(recipe.lengths, "<u4").astype(np.int64)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    starts = np.frombuffer(recipe.starts, "<u4").tolist()
    ids = split_ids(recipe.ids)
    first = int(np.searchsorted(ends, run.offset, "right"))
    for piece in range(first, len(ids)):
        begin, end = int(begins[piece]), int(ends[piece])
        if begin >= run.offset + run.count * run.stride:
            break
        at = max(begin, run.offset)
        at += -(at - run.offset) % run.stride
        while at + run.stride <= min(end, run.offset + run.count * run.stride):
            by_chunk.setdefault(ids[piece], set()).add((starts[piece] + at - begin, run.stride))
            at += run.stride
