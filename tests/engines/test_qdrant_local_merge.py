import fcntl
import pickle
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient
from qdrant_client.http import models

from memkeep.engines.merging import Conflict, Counts, Merged, Wanted
from memkeep.engines.qdrant_local import QdrantLocalEngine
from memkeep.errors import RefusedError, StoreError
from memkeep.model import Part, Role, TableMap

NAME = "collection/mem0/storage.sqlite"
MAP = TableMap(
    collection="mem0",
    table="mem0",
    id="id",
    fields={"text": "data", "user": "user_id", "updated_at": "updated_at"},
    times={"updated_at": "iso"},
)
Texts = dict[Any, str]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a folder with points 0 to 5, two users by turns, all of the same time."""
    folder = tmp_path / "image"
    client = QdrantClient(path=str(folder))
    client.create_collection("mem0", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
    client.upsert("mem0", [_point(n) for n in range(6)])
    client.close()
    return folder


@pytest.fixture
def live(image: Path, tmp_path: Path) -> Path:
    """Return a copy, in which 1 is gone, 2 is older and 3 later than in the image, and 9 is new."""
    folder = Path(shutil.copytree(image, tmp_path / "live"))
    client = QdrantClient(path=str(folder))
    client.delete("mem0", [1])
    client.upsert("mem0", [_point(2, "older", 1), _point(3, "later", 9), _point(9, "new")])
    client.close()
    return folder


def _point(number: int, text: str = "text", day: int = 5) -> models.PointStruct:
    payload = {"data": f"{text} {number}", "user_id": f"u{number % 2}", "updated_at": f"2026-01-0{day}T00:00:00+00:00"}
    return models.PointStruct(id=number, vector=[1.0, float(number)], payload=payload)


def _merge(image: Path, live: Path, conflict: Conflict, *, commit: bool = True, **wanted: Any) -> Merged:
    part = Part(name=NAME, engine="qdrant-local", role=Role.CANONICAL, path=str(live / NAME), maps=(MAP,))
    with QdrantLocalEngine().merge(part, part, image, Wanted(conflict=conflict, **wanted)) as one:
        if commit:
            one.commit()
        return one.result


def _texts(folder: Path) -> Texts:
    client = QdrantClient(path=str(folder))
    try:
        return {point.id: point.payload["data"] for point in client.scroll("mem0", limit=100)[0]}
    finally:
        client.close()


@pytest.mark.parametrize(
    ("conflict", "counts", "two", "three"),
    [
        ("skip", Counts(inserted=1, skipped=2, same=3), "older 2", "later 3"),
        ("update", Counts(inserted=1, updated=2, same=3), "text 2", "text 3"),
        ("newer", Counts(inserted=1, updated=1, skipped=1, same=3), "text 2", "later 3"),
    ],
)
def test_points_go_in_as_asked_and_the_client_has_them(
    image: Path, live: Path, conflict: Conflict, counts: Counts, two: str, three: str
) -> None:
    before = _texts(live)
    dry = _merge(image, live, conflict, commit=False)
    assert _texts(live) == before
    assert _merge(image, live, conflict) == dry
    assert dry.tables == {"mem0": counts}
    assert sorted(dry.conflicts) == ["mem0:2", "mem0:3"]
    assert sorted(dry.records) == ["0", "1", "2", "3", "4", "5"]
    assert _texts(live) == before | {1: "text 1", 2: two, 3: three}
    assert _merge(image, live, "update").tables["mem0"].inserted == 0


def test_only_one_users_points_go_in(image: Path, live: Path) -> None:
    assert _merge(image, live, "update", users=("u0",)).tables == {"mem0": Counts(updated=1, same=2)}
    assert 1 not in _texts(live)


def test_nothing_goes_into_a_folder_that_a_client_has_open(image: Path, live: Path) -> None:
    client = QdrantClient(path=str(live))
    try:
        with pytest.raises(RefusedError) as refused:
            _merge(image, live, "skip")
        assert refused.value.code == "store_open"
    finally:
        client.close()


def test_no_client_opens_the_folder_meanwhile(image: Path, live: Path) -> None:
    part = Part(name=NAME, engine="qdrant-local", role=Role.CANONICAL, path=str(live / NAME), maps=(MAP,))
    with (
        QdrantLocalEngine().merge(part, part, image, Wanted(conflict="skip")),
        (live / ".lock").open("rb") as lock,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as the client does


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_what_can_not_be_read_or_does_not_fit_stays_out_and_is_named(
    image: Path, live: Path, tmp_path: Path, key: Callable[[int], str]
) -> None:
    wide = models.PointStruct(id=50, vector=[1.0, 2.0, 3.0], payload={})
    other = models.PointStruct(id=51, vector={"other": [1.0]}, payload={})
    with closing(sqlite3.connect(image / NAME)) as connection, connection:
        for number, value in ((50, wide), (51, other), (52, Trap(tmp_path / "ran"))):
            connection.execute("INSERT INTO points VALUES (?, ?)", (key(number), pickle.dumps(value)))
    result = _merge(image, live, "skip")
    assert {one.id for one in result.failed} == {"50", "51", "52"}
    assert result.tables["mem0"].inserted == 1
    assert not (tmp_path / "ran").exists()
    assert set(_texts(live)) == {0, 1, 2, 3, 4, 5, 9}


@pytest.fixture
def key() -> Callable[[int], str]:
    """Return what makes the key of a point."""
    from memkeep.engines.qdrant_local_read import key_of

    return key_of


def test_a_folder_that_does_not_say_what_it_takes_is_left_alone(image: Path, live: Path) -> None:
    (live / "meta.json").write_text("{}")
    with pytest.raises(StoreError, match="does not say"):
        _merge(image, live, "skip")
