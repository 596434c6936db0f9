"""Where records can't go is said with the command that names a place where they can."""

from pathlib import Path

import pytest

from memkeep.errors import StoreError
from memkeep.ops import destination


def test_a_store_that_is_not_there_is_named_in_the_words_that_were_typed(tmp_path: Path) -> None:
    place = tmp_path / "a new:one"
    with pytest.raises(StoreError, match="does not exist; a new store is named with its product") as caught:
        destination.find(str(place), verb="import FILE --into")
    assert caught.value.hint == f"memkeep import FILE --into oc-memory:'{place}'"


def test_a_product_that_takes_no_records_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no product takes records under the name open-memory;") as caught:
        destination.find(f"open-memory:{tmp_path}/new", verb="migrate latest --to")
    assert caught.value.hint == f"memkeep migrate latest --to oc-memory:{tmp_path}/new"
