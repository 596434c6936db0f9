"""Records that come into an OpenMemory whose users, apps and categories are there under ids of its own."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import memkeep
from memkeep.ops.migrate import change_of, migrate
from memkeep.ops.open import open_vault
from memkeep.vault.vault import Vault

Copy = Callable[..., Path]
REFERENCES = {
    "users": (("apps", "owner_id"), ("memories", "user_id"), ("memory_status_history", "changed_by")),
    "categories": (("memory_categories", "category_id"),),
    "memories": (
        ("memory_categories", "memory_id"),
        ("memory_status_history", "memory_id"),
        ("memory_access_logs", "memory_id"),
    ),
}
DANGLING = """
SELECT (SELECT count(*) FROM memories m LEFT JOIN users u ON u.id = m.user_id LEFT JOIN apps a ON a.id = m.app_id
        WHERE u.id IS NULL OR a.id IS NULL)
     + (SELECT count(*) FROM memory_categories mc LEFT JOIN categories c ON c.id = mc.category_id WHERE c.id IS NULL)
"""


def new_vault(folder: Path) -> Vault:
    memkeep.init_vault(folder / "vault", password="x")
    return open_vault(str(folder / "vault"), "x")


def ask(store: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(store / "api" / "openmemory.db")) as con:
        return con.execute(sql).fetchall()


def test_a_user_who_is_there_keeps_the_id_that_is_there(copy_store: Copy, tmp_path: Path) -> None:
    target, source = copy_store("openmemory"), copy_store("pro-1.1.0-beta.11") / "lancedb-pro"
    users = ask(target, "SELECT * FROM users ORDER BY id")
    result = migrate(new_vault(tmp_path), str(source), str(target), changes=[change_of("user=marta")])
    assert result.merged is not None
    assert not result.merged.failed
    assert ask(target, "SELECT * FROM users ORDER BY id") == users
    assert ask(target, DANGLING) == [(0,)]
    [(marta,)] = ask(target, "SELECT id FROM users WHERE user_id = 'marta'")
    texts = {row[0] for row in ask(target, f"SELECT content FROM memories WHERE user_id = '{marta}'")}
    assert "Generated memory 39 about topic 6" in texts


def test_another_store_s_users_and_categories_become_those_of_their_names(copy_store: Copy, tmp_path: Path) -> None:
    target, source = copy_store("openmemory"), copy_store("openmemory")
    with closing(sqlite3.connect(source / "api" / "openmemory.db")) as con, con:
        for table, places in REFERENCES.items():
            for (old,) in con.execute(f"SELECT id FROM {table} WHERE typeof(id) = 'text'").fetchall():
                new = ("f" if old[0] != "f" else "e") + old[1:]
                for name, column in ((table, "id"), *places):
                    con.execute(f"UPDATE {name} SET {column} = ? WHERE {column} = ?", (new, old))
    names = "SELECT user_id FROM users UNION ALL SELECT name FROM categories ORDER BY 1"
    before, memories = ask(target, names), ask(target, "SELECT count(*) FROM memories")[0][0]
    result = migrate(new_vault(tmp_path), str(source), str(target))
    assert result.merged is not None
    assert not result.merged.failed
    assert ask(target, names) == before
    assert ask(target, DANGLING) == [(0,)]
    assert ask(target, "SELECT count(*) FROM memories")[0][0] > memories + 50
