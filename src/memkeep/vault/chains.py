"""Going through many chunks so that each is decoded once: right after its base, and near its pack's other chunks."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from memkeep.errors import DamagedError
from memkeep.vault import codec
from memkeep.vault.index import Location
from memkeep.vault.reader import Reader

WINDOW_BYTES = 8 << 20  # of blobs that are read together
WINDOW_CHUNKS = 2048
_JOB_BYTES = 2 << 20  # of blobs that one thread decodes at a time, but for longer chains


def windows(places: dict[bytes, Location]) -> Iterator[list[bytes]]:
    """Cut chunks into windows: in the order of their packs, but each right after its base and the base's other deltas.

    What was made against neighbours lies in neighbouring places too, so a window is read in few pieces.
    """
    window: list[bytes] = []
    size = 0
    for one in _in_order(places):
        length = places[one].length
        if window and (len(window) >= WINDOW_CHUNKS or size + length > WINDOW_BYTES):
            yield window
            window, size = [], 0
        window.append(one)
        size += length
    if window:
        yield window


def prove(reader: Reader, places: dict[bytes, Location]) -> Iterator[tuple[int, dict[bytes, DamagedError]]]:
    """Decode chunks, given with all that their deltas need, each once, and compare each with its id.

    Yields, some chunks after others, how many bytes they have, and an error for each that can't be had.
    """
    seen: set[bytes] = set()
    with ThreadPoolExecutor(2, "memkeep-prove") as pool:
        for done, lost in pool.map(lambda job: (job, _walk(reader, job)), _jobs(places)):
            seen |= done.keys()
            yield sum(place.raw for place in done.values()), _missing(reader, lost)
    yield 0, _missing(reader, [one for one in places if one not in seen])  # those whose chains go round


def _in_order(places: dict[bytes, Location]) -> Iterator[bytes]:
    above: dict[bytes | None, list[bytes]] = {}
    for one, place in sorted(places.items(), key=lambda item: item[1][:2], reverse=True):
        above.setdefault(place.base, []).append(one)
    todo = above.pop(None, [])
    while todo:
        one = todo.pop()
        todo += above.pop(one, ())
        yield one


def _jobs(places: dict[bytes, Location]) -> Iterator[dict[bytes, Location]]:
    """Cut chunks into jobs that hold whatever their deltas need."""
    job: dict[bytes, Location] = {}
    size = 0
    for one in _in_order(places):
        place = places[one]
        if place.base is None and size > _JOB_BYTES:
            yield job
            job, size = {}, 0
        job[one] = place
        size += place.length
    if job:
        yield job


def _walk(reader: Reader, places: dict[bytes, Location]) -> list[bytes]:
    """Decode a job's chunks; return those that are not themselves, or of which a base is not."""
    coder = codec.Coder()
    chain: list[tuple[bytes, bytes]] = []  # the chunk that was decoded last and its bases, first to last
    lost = []
    for window in windows(places):
        try:
            blobs = reader.blobs({one: places[one] for one in window})
        except DamagedError:
            lost += window
            continue
        for one in window:
            place = places[one]
            while chain and chain[-1][0] != place.base:
                chain.pop()
            if place.base is not None and not chain:
                lost.append(one)
                continue
            try:
                raw = reader.decode(one, place, blobs[one], chain[-1][1] if chain else b"", coder)
            except DamagedError:
                lost.append(one)
            else:
                chain.append((one, raw))
    return lost


def _missing(reader: Reader, chunks: Sequence[bytes]) -> dict[bytes, DamagedError]:
    """Return an error for each chunk that can't be had elsewhere either; it names the pack."""
    errors = {}
    for one in chunks:
        try:
            reader.chunk(one)
        except DamagedError as error:
            errors[one] = error
    return errors
