import pytest

from memkeep.systems.maps import notes, recognised, record_tables, table_map


def test_a_mapping_names_only_columns_that_exist() -> None:
    found = table_map(
        "c",
        "t",
        ["id", "words", "at"],
        fields={"text": "words", "scope": "who", "created_at": "at", "updated_at": "changed"},
        vectors=("emb",),
        times={"created_at": "s", "updated_at": "s"},
    )
    assert found is not None
    assert (found.fields, found.vectors) == ({"text": "words", "created_at": "at"}, ())
    assert found.times == {"created_at": "s"}
    assert table_map("c", "t", ["words"]) is None


def test_index_tables_are_not_record_tables() -> None:
    shadows = [f"mem_fts_{end}" for end in ("data", "idx", "content", "docsize", "config")]
    shadows += [f"vec_{end}" for end in ("chunks", "rowids", "info", "vector_chunks00", "metadatachunks01")]
    tables: dict[str, list[str]] = {name: [] for name in ("mem", "mem_fts_notes", "vector", "vec_text", *shadows)}
    assert record_tables(tables, {"mem_fts": "fts5", "vec": "vec0"}) == ["mem", "mem_fts_notes", "vector", "vec_text"]


@pytest.mark.parametrize(
    "table", ["sqlite_sequence", "meta", "schema_meta", "settings", "alembic_version", "schema_migrations", "app_state"]
)
def test_housekeeping_holds_no_records(table: str) -> None:
    assert recognised(table, ["id", "key", "value"]) is None


def test_a_table_without_texts_holds_no_records() -> None:
    assert recognised("points", ["id", "x", "y", "embedding"]) is None


def test_without_a_usual_id_the_rowid_names_records_where_there_is_one() -> None:
    found = recognised("log", ["at", "content"])
    assert found is not None
    assert found.id == "rowid"
    assert recognised("log", ["at", "content"], key=None) is None


def test_the_first_of_the_usual_names_wins() -> None:
    found = recognised("t", ["summary", "user_id", "scope", "text", "uuid", "id", "content", "Embedding", "vec"])
    assert found is not None
    assert (found.id, found.fields, found.vectors) == (
        "id",
        {"text": "content", "scope": "scope"},
        ("Embedding", "vec"),
    )


def test_notes_are_named_by_their_path() -> None:
    found = notes("pages", include=("*.md",))
    assert (found.collection, found.table, found.id, found.include) == ("pages", "", "path", ("*.md",))
    assert found.times == {"updated_at": "iso"}
