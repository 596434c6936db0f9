"""Markdown notes become records, once each; git's history gives back what was deleted."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.errors import FileError
from memkeep.records.readers import notes
from memkeep.records.readers.base import Refused
from memkeep.records.readers.notes_history import is_repository, read_history
from memkeep.records.record import Record

PAGE = b"""# Aurora

Deploys to fsn1.
On Fridays too.

## Choices
- Use Ansible <!-- importance: 8 -->
  and not Chef

  ```sh
  # no heading

  - no item
  ```
* tea
1) first
---
Text right after

- Use Ansible <!-- importance: 8 -->
### Deep
#
```
- fenced
# all
```
last
"""


def _records(path: str, data: bytes) -> list[Record]:
    found = list(notes.records_of(path, data))
    assert all(isinstance(each, Record) for each in found)
    return found  # type: ignore[return-value]  # as was just checked


def test_items_and_paragraphs_are_records_under_their_headings() -> None:
    found = _records("memory/2026-11-20-aurora.md", PAGE)
    assert [(each.text, each.title, each.metadata["line"], each.metadata["end_line"]) for each in found] == [
        ("Deploys to fsn1.\nOn Fridays too.", "Aurora", 3, 4),
        (
            "Use Ansible <!-- importance: 8 -->\n  and not Chef\n\n  ```sh\n  # no heading\n\n  - no item\n  ```",
            "Choices", 7, 14,
        ),
        ("tea", "Choices", 15, 15),
        ("first", "Choices", 16, 16),
        ("Text right after", "Choices", 18, 18),
        ("Use Ansible <!-- importance: 8 -->", "Choices", 20, 20),
        ("```\n- fenced\n# all\n```\nlast", None, 23, 27),
    ]  # fmt: skip
    assert found[1].metadata | {"line": 0} == {
        "path": "memory/2026-11-20-aurora.md", "line": 0, "end_line": 14, "marker": "- ",
        "headings": ["Aurora", "Choices"], "importance": "8",
    }  # fmt: skip
    assert {each.created_at for each in found} == {"2026-11-20T00:00:00+00:00"}
    assert {each.category for each in found} == {"daily"}


def test_a_record_keeps_its_id_when_it_moves_and_loses_it_when_it_changes() -> None:
    before = {each.text: each.id for each in _records("MEMORY.md", b"- one\n- two\n")}
    after = {each.text: each.id for each in _records("MEMORY.md", b"# new\n\n- zero\n* two\n1. one\n- three\n")}
    assert after["one"] == before["one"]
    assert after["two"] == before["two"]
    assert _records("USER.md", b"- one\n")[0].id != before["one"]
    twice = _records("MEMORY.md", b"- one\n- one\n")
    assert [each.id for each in twice] == [before["one"], twice[1].id]
    assert twice[0].id != twice[1].id


@given(
    st.lists(
        st.sampled_from([b"# h", b"- a", b"  b", b"", b"```", b"~~~", b"text", b"---", b"1. x", b"\t", b"#", b"- "])
    )
)
def test_no_line_with_letters_is_lost(lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    found = _records("MEMORY.md", data)
    said = "\n".join(each.text for each in found)
    for letter in ("a", "b", "text", "x"):
        assert said.count(letter) == data.decode().count(letter)
    assert len({each.id for each in found}) == len(found)


def test_the_real_workspace_is_read_the_same_from_each_place(stores: Path) -> None:
    space = stores / "openclaw-core-2026.9.6" / "state-dir" / "workspace"
    found = list(notes.read(space))
    assert [each.text for each in found if isinstance(each, Record)] == [
        "User prefers dark mode", "Aurora deploys to fsn1", "Likes TypeScript",
        "Worked on the backup tool. café ☕",
    ]  # fmt: skip
    assert list(notes.read(space / "memory")) == found[3:]
    assert list(notes.read(space / "memory" / "2026-11-20.md")) == found[3:]
    assert list(notes.read(space / "MEMORY.md")) == found[:2]


def test_links_other_files_and_bad_bytes_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "secret.md").write_text("- secret")
    (tmp_path / "memory" / "2026-01-01.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "memory" / "loop").symlink_to(tmp_path)
    (tmp_path / "README.md").write_text("- other")
    (tmp_path / "memory" / "deep").mkdir()
    (tmp_path / "memory" / "deep" / "x.md").write_bytes(b"- one\n- \xff\n- three\n")
    one, refused, three = notes.read(tmp_path)
    assert isinstance(refused, Refused)
    assert refused.where == "memory/deep/x.md, line 2"
    assert [each.text for each in (one, three) if isinstance(each, Record)] == ["one", "three"]


def test_a_folder_without_notes_is_named(tmp_path: Path) -> None:
    assert not notes.fits(tmp_path)
    with pytest.raises(FileError, match="has no notes"):
        list(notes.read(tmp_path))


def _commit(repo: Path, when: str) -> None:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    env = os.environ | who | {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when, "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", "-C", repo, "add", "-A"], check=True, env=env)
    subprocess.run(["git", "-C", repo, "commit", "-qm", when], check=True, env=env)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    space = tmp_path / "repo" / "the workspace"
    (space / "memory").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True)
    (space / "MEMORY.md").write_text("- stays\n- goes\n")
    (space / "memory" / "2026-01-02.md").write_text("- of a day\n")
    (tmp_path / "repo" / "MEMORY.md").write_text("- of another workspace\n")
    _commit(tmp_path / "repo", "2026-01-03T00:00:00Z")
    (space / "MEMORY.md").write_text("- new\n- stays\n")
    (space / "memory" / "2026-01-02.md").unlink()
    (space / "memory" / "ü.md").write_bytes(b"- odd name\n- \xff\n")
    _commit(tmp_path / "repo", "2026-02-03T00:00:00Z")
    return space


def test_what_was_deleted_is_found_again_in_the_history(repo: Path) -> None:
    assert is_repository(repo)
    found = list(read_history(repo))
    records = {each.text: each for each in found if isinstance(each, Record)}
    assert {text: each.status for text, each in records.items()} == {
        "stays": None, "goes": "archived", "of a day": "archived", "new": None, "odd name": None,
    }  # fmt: skip
    assert records["of a day"].created_at == "2026-01-02T00:00:00+00:00"
    assert records["goes"].created_at == "2026-01-03T00:00:00+00:00"
    assert records["new"].created_at == "2026-02-03T00:00:00+00:00"
    assert records["odd name"].source == "memory/ü.md"
    assert [each.where.partition(":")[2] for each in found if isinstance(each, Refused)] == ["memory/ü.md, line 2"]
    now = [each.id for each in notes.read(repo) if isinstance(each, Record)]
    assert set(now) == {each.id for each in records.values() if each.status is None}


def test_what_a_branch_alone_has_is_found(repo: Path) -> None:
    subprocess.run(["git", "-C", repo, "checkout", "-qb", "side"], check=True)
    (repo / "MEMORY.md").write_text("- aside\n")
    _commit(repo, "2026-03-03T00:00:00Z")
    subprocess.run(["git", "-C", repo, "checkout", "-q", "-"], check=True)
    assert "aside" in {each.text for each in read_history(repo) if isinstance(each, Record)}


def test_nothing_of_the_repositorys_settings_is_run(repo: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\ntouch '{touched}'\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "diff.x.textconv", "diff.external", "core.sshCommand"):
        subprocess.run(["git", "-C", repo, "config", key, str(script)], check=True)
    (repo / ".gitattributes").write_text("*.md diff=x\n")
    assert len(list(read_history(repo))) == 6
    assert not touched.exists()


def test_an_object_that_is_missing_is_told_and_never_fetched(repo: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\ntouch '{touched}'\n")
    script.chmod(0o755)
    settings = {
        "core.repositoryformatversion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(tmp_path / "repo"),
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": str(script),
    }
    said = subprocess.run(["git", "-C", repo, "rev-parse", "HEAD~1:./MEMORY.md"], check=True, capture_output=True)
    blob = said.stdout.decode().strip()
    (tmp_path / "repo" / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    for key, value in settings.items():
        subprocess.run(["git", "-C", repo, "config", key, value], check=True)
    found = list(read_history(repo))
    assert not touched.exists()
    assert "no such object" in " ".join(each.reason for each in found if isinstance(each, Refused))
    assert {each.text for each in found if isinstance(each, Record)} == {"of a day", "stays", "new", "odd name"}


def test_what_a_merge_alone_brought_is_found(repo: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", repo, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    git("checkout", "-qb", "side", "HEAD~1")
    (repo / "USER.md").write_text("- of the side\n")
    _commit(repo, "2026-03-03T00:00:00Z")
    git("checkout", "-q", "-")
    git("merge", "-q", "--no-commit", "side")
    (repo / "DREAMS.md").write_text("- of the merge\n")
    _commit(repo, "2026-03-04T00:00:00Z")
    (repo / "DREAMS.md").unlink()
    _commit(repo, "2026-03-05T00:00:00Z")
    texts = {each.text: each.status for each in read_history(repo) if isinstance(each, Record)}
    assert (texts["of the side"], texts["of the merge"]) == (None, "archived")


def test_a_folder_without_a_repository_is_named(tmp_path: Path) -> None:
    assert not is_repository(tmp_path)
    with pytest.raises(FileError, match="git can't read"):
        list(read_history(tmp_path))
