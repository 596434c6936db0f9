"""What URLs of stores say."""

import pytest

from memkeep.engines.catalog import server_engine
from memkeep.errors import UsageError
from memkeep.systems import servers
from memkeep.systems.maps import recognised


def test_a_system_may_be_named_before_a_url() -> None:
    assert servers.told("thanos:postgresql://me@host/db") == ("thanos", "postgresql://me@host/db")
    assert servers.told("postgresql+asyncpg://me@host/db") == ("", "postgresql://me@host/db")
    assert servers.told("qdrant://host:6333/memories") == ("", "qdrant://host:6333/memories")


def test_tables_of_a_database_may_be_named() -> None:
    url, tables = servers.without_tables("postgresql://h/db?table=notes&sslmode=require&table=Odd.Name")
    assert url == "postgresql://h/db?sslmode=require"
    assert tables == {"public.notes", "Odd.Name"}


def test_a_collection_of_any_name_is_one_folder_and_one_url() -> None:
    part = servers.collection("qdrant://host:6333", "qdrant", "a/b ü..")
    assert part.name == "qdrant/a%2Fb %C3%BC.."
    assert part.path == "qdrant://host:6333/a%2Fb%20%C3%BC.."


def test_an_unknown_kind_of_server_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"mysql://host/db.*qdrant://"):
        server_engine("mysql://host/db")


def test_a_key_of_a_payload_is_recognised_by_its_own_name() -> None:
    found = recognised("public.items", ["id", "payload", "payload.text", "payload.created_at", "vec"], key=None)
    assert found is not None
    assert (found.id, found.fields) == ("id", {"text": "payload.text", "created_at": "payload.created_at"})
    assert recognised("public.settings", ["id", "text"]) is None
