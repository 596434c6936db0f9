"""Vectors that a file says as lists of numbers."""

from typing import Any, get_args

from memkeep.records.formats.objects import f32_of
from memkeep.records.readers.base import UnfitError
from memkeep.records.record import Vector, VectorType

DENSE = {"f16": "<f2", "f32": "<f4", "f64": "<f8"}
"""The vectors that are a row of numbers, and how they lie in memory."""

_NUMBERS = frozenset({int, float})


def vector(numbers: Any, model: Any = None, type_: Any = "f32") -> Vector:
    """Return the vector that a list of numbers is; raises `UnfitError` when it is none."""
    import numpy as np

    if type_ not in get_args(VectorType) or type_ not in DENSE or not (model is None or isinstance(model, str)):
        raise UnfitError("an embedding is not what it should be")
    if not isinstance(numbers, list) or not all(map(_NUMBERS.__contains__, map(type, numbers))):
        raise UnfitError("an embedding is no list of numbers")
    try:
        data = np.frombuffer(f32_of(numbers), "<f4") if type_ == "f32" else np.array(numbers, DENSE[type_])
    except (ValueError, TypeError, OverflowError) as error:
        raise UnfitError(f"an embedding is no list of numbers: {error}") from error
    return Vector(data=data.tobytes(), type=type_, dims=len(data), model=model)
