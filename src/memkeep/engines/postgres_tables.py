"""What an image of Postgres tables says of itself: `<part>/tables.json`, from which its SQL files are written too."""

from typing import Literal
from urllib.parse import quote as _percent

import msgspec
from blake3 import blake3

from memkeep.errors import StoreError
from memkeep.model import Value

FILE = "tables.json"
FORMAT = 1
_LONGEST = 200  # bytes of a file's name


class Column(Value):
    """A column whose values are in the image; those of generated columns are not."""

    name: str
    type: str  # as SQL writes it, e.g. `vector(1536)`
    kind: str  # the type's bare name, of a domain that of its base: `int4`, `_text` (an array of text), `vector`
    form: Literal["binary", "text", "vector"] = (
        "binary"  # text: its binary form has numbers that only that database knows
    )


class Sequence(Value):
    """A sequence of a table's column."""

    name: str  # quoted, with its schema
    create: str  # "" for one that an identity column brings along
    finish: tuple[str, ...] = ()  # who owns it, where it stands


class Function(Value):
    """A function that a table needs."""

    name: str  # quoted, with its schema and the types of its arguments
    create: str
    when: Literal["before", "rows", "last"] = "before"  # the tables; once there are rows; tried last, and said


class Table(Value):
    """One table: where its rows lie in the image, and the statements that make it."""

    schema: str
    name: str
    folder: str  # under the part's
    columns: tuple[Column, ...]
    rows: int
    key: tuple[str, ...] = ()  # the columns of the primary key
    segments: tuple[str, ...] = ()  # file names below `rows/`, in the order of the rows
    create: tuple[str, ...] = ()
    finish: tuple[str, ...] = ()  # keys, checks, indexes
    links: tuple[str, ...] = ()  # foreign keys
    extras: tuple[str, ...] = ()  # triggers, policies, comments: tried, and said when they don't work
    indexes: tuple[tuple[str, str], ...] = ()  # statement, and the extension that it needs or ""
    whole: bool = False  # it is partitioned, and its rows are those of all its partitions
    within: str = ""  # it is a partition, and its rows are with those of this table

    @property
    def full(self) -> str:
        """The name by which maps and `include` know it."""
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        """The name as SQL writes it."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def source(self) -> str:
        """What SQL reads its rows from."""
        return self.sql if self.whole else f"ONLY {self.sql}"

    @property
    def vectors(self) -> tuple[Column, ...]:
        """The columns that lie in files of their own."""
        return tuple(column for column in self.columns if column.form == "vector")

    @property
    def others(self) -> tuple[Column, ...]:
        """The columns that lie together in `rows/`."""
        return tuple(column for column in self.columns if column.form != "vector")


class Extension(Value):
    """An extension that types or defaults of the tables belong to."""

    version: str
    schema: str


class Tables(Value):
    """All tables of a part, and what has to be there before them."""

    format: int
    server: str = ""
    number: int = 0  # of the server's version, e.g. 180004
    extensions: dict[str, Extension] = {}
    schemas: tuple[str, ...] = ()
    types: dict[str, str] = {}  # name as SQL writes it -> statement that makes it; in the order of making
    collations: dict[str, str] = {}  # the same; made before the types
    functions: tuple[Function, ...] = ()  # in the order of making
    sequences: tuple[Sequence, ...] = ()
    tables: tuple[Table, ...] = ()


def quote(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def file_name(name: str) -> str:
    """Return the file name that stands for any name."""
    safe = _percent(name, safe=" ", errors="surrogatepass")
    return safe if len(safe) <= _LONGEST else f"{safe[:_LONGEST]}-{blake3(safe.encode()).hexdigest(4)}"


def vector_file(column: Column) -> str:
    """Return the file of a column of vectors, under the table's folder."""
    return f"vectors/{file_name(column.name)}.copy"


def encode(tables: Tables) -> bytes:
    """Return the bytes of `tables.json`."""
    return msgspec.json.format(msgspec.json.encode(tables), indent=1)


def decode(data: bytes, where: str) -> Tables:
    """Read `tables.json`; `StoreError` when it is none that this memkeep can read."""
    try:
        found = msgspec.json.decode(data, type=Tables)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{where} does not describe tables: {error}", hint="memkeep verify --all") from error
    if found.format != FORMAT:
        raise StoreError(f"{where} was written by a newer memkeep", hint="pip install --upgrade memkeep")
    return found
