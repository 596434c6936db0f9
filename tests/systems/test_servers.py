"""What URLs of stores say."""

from pathlib import Path

import pytest

from memkeep.config import Config, StoreSettings
from memkeep.engines import logins
from memkeep.engines.base import ServerInspection, ServerTable
from memkeep.engines.catalog import server_engine
from memkeep.errors import UsageError
from memkeep.model import Part, Role
from memkeep.systems import custom_maps, detect_urls, servers
from memkeep.systems.look import Look
from memkeep.systems.maps import recognised


class Known(Look):
    """A server that has one table."""

    def __init__(self, table: ServerTable) -> None:
        super().__init__([])
        self._table = table

    def server(self, url: str) -> ServerInspection:
        return ServerInspection(url=url, version="1", tables=(self._table,))


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


def test_every_point_is_a_record_and_its_text_is_what_the_payload_calls_so() -> None:
    def collection(*columns: str) -> ServerTable:
        return ServerTable(
            name="notes", columns=dict.fromkeys(columns, "text"), vectors={"vector": 4}, key="id", rows=3
        )

    part = Part(name="qdrant/notes", engine="qdrant", role=Role.CANONICAL, path="qdrant://h/notes")
    for columns, fields in (
        (("id", "whatever"), {}),
        (("id", "page_content"), {"text": "page_content"}),
        (("id", "data", "text"), {"text": "text"}),
    ):
        [mapped] = custom_maps.recognised_in(Known(collection(*columns)), [part])
        assert [(one.table, one.id, one.fields, one.primary) for one in mapped.maps] == [("notes", "id", fields, True)]
        assert mapped.maps[0].vectors == ("vector",)


def test_a_password_file_of_the_settings_serves_the_whole_server_of_that_user(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    config = Config(stores={"notes": StoreSettings(path="postgresql://me@h9/notes", password_file=str(file))})
    for url in ("postgresql://me@h9/other", "postgresql://you@h9/notes", "postgresql://me@h9:5433/notes"):
        detect_urls.remember_login(url, config)
    assert logins.password("postgresql://me@h9/third", {}) == "s3cret"
    assert logins.password("postgresql://you@h9/notes", {}) is None
    assert logins.password("postgresql://me@h9:5433/notes", {}) is None


def test_what_a_proxy_puts_before_a_collection_stays() -> None:
    part = servers.collection("qdrant://host:6333/behind/proxy/one", "qdrant", "two words")
    assert part.path == "qdrant://host:6333/behind/proxy/two%20words"
    assert servers.collection("qdrant://host:6333", "qdrant", "one").path == "qdrant://host:6333/one"
