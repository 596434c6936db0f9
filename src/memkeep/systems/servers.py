"""What a URL names: the server's collections or tables, as parts of a store.

    qdrant://host:6333/collection    one collection; without a name all of them (`qdrants://` over TLS)
    postgresql://user@host/database  all tables of the database; `?table=a&table=schema.b` names some of them

`thanos:postgresql://...` says whose store it is.
"""

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from memkeep.engines import logins
from memkeep.engines.catalog import server_engine
from memkeep.model import Part, Role
from memkeep.systems.look import Look

_NAMED = re.compile(r"([a-z][a-z0-9-]*):(\w[\w+]*://.*)", re.DOTALL)


def told(text: str) -> tuple[str, str]:
    """Return the system that a URL is prefixed by, "" for none, and the URL without its secrets, which are kept."""
    named = _NAMED.fullmatch(text)
    system, url = (named[1], named[2]) if named else ("", text)
    return system, logins.clean(url)


def parts_of(look: Look, url: str) -> list[Part]:
    """Return the parts that a server has at a URL without secrets, not mapped yet."""
    url, only = without_tables(url)
    seen = [table for table in look.server(url).tables if not only or table.name in only]
    engine = server_engine(url).name
    if engine == "postgres":
        names = tuple(table.name for table in seen)
        return [Part(name=engine, engine=engine, role=Role.CANONICAL, path=url, include=names)] if seen else []
    return [collection(url, engine, table.name) for table in seen]


def unasked(url: str) -> Part:
    """Return the part that a server's URL names, when the server can't be asked what it has there."""
    url, only = without_tables(url)
    engine = server_engine(url).name
    name = urlsplit(url).path.strip("/")
    if engine == "postgres" or not name:
        return Part(name=engine, engine=engine, role=Role.CANONICAL, path=url, include=tuple(sorted(only)))
    return collection(url, engine, unquote(name))


def collection(url: str, engine: str, name: str) -> Part:
    """Return the part that one collection of the server of a URL is, not mapped yet."""
    pieces = urlsplit(url)
    before = pieces.path.rstrip("/").rpartition("/")[0]  # of a proxy
    path = pieces._replace(path=f"{before}/{quote(name, safe='')}").geturl()
    return Part(name=f"{engine}/{quote(name, safe=' ')}", engine=engine, role=Role.CANONICAL, path=path)


def without_tables(url: str) -> tuple[str, frozenset[str]]:
    """Return a database's URL without its `table` options, and the tables that they name, `public` unless said."""
    pieces = urlsplit(url)
    options = parse_qsl(pieces.query, keep_blank_values=True)
    names = frozenset(value if "." in value else f"public.{value}" for name, value in options if name == "table")
    rest = urlencode([(name, value) for name, value in options if name != "table"], quote_via=quote)
    return url.partition("?")[0] + (f"?{rest}" if rest else ""), names


def dims(look: Look, part: Part) -> dict[str, int]:
    """Return the dimensions of a part's first column of vectors, as a fingerprint has them; empty for none."""
    sizes = [size for table in look.collections(part) for size in table.vectors.values() if size]
    return {"dims": sizes[0]} if sizes else {}
