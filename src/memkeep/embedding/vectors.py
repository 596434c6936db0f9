"""From what an endpoint answers to vectors, and whether they can be any."""

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memkeep.embedding.base import TextRefusedError, TryLaterError

if TYPE_CHECKING:
    import numpy as np


def matrix(given: Sequence[Any], wanted: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Return vectors, each a list of numbers or the base64 of float32 little-endian, as rows.

    Raises `TryLaterError` when they are not one for each text and all of one size, and `TextRefusedError` when one
    is not finite or only zeros: so some endpoints answer a text that they can't take.
    """
    import numpy as np

    if len(given) != wanted:
        raise TryLaterError(f"{len(given)} vectors for {wanted} texts")
    try:
        rows = [
            np.frombuffer(base64.b64decode(one, validate=True), "<f4")
            if isinstance(one, str)
            else np.asarray(one, np.float32)
            for one in given
        ]
    except (binascii.Error, ValueError, TypeError, OverflowError) as error:
        raise TryLaterError(f"what it answered are no vectors: {error}") from error
    if any(row.ndim != 1 or not row.size or row.size != rows[0].size for row in rows):
        raise TryLaterError(f"vectors of {', '.join(sorted({str(row.size) for row in rows}))} dimensions in one answer")
    made = np.stack(rows).astype(np.float32, copy=False)
    return checked(made)


def checked(made: "np.ndarray[Any, np.dtype[np.float32]]") -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Return the rows; raises `TextRefusedError` when one of them is no vector to search with."""
    import numpy as np

    if not np.isfinite(made).all():
        raise TextRefusedError("its vector has elements that are no finite numbers")
    if not made.any(axis=1).all():
        raise TextRefusedError("its vector is zeros only")
    return made
