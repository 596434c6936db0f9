from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.records import spool
from memkeep.records.record import Record
from memkeep.records.spool import Spool


@pytest.mark.parametrize("held", [0, 1, 300 << 10, 64 << 20])
def test_records_come_back_in_the_order_of_their_keys_as_often_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(spool, "_HELD", held)
    large = "x" * (1 << 18)  # more than is read at once
    keys = [*"abc", "f", "e", "d", *"ghi", "~", "k", "j"]
    made = {key: Record(id=key, text=large if number % 4 == 1 else key) for number, key in enumerate(keys)}
    waiting = Spool(tmp_path)
    for key, one in made.items():
        waiting.add(key, one)
    for _ in range(2):
        assert list(waiting) == [made[key] for key in sorted(keys)]
    waiting.add("", made["a"])
    assert list(waiting) == [made["a"], *(made[key] for key in sorted(keys))]
    assert len(waiting) == len(keys) + 1
    waiting.close()


@given(keys=st.lists(st.text(max_size=2), max_size=12), held=st.integers(0, 600), run=st.integers(0, 300))
def test_records_of_any_order_come_back_from_memory_and_from_the_file(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], held: int, run: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "_HELD", held)
        patch.setattr(spool, "_RUN", run)
        waiting = Spool(tmp_path_factory.getbasetemp())
        made = [Record(id=str(number), text=key * number) for number, key in enumerate(keys)]
        for one, key in zip(made, keys, strict=True):
            waiting.add(key, one)
        assert list(waiting) == sorted(made, key=lambda one: keys[int(one.id)])
        waiting.close()
