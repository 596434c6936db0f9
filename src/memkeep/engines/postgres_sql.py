"""The SQL files of an image, with which `psql` alone can load it."""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

from memkeep.engines.postgres_tables import Table, Tables, quote, text, vector_file

_ROW = "memkeep_row"


def before(image: Tables) -> list[str]:
    """Return what makes the types, sequences, functions and tables."""
    made = [f"CREATE SCHEMA IF NOT EXISTS {quote(name)}" for name in schemas(image)]
    made += [
        f"CREATE EXTENSION IF NOT EXISTS {quote(name)} WITH SCHEMA {quote(one.schema)}"
        for name, one in image.extensions.items()
    ]
    made += [*image.collations.values(), *image.types.values()]
    made += [one.create for one in image.sequences if one.create]
    made += [one.create for one in image.functions if one.when == "before"]
    return made + [statement for table in image.tables for statement in table.create]


def after(image: Tables) -> list[str]:
    """Return what makes keys, indexes, foreign keys and so on, once the rows are there."""
    tables = children_first(image)
    made = [one.create for one in image.functions if one.when == "rows"]
    made += [statement for table in tables for statement in table.finish]
    made += [statement for table in tables for statement, _ in table.indexes]
    made += [statement for table in tables for statement in table.links]
    made += [statement for one in image.sequences for statement in one.finish]
    made += [one.create for one in image.functions if one.when == "last"]
    return made + [statement for table in tables for statement in table.extras]


def children_first(image: Tables) -> list[Table]:
    """Return the tables so that a key of a partitioned table finds those of its partitions, and takes them over."""
    return list(reversed(image.tables))


def schemas(image: Tables) -> list[str]:
    """Return the schemas that have to be there."""
    return sorted({*image.schemas, *(one.schema for one in image.extensions.values())} - {"pg_catalog"})


def path(image: Tables) -> str:
    """Return the search path with which the statements were written."""
    return ", ".join(sorted({quote(one.schema) for one in image.extensions.values()} | {quote("public")}))


def files(image: Tables) -> dict[str, str]:
    """Return the files by name."""
    load = [line for number, table in enumerate(image.tables) for line in _load(table, number)]
    restore = [
        "-- psql --single-transaction --set ON_ERROR_STOP=1 --file restore.sql, in this folder",
        f"SET LOCAL search_path = {path(image)};",
        "SET LOCAL check_function_bodies = off;",
        r"\i schema.sql",
        *load,
        r"\i finish.sql",
    ]
    return {
        "schema.sql": "".join(f"{statement};\n" for statement in before(image)),
        "finish.sql": "".join(f"{statement};\n" for statement in after(image)),
        "restore.sql": "\n".join(restore) + "\n",
    }


def _load(table: Table, number: int) -> list[str]:
    """Return what fills a table: its columns and its vectors into tables of their own, joined by the row's number."""
    if not table.rows:
        return []
    rows = f"memkeep_{number}"
    others = [f"{quote(one.name)} {'text' if one.form == 'text' else one.type}" for one in table.others]
    lines = [f"CREATE TEMP TABLE {rows} ({', '.join([f'{_ROW} bigserial', *others])});"]
    names = "".join(f"{quote(one.name)}, " for one in table.others)[:-2]
    if not names:
        lines.append(f"INSERT INTO {rows} SELECT FROM generate_series(1, {table.rows});")
    else:
        lines += [_copy(f"{rows} ({names})", f"{table.folder}/rows/{name}") for name in table.segments]
    source = rows
    for i, column in enumerate(table.vectors):
        lines.append(f"CREATE TEMP TABLE {rows}_{i} ({_ROW} bigserial, dims smallint, v{i} {column.type});")
        lines.append(_copy(f"{rows}_{i} (dims, v{i})", f"{table.folder}/{vector_file(column)}"))
        source += f" JOIN {rows}_{i} USING ({_ROW})"
    targets = [quote(one.name) for one in (*table.others, *table.vectors)]
    values = [f"{quote(one.name)}::{one.type}" if one.form == "text" else quote(one.name) for one in table.others]
    values += [f"v{i}" for i in range(len(table.vectors))]
    into = f" ({', '.join(targets)}) OVERRIDING SYSTEM VALUE" if targets else ""
    lines.append(f"INSERT INTO {table.sql}{into} SELECT {', '.join(values)} FROM {source} ORDER BY {_ROW};")
    return lines


def _copy(table: str, file: str) -> str:
    return rf"\copy {table} FROM {text(file)} WITH (FORMAT binary)"
