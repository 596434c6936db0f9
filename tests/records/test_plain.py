"""Values as JSON can hold them."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.records.plain import from_plain, to_plain

_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary(max_size=20)
_texts = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(["$bytes", "$object", "$"])
_values = st.recursive(
    _scalars | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=12,
)


@given(_values)
def test_any_value_comes_back_through_strict_json(value: object) -> None:
    said = json.dumps(to_plain(value), allow_nan=False, ensure_ascii=False).encode()
    again = from_plain(json.loads(said))
    assert again == value
    assert type(again) is type(value)


def test_what_is_no_number_comes_back() -> None:
    assert math.isnan(from_plain(to_plain(math.nan)))
    assert from_plain(to_plain([math.inf, -math.inf])) == [math.inf, -math.inf]


@pytest.mark.parametrize("said", [{"$bytes": "%"}, {"$int": "x"}, {"$object": 3}, {"$text": 5}, {"$float": []}])
def test_a_mark_that_says_nonsense_is_refused(said: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_plain(said)
