"""Any record through every format and back is equal, or what is lost was named beforehand."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.records.portable import Given, plain, records, relationships, unordered

from memkeep.records.formats.base import Format
from memkeep.records.formats.catalog import FORMATS
from memkeep.records.readers.base import Refused
from memkeep.records.record import Portable

pytestmark = pytest.mark.property
LOSSLESS = [one for one in FORMATS if one.lossless]
LOSSY = [one for one in FORMATS if not one.lossless]
any_records = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
made = st.lists(records | relationships, max_size=4)


def back(format: Format, source: Given) -> list[Portable]:
    with tempfile.TemporaryDirectory() as folder:
        format.write(source, Path(folder))
        found = list(format.read(Path(folder)))
    assert not [one for one in found if isinstance(one, Refused)]
    return found  # type: ignore[return-value]  # nothing was refused


@pytest.mark.parametrize("format", LOSSLESS, ids=lambda one: one.name)
@any_records
@given(made=made)
def test_any_record_comes_back_equal(format: Format, made: list[Portable]) -> None:
    assert unordered(back(format, Given(*made))) == unordered(made)
    assert not [loss for one in made for loss in format.losses(one)]


@pytest.mark.parametrize("format", LOSSY, ids=lambda one: one.name)
@any_records
@given(one=records | relationships)
def test_what_does_not_come_back_equal_was_named(format: Format, one: Portable) -> None:
    named = {loss.partition(":")[0].partition(".")[0] for loss in format.losses(one)}
    found = back(format, Given(one))
    if len(found) == 1 and type(found[0]) is type(one):
        differ = {
            field
            for field in one.__struct_fields__
            if repr(plain_field(found[0], field)) != repr(plain_field(one, field))
        }
        assert differ <= named
    else:
        assert named


def plain_field(record: Portable, field: str) -> object:
    whole = plain(record)
    assert isinstance(whole, tuple)
    return dict(whole[1])[repr(field)]
