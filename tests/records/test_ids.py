"""Ids for products that have another kind of id."""

import uuid

from memkeep.records.ids import as_number, as_uuid


def test_an_id_of_bytes_that_are_no_text_has_ids_too() -> None:
    odd = b"id \xff".decode(errors="surrogateescape")
    assert uuid.UUID(as_uuid("custom", odd)).version == 5
    assert as_uuid("custom", odd) != as_uuid("custom", "id ?")
    assert as_number("custom", odd).isdigit()
