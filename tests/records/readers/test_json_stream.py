"""Large JSON is read one element at a time; what is damaged does not hide the rest."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.records.readers import json_stream
from memkeep.records.readers.base import Refused
from memkeep.records.readers.json_stream import Element, elements, first_keys, lines, stream_elements

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


class _Slow(io.BytesIO):
    """A stream that gives one byte at a time, so that every cut falls somewhere."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1 if size else 0)


def _whole(found: list[Element | Refused]) -> Any:
    outer: dict[str, Any] = {}
    for each in found:
        assert isinstance(each, Element)
        if each.position is None:
            outer[each.key] = each.value
        else:
            outer.setdefault(each.key, []).append(each.value)
    return outer


@given(st.dictionaries(st.text(), _values, max_size=4), st.sampled_from([None, 2]), st.booleans())
def test_what_was_written_is_read_wherever_the_stream_is_cut(
    value: dict[str, Any],
    indent: int | None,
    ascii_only: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    for stream in (io.BytesIO(data), _Slow(data)):
        found = _whole(list(stream_elements(stream, "f")))
        assert found == {key: item for key, item in json.loads(data).items() if item != []}


def test_an_outer_array_is_read_with_a_mark_before_it() -> None:
    found = list(stream_elements(io.BytesIO(b'\xef\xbb\xbf [1, {"a": ["]"]}]'), "f"))
    assert [(each.key, each.position, each.value) for each in found if isinstance(each, Element)] == [
        ("", 0, 1),
        ("", 1, {"a": ["]"]}),
    ]


@pytest.mark.parametrize(
    ("data", "read", "reason"),
    [
        (b"", 0, "empty"),
        (b"7", 0, "neither an object nor an array"),
        (b'{"a": [1, 2, {"b": ', 2, "middle of a value"),
        (b'{"a": [1, 2', 2, "ends"),
        (b'{"a": [1, "b', 1, "middle of a value"),
        (b'{"a" 1}', 0, "colon"),
        (b"{1: 2}", 0, "key is missing"),
        (b"[1] [2]", 1, "more follows"),
        (b"[1, }]", 1, "is no JSON value"),
    ],
)
def test_a_file_that_ends_early_or_is_broken_gives_what_came_before(data: bytes, read: int, reason: str) -> None:
    *found, refused = stream_elements(io.BytesIO(data), "f")
    assert len(found) == read
    assert isinstance(refused, Refused)
    assert reason in refused.reason


@pytest.mark.parametrize("bad", [b"{nope}", b"[" * 50_000 + b"]" * 50_000, b'"\xff"', b"9" * 5_000, b'{"a": tru}'])
def test_an_element_that_is_damaged_does_not_hide_the_next(bad: bytes) -> None:
    one, refused, three = stream_elements(io.BytesIO(b'{"m": [1,\n' + bad + b",\n3]}"), "memories.json")
    assert isinstance(refused, Refused)
    assert refused.where == "memories.json, line 2, m[1]"
    assert [each.value for each in (one, three) if isinstance(each, Element)] == [1, 3]


def test_an_element_larger_than_any_record_is_not_taken_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "LIMIT", 1000)
    monkeypatch.setattr(json_stream, "_STEP", 100)
    (refused,) = stream_elements(io.BytesIO(b'["' + b"x" * 10_000 + b'"]'), "f")
    assert isinstance(refused, Refused)
    (refused,) = json_stream.stream_lines(io.BytesIO(b"x" * 10_000), "f")
    assert isinstance(refused, Refused)


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": \n{"a": NaN}')
    one, refused, three = lines(file)
    assert isinstance(one, Element)
    assert one.value == {"a": 1}
    assert isinstance(refused, Refused)
    assert refused.where == "m.jsonl, line 3"
    assert isinstance(three, Element)


def test_the_first_keys_tell_what_a_file_is(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text('{"a": 1, "b": [{"x": 2}, 3], "c": 4}')
    assert first_keys(file, 2) == {"a": 1, "b": {"x": 2}}
    assert first_keys(tmp_path / "none", 2) == {}
    file.write_bytes(b"\x00\x01")
    assert first_keys(file, 2) == {}
    assert next(iter(elements(file))).__class__ is Refused
