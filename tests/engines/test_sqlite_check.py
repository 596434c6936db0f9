"""Damage inside a database is found and named, and looking for it changes nothing."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.model import Finding, TableMap

FACTS = TableMap(collection="facts", table="facts", id="id", fields={"text": "body"})
SCHEMA = """
CREATE TABLE facts(n INTEGER PRIMARY KEY, id TEXT UNIQUE, body TEXT, note TEXT);
INSERT INTO facts VALUES
  (1, 'a', 'hello, great world', 'x'), (2, 'b', 'good bye moon', 'y'), (3, 'c', 'three things', 'z');
CREATE VIRTUAL TABLE facts_fts USING fts5(
  body, note UNINDEXED, content = 'facts', content_rowid="n", tokenize = "unicode61 tokenchars ',;'", prefix='2 3');
INSERT INTO facts_fts(facts_fts) VALUES ('rebuild');
CREATE VIRTUAL TABLE own_fts USING fts5(body);
INSERT INTO own_fts(rowid, body) SELECT n, body FROM facts;
CREATE VIRTUAL TABLE none_fts USING fts5(body, content='');
INSERT INTO none_fts(rowid, body) SELECT n, body FROM facts;
CREATE VIRTUAL TABLE old_fts USING fts4(body);
INSERT INTO old_fts(body) SELECT body FROM facts;
CREATE VIRTUAL TABLE places USING rtree(id, x0, x1);
INSERT INTO places VALUES (1, 0.0, 1.0);
CREATE TABLE link(child TEXT, parent TEXT REFERENCES facts(id));
"""


@pytest.fixture
def findings_of(
    make_db: Callable[..., Path], take: Callable[..., Any], reopen: Callable[..., Any]
) -> Callable[..., tuple[list[Finding], list[Finding]]]:
    """Return `findings_of(damage, journal="wal")`: what is found in the live database, and in its restored image."""

    def find(damage: str, journal: str = "wal") -> tuple[list[Finding], list[Finding]]:
        path = make_db(SCHEMA, journal=journal)
        con = sqlite3.connect(path, isolation_level=None)
        con.executescript(damage)
        frozen = take(path, FACTS)
        con.close()
        before = frozen.image.read_bytes()
        with reopen(frozen.image, FACTS) as image:
            found = image.check()
            assert image.check() == found
        assert frozen.image.read_bytes() == before
        assert [p.name for p in frozen.image.parent.iterdir()] == ["facts.db"]
        return frozen.checked, found

    return find


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_sound_database_has_no_findings(journal: str, findings_of: Callable[..., Any]) -> None:
    assert findings_of("", journal) == ([], [])


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_row_that_the_index_does_not_know_is_found_even_in_a_live_database(
    journal: str, findings_of: Callable[..., Any]
) -> None:
    for found in findings_of("INSERT INTO facts VALUES (9, 'new', 'not indexed', '');", journal):
        (finding,) = found
        assert (finding.code, finding.severity, finding.part) == ("fts_misaligned", "error", "facts.db")
        assert finding.record == "new"
        assert "facts_fts" in finding.message
        assert "rowid 9" in finding.message
        assert "rebuild" in finding.mend


def test_a_row_that_only_the_index_has_is_found_even_in_a_live_database(findings_of: Callable[..., Any]) -> None:
    for found in findings_of("DELETE FROM facts WHERE n = 2;"):
        (finding,) = found
        assert (finding.code, finding.record) == ("fts_misaligned", "2")


@pytest.mark.parametrize("text", ["four more words here", "good bye sun", "bye good moon"])
def test_a_text_that_changed_without_its_index_is_found_in_an_image(text: str, findings_of: Callable[..., Any]) -> None:
    live, restored = findings_of(f"UPDATE facts SET body = '{text}' WHERE id = 'b';")
    assert live == [], "only the rows are compared there"
    (finding,) = restored
    assert (finding.code, finding.record) == ("fts_misaligned", "b")


def test_a_rollback_journal_database_is_checked_in_full_in_its_private_copy(findings_of: Callable[..., Any]) -> None:
    live, restored = findings_of("UPDATE facts SET body = 'changed' WHERE id = 'b';", "delete")
    assert live == restored
    assert [finding.record for finding in live] == ["b"]


def test_an_index_that_disagrees_with_its_own_text_is_found(findings_of: Callable[..., Any]) -> None:
    for found in findings_of("UPDATE own_fts_content SET c0 = 'something else' WHERE id = 3;"):
        (finding,) = found
        assert (finding.code, finding.severity, finding.record) == ("fts_misaligned", "error", "3")
        assert "own_fts" in finding.message


def test_an_index_whose_text_is_gone_is_found(findings_of: Callable[..., Any]) -> None:
    for found in findings_of("ALTER TABLE facts RENAME TO elsewhere;"):
        assert [finding.code for finding in found] == ["fts_misaligned"]


def test_rows_that_point_nowhere_are_warnings_that_name_the_first(findings_of: Callable[..., Any]) -> None:
    damage = "INSERT INTO link VALUES ('x', 'a'), ('y', 'nobody'), ('z', 'nowhere');"
    for found in findings_of(damage):
        (finding,) = found
        assert (finding.code, finding.severity, finding.record) == ("foreign_key", "warning", "2")
        assert "2 rows of link" in finding.message


def test_an_index_that_lost_entries_is_an_integrity_error(findings_of: Callable[..., Any]) -> None:
    root = "(SELECT rootpage FROM sqlite_schema WHERE name = 'link')"
    damage = f"""
    CREATE INDEX again ON link(child);
    INSERT INTO link VALUES ('x', 'a');
    PRAGMA writable_schema = ON;
    UPDATE sqlite_schema SET rootpage = {root} WHERE name = 'again';
    """
    for found in findings_of(damage):
        assert {finding.code for finding in found} == {"sqlite_integrity"}
        assert all(finding.severity == "error" for finding in found)


@pytest.mark.parametrize("module", ["vec0(embedding float[3])", "no_such_module"])
def test_a_virtual_table_of_an_unknown_module_is_no_fault(module: str, findings_of: Callable[..., Any]) -> None:
    damage = f"""
    PRAGMA writable_schema = ON;
    INSERT INTO sqlite_schema VALUES ('table', 'vectors', 'vectors', 0, 'CREATE VIRTUAL TABLE vectors USING {module}');
    """
    assert findings_of(damage) == ([], [])


def test_an_unknown_tokenizer_is_worth_knowing_and_no_fault(findings_of: Callable[..., Any]) -> None:
    damage = """
    PRAGMA writable_schema = ON;
    UPDATE sqlite_schema SET sql = replace(sql, 'fts5(body)', 'fts5(body, tokenize=''jieba'')') WHERE name = 'own_fts';
    UPDATE sqlite_schema SET sql = replace(sql, '"unicode61 tokenchars '',;''"', 'jieba') WHERE name = 'facts_fts';
    """
    for found in findings_of(damage):
        assert {finding.code for finding in found} == {"sqlite_unchecked"}
        assert {finding.severity for finding in found} == {"info"}


def test_an_unknown_collation_does_not_hide_what_ails_other_tables(findings_of: Callable[..., Any]) -> None:
    damage = """
    CREATE TABLE named(x TEXT);
    CREATE INDEX named_x ON named(x);
    PRAGMA writable_schema = ON;
    UPDATE sqlite_schema SET sql = 'CREATE INDEX named_x ON named(x COLLATE elsewhere)' WHERE name = 'named_x';
    UPDATE own_fts_content SET c0 = 'something else' WHERE id = 3;
    """
    for found in findings_of(damage):
        assert [(finding.code, finding.severity) for finding in found] == [
            ("sqlite_unchecked", "info"),
            ("fts_misaligned", "error"),
        ]
        assert "named" in found[0].message
        assert "elsewhere" in found[0].message
