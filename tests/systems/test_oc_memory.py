import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.model import Role, Store

Find = Callable[..., list[Store]]


@pytest.mark.real
def test_a_real_store_is_its_one_database(copy_store: Callable[..., Path], stores: Path, find: Find) -> None:
    truth = json.loads((stores / "oc-memory" / "truth.json").read_text())
    root = copy_store("oc-memory")
    (store,) = find(root)
    assert (store.path, store.root) == (str(root / "memory.db"), str(root))
    assert store.records == truth["cells"]["total"]
    assert store.fingerprint == {"embedding": {"dims": 768}}
    (part,) = store.parts
    assert (part.name, part.engine, part.role) == ("memory.db", "sqlite", Role.CANONICAL)
    cells, scenes = part.maps
    assert (cells.collection, cells.id, cells.primary, cells.vectors) == ("cells", "id", True, ("embedding",))
    assert cells.fields == {
        "text": "content",
        "category": "cell_type",
        "scope": "scene",
        "source": "source",
        "tags": "tags",
        "importance": "salience",
        "created_at": "created_at",
        "updated_at": "updated_at",
    }
    assert cells.times == {"created_at": "iso", "updated_at": "iso"}
    assert (scenes.collection, scenes.id, scenes.primary) == ("scenes", "scene", False)
    assert (scenes.fields["text"], scenes.vectors) == ("summary", ("summary_embedding",))


def test_a_table_of_the_first_release_has_no_tags(make: Any, find: Find, tmp_path: Path) -> None:
    make.cells(tmp_path / "mémoire 1.sqlite")
    (store,) = find(tmp_path)
    assert (store.system, store.records, store.fingerprint) == ("oc-memory", 1, {})
    (part,) = store.parts
    assert part.name == "mémoire 1.sqlite"
    assert "tags" not in part.maps[0].fields
    assert [each.collection for each in part.maps] == ["cells"]


def test_two_databases_in_a_folder_are_two_stores(make: Any, find: Find, tmp_path: Path) -> None:
    make.cells(tmp_path / "a.db")
    make.cells(tmp_path / "b.db")
    make.files(tmp_path, "notes.md")
    assert [store.path for store in find(tmp_path)] == [str(tmp_path / "a.db"), str(tmp_path / "b.db")]


def test_the_other_program_of_that_name_is_not_it(make: Any, find: Find, tmp_path: Path) -> None:
    script = "CREATE TABLE memories(id TEXT PRIMARY KEY, content TEXT, title TEXT, memory_type TEXT, embedding BLOB);"
    make.database(tmp_path / "memory.db", script)
    (store,) = find(tmp_path / "memory.db")
    assert store.system == "custom"
