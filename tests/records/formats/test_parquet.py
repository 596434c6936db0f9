from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.records.portable import Given, vector

from memkeep.errors import FileError
from memkeep.records.formats import parquet
from memkeep.records.record import Record, Relationship

MADE = [
    Record(
        id="a",
        text="né",
        heat=0.5,
        tags=("x", "y"),
        access_count=3,
        created_at="2026-01-02T03:04:05.678901+00:00",
        metadata={"n": 1},
        vectors={"": vector(0.1, 0.2, 0.3, model="bge"), "title": vector(1, 2)},
    ),
    Record(id="b", text="", created_at="-0044-03-15T12:00:00+00:00"),
    Record(id="c", text="c", vectors={"": vector(0.5, float("nan"), -0.0)}),
]


def test_duckdb_polars_and_pandas_read_types_and_vectors(tmp_path: Path) -> None:
    parquet.write(Given(*MADE, Relationship(source="a", target="b", type="t", strength=0.5)), tmp_path)
    file = str(tmp_path / "memories.parquet")
    wanted = np.array([0.1, 0.2, 0.3], "<f4")

    with duckdb.connect() as database:
        database.execute("set timezone = 'UTC'")
        row = database.execute(
            "select content, heat, access_count, year(created_at), tags, metadata ->> 'n', embedding::float[3], "
            f"embedding_model, vector_title from '{file}' where id = 'a'"
        ).fetchone()
        joined = database.execute(f"select strength from '{tmp_path}/relationships.parquet'").fetchall()
    assert row is not None
    assert row[:6] == ("né", 0.5, 3, 2026, ["x", "y"], "1")
    assert np.array(row[6], "<f4").tobytes() == wanted.tobytes()
    assert row[7:] == ("bge", [1.0, 2.0])
    assert joined == [(0.5,)]

    frame = pl.read_parquet(file)
    assert frame["embedding"].dtype in (pl.Array(pl.Float32, 3), pl.List(pl.Float32))
    assert frame["embedding"][0].to_numpy().tobytes() == wanted.tobytes()
    assert frame["embedding"].is_null().to_list() == [False, True, False]
    assert frame["created_at"].dtype == pl.Datetime("us", "UTC")

    table = pd.read_parquet(file)
    assert table["embedding"][0].tobytes() == wanted.tobytes()
    assert table["embedding"][0].dtype == np.float32
    assert table["created_at"].dt.year[0] == 2026


def test_vectors_are_lists_of_a_fixed_size_and_each_size_has_its_column(tmp_path: Path) -> None:
    made = [Record(id=str(n), text="", vectors={"": vector(*range(3 if n % 3 else 2))}) for n in range(9)]
    made.append(Record(id="x", text="", vectors={"": vector(1, 2, 3, type="f64", model="m")}))
    parquet.write(Given(*made), tmp_path)
    schema = pq.read_schema(tmp_path / "memories.parquet")
    assert schema.field("embedding").type == pa.list_(pa.float32(), 3)
    assert schema.field("embedding_2").type == pa.list_(pa.float32(), 2)
    assert schema.field("embedding_3_f64").type == pa.list_(pa.float64(), 3)
    assert list(parquet.read(tmp_path)) == made


def test_more_sizes_than_there_are_columns_come_back(tmp_path: Path) -> None:
    made = [Record(id=f"{n:02}", text="", vectors={"": vector(*range(n + 1), model="m")}) for n in range(40)]
    parquet.write(Given(*made), tmp_path)
    assert len([one for one in pq.read_schema(tmp_path / "memories.parquet").names if "embedding" in one]) == 32
    assert list(parquet.read(tmp_path)) == made


def test_names_of_vectors_never_meet_those_of_other_columns(tmp_path: Path) -> None:
    names = ["", "a", "a_model", "a_2", "A", "\ud800", "\0"]
    made = [
        Record(id="1", text="", vectors={name: vector(n + 0.5, model=name) for n, name in enumerate(names)}),
        Record(id="2", text="", vectors={"a": vector(1, 2)}),
    ]
    parquet.write(Given(*made), tmp_path)
    assert list(parquet.read(tmp_path)) == made


def test_a_table_that_another_program_wrote_again_is_read(tmp_path: Path) -> None:
    parquet.write(Given(*MADE[:1]), tmp_path)
    there = tmp_path / "again" / "memories.parquet"
    there.parent.mkdir()
    with duckdb.connect() as database:
        database.execute("set timezone = 'UTC'")
        database.execute(f"copy (from '{tmp_path}/memories.parquet') to '{there}'")
    assert list(parquet.read(there.parent)) == MADE[:1]


@pytest.mark.parametrize("cut", [0, 10, 100, -1])
def test_a_broken_file_is_named(tmp_path: Path, cut: int) -> None:
    parquet.write(Given(*MADE), tmp_path)
    file = tmp_path / "memories.parquet"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(FileError, match=r"memories\.parquet"):
        list(parquet.read(tmp_path))
