import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.records.relaxed import loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def relaxed(value: Any) -> str:
    """Spell a value with all that the relaxed form allows."""
    if isinstance(value, dict):
        inside = "".join(f"/* k */ {relaxed(key)}: {relaxed(item)}, // , ]}}\n" for key, item in value.items())
        return "{" + inside + "}"
    if isinstance(value, list):
        return "[" + "".join(f"{relaxed(item)} ,\n" for item in value) + "]"
    if isinstance(value, str):
        body = json.dumps(value)[1:-1].replace('\\"', '"').replace("'", "\\'")
        return f"'{body}'"
    return json.dumps(value)


@pytest.mark.property
@given(VALUES)
def test_strict_json_reads_as_the_standard_reader_reads_it(value: Any) -> None:
    assert loads(json.dumps(value)) == value
    assert loads(json.dumps(value, ensure_ascii=False, indent=1)) == value


@pytest.mark.property
@given(VALUES)
def test_comments_trailing_commas_and_single_quotes_change_nothing(value: Any) -> None:
    assert loads(relaxed(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: 1, $b_2: 2, 'c-d': 3, é: 4}", {"a": 1, "$b_2": 2, "c-d": 3, "é": 4}),
        ("// first\n{ /* in\nside */ a: [1, 2,], }\n// last", {"a": [1, 2]}),
        ("{url: 'http://x//y', not: '/* here */'}", {"url": "http://x//y", "not": "/* here */"}),
        ("[.5, 5., +3, -0x1F, 1e3, -.25e2]", [0.5, 5.0, 3, -31, 1000.0, -25.0]),
        ("'it\\'s \\x41\\u00e9\\v \\\nnext'", "it's Aé\v next"),
        ("{true: true, null: null}", {"true": True, "null": None}),
        ("'\\ud83d\\ude00'", "😀"),
        ("\ufeff{a: 1}", {"a": 1}),
    ],
)
def test_the_relaxed_form_is_read(text: str, value: Any) -> None:
    assert loads(text) == value


def test_numbers_without_end_are_read() -> None:
    positive, negative, nothing = loads("[Infinity, -Infinity, NaN,]")
    assert (positive, negative) == (math.inf, -math.inf)
    assert math.isnan(nothing)


@pytest.mark.parametrize(
    "text",
    ["", "// only", "{", "{a}", "{a:1}}", "{'a", "{a: tru e}", "{a:1 b:2}", "/*", "nul", "{a: 'x\ny'}", "[1 2]", "\\"],
)
def test_what_is_neither_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_an_error_names_the_line() -> None:
    with pytest.raises(ValueError, match="line 3: '#"):
        loads("{\n  a: 1,\n  # b\n}")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a:" * 100_000, "[,".replace(",", "1,[") * 50_000])
def test_nesting_without_end_is_an_error_and_no_crash(text: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        loads(text)
