from pathlib import Path

import numpy as np
import pytest

from memkeep.embedding.journal import KEY, Journal
from memkeep.errors import RefusedError


def keys(count: int, begin: int = 0) -> list[bytes]:
    return [number.to_bytes(KEY, "little") for number in range(begin, begin + count)]  # they end in zeros


def vectors(count: int, begin: int = 0) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    return np.arange(begin * 3, (begin + count) * 3, dtype=np.float32).reshape(count, 3)


def test_what_was_kept_is_found_in_any_order_and_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        assert (len(journal), journal.dims, journal.keys()) == (0, None, set())
        journal.add(keys(2), vectors(2))
        journal.add(keys(3, 2), vectors(3, 2))
        assert np.array_equal(journal.find(keys(5)[::-1]), vectors(5)[::-1])
    with Journal(path) as journal:
        assert (len(journal), journal.dims, journal.keys()) == (5, 3, set(keys(5)))
        assert np.array_equal(journal.find(keys(5)), vectors(5))
        journal.add(keys(1, 5), vectors(1, 5))
        assert np.array_equal(journal.find(keys(6)), vectors(6))


@pytest.mark.crash
def test_a_torn_end_is_cut_off_wherever_it_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.add(keys(3), vectors(3))
    whole = path.read_bytes()
    record = KEY + 12 + 8
    head = len(whole) - 3 * record
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with Journal(path) as journal:
            kept = max(0, length - head) // record if length >= head else 0
            assert len(journal) == kept
            journal.add(keys(1, 9), vectors(1, 9))
            assert np.array_equal(journal.find([*keys(kept), *keys(1, 9)]), [*vectors(kept), *vectors(1, 9)])


@pytest.mark.damage
def test_what_was_changed_in_it_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.add(keys(3), vectors(3))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with Journal(path) as journal:
            if journal.dims == 3:
                found = journal.keys()
                assert found <= set(keys(3))
                assert np.array_equal(journal.find(sorted(found)), vectors(3)[: len(found)])
            else:
                assert not len(journal)


def test_only_one_process_has_it_and_an_empty_one_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path), pytest.raises(RefusedError):
        Journal(path)
    assert not path.exists()
