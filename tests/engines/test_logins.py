"""Secrets of servers: out of every URL that is kept, and given back to who connects."""

from pathlib import Path

import pytest

from memkeep.engines import logins
from memkeep.errors import StoreError


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "_known", {})


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("postgresql://me:s3cret@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgres://me:s3cret@host/db?sslmode=require", "postgresql://me@host/db?sslmode=require"),
        ("postgresql+psycopg2://me:s3cret@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?user=me&password=s3cret", "postgresql://host/db?user=me"),
        ("postgresql://me:s3cret@one:1,two:2/db", "postgresql://me@one:1,two:2/db"),
        ("postgresql:///db?host=/var/run/pg&password=s3cret", "postgresql:///db?host=%2Fvar%2Frun%2Fpg"),
        ("qdrant://:s3cret@host:6333/memories", "qdrant://host:6333/memories"),
        ("qdrants://host/memories/?api_key=s3cret", "qdrants://host/memories"),
    ],
)
def test_what_is_secret_in_a_url_is_taken_out_and_remembered(url: str, bare: str) -> None:
    assert logins.clean(url) == bare
    assert logins.password(bare, {}) == "s3cret"


def test_a_url_without_a_secret_is_left_as_it_is() -> None:
    assert logins.clean("qdrant://host:6333/a%20b") == "qdrant://host:6333/a%20b"
    assert logins.password("qdrant://host:6333/a", {}) is None


def test_odd_passwords_come_out_as_they_were_meant() -> None:
    logins.clean("postgresql://me:p%40ss%2Fw%3Ard@host/db")
    assert logins.password("postgresql://me@host/other", {}) == "p@ss/w:rd"


def test_a_secret_is_of_one_server_and_one_user() -> None:
    logins.clean("postgresql://me:s3cret@host/db")
    assert logins.password("postgresql://you@host/db", {}) is None
    assert logins.password("postgresql://me@other/db", {}) is None


def test_the_environment_is_asked_for_what_no_url_said(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from a file\nand more\n")
    assert logins.password("qdrant://host", {"QDRANT_API_KEY": "x"}, "QDRANT_API_KEY") == "x"
    assert logins.password("qdrant://host", {"QDRANT_API_KEY_FILE": str(file)}, "QDRANT_API_KEY") == "from a file"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        logins.remember_file("qdrant://host", str(tmp_path / "nowhere"))
