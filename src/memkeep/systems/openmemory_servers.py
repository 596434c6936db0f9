"""Where OpenMemory keeps its vectors, and its tables when they are not in SQLite: what its own settings say.

The vector store is told by the row `main` of `configs`, else by variables in the order in which the product asks for
them, else it is Qdrant at the host `mem0_store`. The variables are those of this process, of the compose file, of
`api/.env` and of `.env`, the first that says something. A server that can't be asked now is a part all the same, so
that a backup says that it could not be read.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from memkeep.engines import logins
from memkeep.engines.catalog import SCHEMES
from memkeep.errors import StoreError
from memkeep.model import Finding, Part, Role, Severity
from memkeep.systems import compose, marks, servers
from memkeep.systems.compose import Compose, Service
from memkeep.systems.look import Look
from memkeep.systems.openclaw_json import dig
from memkeep.systems.openmemory_maps import ALL, CONFIGS, POINTS, point_map, table_maps

DATABASE = "DATABASE_URL"
COLLECTION = "openmemory"
_STORAGE = "/qdrant/storage"
_QDRANT_PORT, _POSTGRES_PORT = 6333, 5432
_OTHER_STORES = {
    "CHROMA_HOST": "Chroma",
    "WEAVIATE_CLUSTER_URL": "Weaviate",
    "WEAVIATE_HOST": "Weaviate",
    "REDIS_URL": "Redis",
    "MILVUS_HOST": "Milvus",
    "ELASTICSEARCH_HOST": "Elasticsearch",
    "OPENSEARCH_HOST": "OpenSearch",
    "FAISS_PATH": "FAISS",
}
_ASKED = ("CHROMA_HOST", "QDRANT_URL", "QDRANT_HOST", "WEAVIATE_CLUSTER_URL", "WEAVIATE_HOST", "REDIS_URL", "PG_HOST")
_ORDER = (*_ASKED, "MILVUS_HOST", "ELASTICSEARCH_HOST", "OPENSEARCH_HOST", "FAISS_PATH")


class Said(NamedTuple):
    """All that says where things are."""

    root: Path
    compose: Compose | None
    given: Mapping[str, str]  # by this process
    written: Mapping[str, str]  # by the compose file and the `.env` files
    config: object  # the value of the row `main`


class Served(NamedTuple):
    """The parts that lie in servers, and what was noticed."""

    parts: list[Part]
    findings: list[Finding]


def said(root: Path, api: Path, environ: Mapping[str, str], config: object) -> Said:
    """Return what the files of a store and the environment say."""
    file = compose.read(root, environ)
    service = _api(file)
    written = {**compose.dotenv(root / ".env"), **compose.dotenv(api / ".env")}
    return Said(root, file, environ, {**written, **(service.environment if service else {})}, config)


def is_ours(file: Compose | None) -> bool:
    """Say whether a compose file starts OpenMemory."""
    return file is not None and any("openmemory" in f"{one.name} {one.image}".lower() for one in file.services.values())


def tables_url(told: Said, *, alone: bool) -> str:
    """Return the URL of the Postgres that has the tables, as it is reached from here; "" when they are in SQLite.

    A `DATABASE_URL` of this process counts only when there is no database file (`alone`): many programs have one.
    """
    url = told.written.get(DATABASE) or (told.given.get(DATABASE, "") if alone else "")
    if not url.startswith(("postgres:", "postgresql")):
        return ""
    pieces = urlsplit(url)
    at = compose.reached(told.compose, pieces.hostname or "localhost", pieces.port or _POSTGRES_PORT)
    if at is None or not at[1]:
        return logins.clean(url)
    login = pieces.netloc.rpartition("@")[0]
    host = at[0] if at[0] != pieces.hostname or pieces.port else pieces.hostname
    return logins.clean(pieces._replace(netloc=f"{login}@{host}:{at[1]}" if login else f"{host}:{at[1]}").geturl())


def tables_part(look: Look, url: str) -> Served:
    """Return the part that OpenMemory's tables in a Postgres are; no part when they are not there."""
    part = Part(name="postgres", engine="postgres", role=Role.CANONICAL, path=url)
    try:
        there = {table.name: list(table.columns) for table in look.server(url).tables}
    except StoreError as error:
        tables = tuple(f"public.{name}" for name in ALL if name != CONFIGS)
        return Served([msgspec.structs.replace(part, include=tables), _keys(url, "public")], [_unread(part, error)])
    for schema in dict.fromkeys(name.rpartition(".")[0] for name in there):
        mine = {name: there[f"{schema}.{name}"] for name in ALL if f"{schema}.{name}" in there}
        if marks.is_openmemory(mine):
            tables = tuple(f"{schema}.{name}" for name in mine if name != CONFIGS)
            found = [msgspec.structs.replace(part, include=tables, maps=table_maps(mine, schema))]
            return Served([*found, *([_keys(url, schema)] if CONFIGS in mine else [])], [])
    return Served([], [])


def _keys(url: str, schema: str) -> Part:
    """Return the part that the table with the settings is: it can hold literal API keys."""
    included = (f"{schema}.{CONFIGS}",)
    return Part(name="postgres-settings", engine="postgres", role=Role.SECRET, path=url, include=included)


def vectors(look: Look, told: Said, *, memories: int | None, local: bool) -> Served:
    """Return the parts with the vectors; `local` says that there is a folder of Qdrant's local mode."""
    config = dig(told.config, "mem0", "vector_store")
    given = next((name for name in _ORDER if told.given.get(name)), "")
    if not given and isinstance(dig(config, "provider"), str):
        return _configured(look, told, str(dig(config, "provider")), dig(config, "config") or {}, memories)
    name = str(dig(config, "config", "collection_name") or COLLECTION)
    asked = given or next((name for name in _ORDER if told.written.get(name)), "")
    if asked:
        return _as_asked(look, told, asked, told.given if given else told.written, name, memories)
    service = _qdrant_service(told.compose)
    if service is not None:
        return _qdrant(look, told, _at(told, service.name, str(_QDRANT_PORT), _key_of(told, service)), name, memories)
    return Served([], []) if local else _elsewhere(told, "nothing says where they are: no compose file, no variable")


def _as_asked(look: Look, told: Said, asked: str, values: Mapping[str, str], name: str, memories: int | None) -> Served:
    """Return the parts with the vectors, as variables say it."""
    if asked == "QDRANT_URL":
        return _qdrant(look, told, _of_http(values[asked], values.get("QDRANT_API_KEY", "")), name, memories)
    if asked == "QDRANT_HOST":
        url = _at(told, values[asked], values.get("QDRANT_PORT", ""), values.get("QDRANT_API_KEY", ""))
        return _qdrant(look, told, url, name, memories)
    if asked == "PG_HOST":
        at = values[asked], _number(values.get("PG_PORT"), _POSTGRES_PORT)
        login = values.get("PG_USER", "mem0"), values.get("PG_PASSWORD", "mem0")
        return _pgvector(look, told, at, login, values.get("PG_DB", "mem0"), name)
    return _elsewhere(told, f"they are in {_OTHER_STORES[asked]}, which memkeep does not read")


def volume_findings(file: Compose | None) -> list[Finding]:
    """Return a finding when the vectors lie in no volume, as in the compose file that the product came with."""
    service = _qdrant_service(file)
    if service is None or file is None:
        return []
    storage = service.environment.get("QDRANT__STORAGE__STORAGE_PATH") or _STORAGE
    if any(f"{storage}/".startswith(f"{path.rstrip('/')}/") for _, path in service.mounts):
        return []
    where = ", ".join(path for _, path in service.mounts) or "nothing"
    return [
        Finding(
            code="vectors_not_in_volume",
            severity=Severity.WARNING,
            message=f"{file.file} mounts {where} for {service.name}, and Qdrant writes {storage}: the volume is empty,"
            " and `docker compose down` loses all vectors",
            mend=f"back up first, then mount the volume at {storage} and restore --in-place",
        )
    ]


def _key_of(told: Said, service: Service) -> str:
    """Return the API key of the Qdrant that the compose file starts, as it or the product is told it; "" without."""
    return told.written.get("QDRANT_API_KEY") or service.environment.get("QDRANT__SERVICE__API_KEY", "")


def _api(file: Compose | None) -> Service | None:
    """Return the service that is the product's own server."""
    services = list(file.services.values()) if file is not None else []
    for one in services:
        if one.build.strip("./") == "api" or "mcp" in f"{one.name} {one.image}".lower():
            return one
    wanted = {DATABASE, *_ORDER}
    return next((one for one in services if wanted & one.environment.keys()), None)


def _qdrant_service(file: Compose | None) -> Service | None:
    services = file.services.values() if file is not None else ()
    return next((one for one in services if "qdrant" in one.image.lower()), None)


def _configured(look: Look, told: Said, provider: str, config: object, memories: int | None) -> Served:
    name = str(dig(config, "collection_name") or COLLECTION)
    host, port, url = (dig(config, key) for key in ("host", "port", "url"))
    if provider == "qdrant" and dig(config, "path"):
        return Served([], [])
    if provider == "qdrant":
        key = dig(config, "api_key")
        secret = key if isinstance(key, str) and not key.startswith("env:") else told.written.get("QDRANT_API_KEY", "")
        if isinstance(url, str) and url:
            return _qdrant(look, told, _of_http(url, secret), name, memories)
        return _qdrant(look, told, _at(told, str(host or "mem0_store"), str(port or ""), secret), name, memories)
    if provider == "pgvector":
        login = str(dig(config, "user") or "mem0"), str(dig(config, "password") or "")
        where = str(host or "localhost"), _number(port, _POSTGRES_PORT)
        return _pgvector(look, told, where, login, str(dig(config, "dbname") or "mem0"), name)
    return _elsewhere(told, f"they are in {provider}, which memkeep does not read")


def _at(told: Said, host: str, port: str, secret: str) -> str:
    """Return the URL of the Qdrant at a host and port as a service sees them; "" when it can't be reached from here."""
    at = compose.reached(told.compose, host, _number(port, _QDRANT_PORT))
    if at is None or not at[1]:
        return ""
    return _remembered(f"qdrant://{at[0]}:{at[1]}", secret)


def _number(said: object, usual: int) -> int:
    return int(str(said)) if str(said).isdecimal() else usual


def _of_http(url: str, secret: str) -> str:
    pieces = urlsplit(url if "://" in url else f"http://{url}")
    scheme = "qdrants" if pieces.scheme == "https" else "qdrant"
    host = f"[{pieces.hostname}]" if ":" in (pieces.hostname or "") else pieces.hostname
    return _remembered(f"{scheme}://{host}:{pieces.port or _QDRANT_PORT}", secret)


def _remembered(url: str, secret: str) -> str:
    if secret:
        logins.remember(url, secret)
    return url


def _qdrant(look: Look, told: Said, url: str, name: str, memories: int | None) -> Served:
    if not url:
        return _elsewhere(told, "the compose file does not publish the port of Qdrant")
    part = servers.collection(url, SCHEMES["qdrant"], name)
    part = msgspec.structs.replace(part, maps=(point_map(name, POINTS),))
    try:
        there = [table.name for table in look.server(url).tables]
    except StoreError as error:
        return Served([part], [_unread(part, error)])
    if name not in there and memories == 0:
        return Served([], [])  # it is made with the first memory
    beside = [each for each in (f"{name}_entities", "mem0migrations") if each in there]
    others = [
        msgspec.structs.replace(servers.collection(url, part.engine, each), maps=(point_map(each, each),))
        for each in beside
    ]
    return Served([part, *others], [])


def _pgvector(look: Look, told: Said, at: tuple[str, int], login: tuple[str, str], database: str, name: str) -> Served:
    here = compose.reached(told.compose, *at)
    if here is None or not here[1]:
        return _elsewhere(told, "the compose file does not publish the port of Postgres")
    user, secret = (quote(each, safe="") for each in login)
    url = logins.clean(f"postgresql://{user}{':' if secret else ''}{secret}@{here[0]}:{here[1]}/{quote(database)}")
    part = Part(name="postgres-vectors", engine="postgres", role=Role.CANONICAL, path=url, include=(f"public.{name}",))
    try:
        there = {table.name: table for table in look.server(url).tables}
    except StoreError as error:
        return Served([part], [_unread(part, error)])
    names = [each for each in there if each.rpartition(".")[2] in {name, f"{name}_entities", "mem0migrations"}]
    maps = tuple(
        point_map(
            each,
            POINTS if each.rpartition(".")[2] == name else each.rpartition(".")[2],
            payload="payload.",
            vectors=there[each].vectors,
        )
        for each in names
    )
    return Served([msgspec.structs.replace(part, include=tuple(names) or part.include, maps=maps)], [])


def _elsewhere(told: Said, why: str) -> Served:
    return Served(
        [],
        [
            Finding(
                code="vectors_elsewhere",
                severity=Severity.WARNING,
                message=f"no vectors are kept: {why}",
                mend=f"QDRANT_HOST=127.0.0.1 QDRANT_PORT=6333 memkeep backup {shlex.quote(str(told.root))}",
            )
        ],
    )


def _unread(part: Part, error: StoreError) -> Finding:
    """Return the finding that a backup makes of it too, so that it is said once."""
    return Finding(code="part_unread", severity=Severity.ERROR, part=part.name, message=error.message, mend=error.hint)
