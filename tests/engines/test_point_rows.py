import struct

import pytest

from memkeep.engines.point_rows import to_point, to_row
from memkeep.engines.qdrant_edge import Point, Sparse
from memkeep.records.record import Vector

NUMBERS = struct.pack("<2f", 0.5, -1)


@pytest.mark.parametrize(
    "point",
    [
        Point(1, {}, {}),
        Point("a", {"id": 1, "vector": 2, "vector.x": 3, "payload.id": 4, "payload.payload.id": 5, "payload.y": 6}, {}),
        Point(2, {"vectors": [1], "payload": {"id": 1}, "": 0}, {"": NUMBERS, "x": NUMBERS}),
        Point(3, {}, {"words": Sparse((3, 1 << 31), (0.5, -1.0)), "late": (NUMBERS, NUMBERS)}),
        Point(4, {}, {"empty": Sparse((), ())}),
    ],
)
def test_a_point_is_a_row_and_back(point: Point) -> None:
    assert to_point(to_row(point)) == point


def test_other_numbers_become_those_that_points_have() -> None:
    row = {"id": 1, "vector": Vector(data=struct.pack("<2e", 0.5, -1), type="f16", dims=2)}
    assert to_point(row).vectors == {"": NUMBERS}
    row = {"id": 1, "vector.a": Vector(data=struct.pack("<2d", 0.5, -1), type="f64", dims=2)}
    assert to_point(row).vectors == {"a": NUMBERS}


@pytest.mark.parametrize(
    "vector",
    [
        Vector(data=NUMBERS, dims=3),
        Vector(data=NUMBERS, type="multi", dims=0),
        Vector(data=NUMBERS, type="multi", dims=3),
        Vector(data=NUMBERS, type="sparse", dims=2),
    ],
)
def test_a_vector_that_is_none_is_refused(vector: Vector) -> None:
    with pytest.raises(ValueError, match="vector"):
        to_point({"id": 1, "vector": vector})
