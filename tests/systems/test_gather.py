import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memkeep.model import Role, Store
from memkeep.systems.gather import Gathered, Item, Leave, gather
from memkeep.systems.look import Look


def choose(item: Item) -> Role | Leave:
    """Go by names: `gone` is another's, `left` is left out, `key` is secret."""
    last = item.path.name
    if last.startswith("gone"):
        return Leave()
    if last.startswith("left"):
        return Leave("because")
    return Role.SECRET if last.startswith("key") else Role.CANONICAL


def gathered(root: Path, **more: Any) -> Gathered:
    return gather(Look(), root, choose, **more)


def names(found: Gathered) -> dict[str, str]:
    return {part.name: part.engine for part in found.parts}


def as_store(root: Path, found: Gathered) -> Store:
    return Store(
        system="x", path=str(root), root=str(root), parts=tuple(found.parts), omitted=tuple(found.omitted), findings=()
    )


def test_loose_files_are_parts_one_by_one_and_folders_one_each(
    make: Any, tmp_path: Path, complete: Callable[..., None]
) -> None:
    make.files(tmp_path, "a", "sub/b", "sub/c/d", "other/key", "other/e", "gone", "left", "sub/gone", "sub/left/x")
    make.database(tmp_path / "sub/c/x.db")
    found = gathered(tmp_path)
    assert names(found) == {
        "a": "files",
        "other": "files",
        "other/key": "files",
        "sub": "files",
        "sub/c/x.db": "sqlite",
    }
    assert {each.part: each.reason for each in found.omitted} == {"left": "because", "sub/left": "because"}
    complete(as_store(tmp_path, found), other=["gone", "sub/gone"])


def test_a_folder_may_be_taken_apart_or_as_a_whole(make: Any, tmp_path: Path, complete: Callable[..., None]) -> None:
    make.files(tmp_path, "a", "sub/b", "sub/c/d", "key", "gone/x")
    assert set(names(gathered(tmp_path, apart=lambda name: name == "sub"))) == {"a", "key", "sub/b", "sub/c"}
    whole = gathered(tmp_path, whole=True)
    assert set(names(whole)) == {".", "key"}
    complete(as_store(tmp_path, whole), other=["gone/*"])
    assert set(names(gathered(tmp_path, whole=True, name="at"))) == {"at", "at/key"}


def test_a_folder_is_a_part_when_it_is_empty_or_holds_loose_files(make: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make.database(tmp_path / "only/x.db")
    make.files(tmp_path, "nothing/left")
    assert set(names(gathered(tmp_path))) == {"empty", "only/x.db"}


def test_names_with_the_marks_of_patterns_exclude_only_themselves(
    make: Any, tmp_path: Path, complete: Callable[..., None]
) -> None:
    make.files(tmp_path, "d/left*", "d/left[1]", "d/keep", "d/lefx", "d/x*y", "d/key?", "d/key1/z", "d/k")
    make.database(tmp_path / "d/[a-z]*.db")
    make.files(tmp_path, "d/abc.dbx")
    complete(as_store(tmp_path, gathered(tmp_path)))


@pytest.mark.parametrize("name", [".env", ".env.local", "prod.env", ".env.d"])
def test_dotenv_files_are_never_taken(tmp_path: Path, complete: Callable[..., None], name: str) -> None:
    for folder in (tmp_path, tmp_path / "sub", tmp_path / "sub/deep"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("KEY=1")
        (folder / "keep").write_text("x")
    for found in (gathered(tmp_path), gathered(tmp_path, whole=True)):
        assert {each.part for each in found.omitted} == {name, f"sub/{name}", f"sub/deep/{name}"}
        complete(as_store(tmp_path, found))


def test_a_dotenv_file_that_comes_later_is_excluded_too(make: Any, tmp_path: Path) -> None:
    make.files(tmp_path, "sub/deep/x")
    (part,) = gathered(tmp_path).parts
    make.files(tmp_path, "sub/.env", "sub/deep/.env", "sub/deep/.env.x", "sub/deep/a.env", "sub/.memkeep-restore.json")
    from fnmatch import fnmatchcase

    for name in (".env", "deep/.env", "deep/.env.x", "deep/a.env", ".memkeep-restore.json"):
        assert any(fnmatchcase(name, pattern) for pattern in part.exclude)
    assert not any(fnmatchcase("deep/x", pattern) for pattern in part.exclude)


def test_what_a_restore_parked_is_no_part_of_the_store(make: Any, tmp_path: Path) -> None:
    make.files(tmp_path, "a", ".memkeep-parked-1/facts.db", ".memkeep-restore.json")
    found = gathered(tmp_path)
    assert set(names(found)) == {"a"}
    assert {each.part for each in found.omitted} == {".memkeep-parked-1", ".memkeep-restore.json"}


def test_sidecars_belong_to_their_database(make: Any, tmp_path: Path, complete: Callable[..., None]) -> None:
    make.database(tmp_path / "d/x.db")
    make.database(tmp_path / "d/y")
    make.files(tmp_path, "d/x.db-wal", "d/y-journal", "d/z.db-shm", "d/my-journal", "d/keep")
    found = gathered(tmp_path)
    assert names(found) == {"d": "files", "d/x.db": "sqlite", "d/y": "sqlite"}
    assert {each.part for each in found.omitted} == {"d/z.db-shm"}
    complete(as_store(tmp_path, found))


def test_links_that_stay_are_kept_as_links_and_others_are_left_out(make: Any, tmp_path: Path) -> None:
    store = make.files(tmp_path / "store", "a/b", "c")
    make.files(tmp_path, "secret")
    targets = {
        "stays": "a/b",
        "a/up": "../c",
        "dangling": "a/nowhere",
        "absolute": str(store / "c"),
        "out": "../secret",
        "out-absolute": "/etc/passwd",
        "around": "../store/c",
        "folder": "..",
        "chain": "out",
    }
    for name, target in targets.items():
        (store / name).symlink_to(target)
    found = gathered(store)
    left = {each.part: each.reason for each in found.omitted}
    assert set(names(found)) == {"a", "c", "dangling", "stays"}
    assert set(left) == {"absolute", "around", "chain", "folder", "out", "out-absolute"}
    assert "which is kept where it lies" in left["absolute"]
    assert {each.part for each in found.findings} == {"chain", "folder", "out", "out-absolute"}
    assert {each.code for each in found.findings} == {"link_leaves_store"}


def test_a_link_may_lead_anywhere_within_the_bounds(make: Any, tmp_path: Path) -> None:
    make.files(tmp_path, "inner/a", "b")
    (tmp_path / "inner/link").symlink_to("../b")
    assert [each.part for each in gathered(tmp_path / "inner", name="inner").findings] == ["inner/link"]
    within = gathered(tmp_path / "inner", name="inner", bounds=tmp_path)
    assert within.findings == []
    assert "inner/link" in names(within)


def test_what_is_no_file_is_left_out(make: Any, tmp_path: Path) -> None:
    make.files(tmp_path, "d/a")
    os.mkfifo(tmp_path / "d/pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "d/s"))
        found = gathered(tmp_path)
    assert {each.part for each in found.omitted} == {"d/pipe", "d/s"}
    assert set(found.parts[0].exclude) >= {"pipe", "s"}


def test_a_name_that_is_no_text_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in (b"bad\xff.txt", b"d/w\xfe.db", b"dir\xfd"):
        path = os.fsencode(tmp_path) + b"/" + name
        if name == b"dir\xfd":
            os.mkdir(path)  # noqa: PTH102 - a path of bytes
        else:
            os.close(os.open(path, os.O_CREAT))
    (tmp_path / "d/ok").write_text("x")
    found = gathered(tmp_path)
    assert {each.part for each in found.omitted} == {"bad\\xff.txt", "d/w\\xfe.db", "dir\\xfd"}
    assert {each.code for each in found.findings} == {"name_not_text"}
    (part,) = found.parts
    assert "w?.db" in part.exclude


def test_a_tree_deeper_than_the_interpreters_stack_is_walked(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        assert set(names(gathered(tmp_path))) == {"d"}
    finally:
        while (tmp_path / "d/d").exists():  # the tools that clean up after tests can't
            (tmp_path / "d/d").rename(tmp_path / "inner")
            (tmp_path / "d").rmdir()
            (tmp_path / "inner").rename(tmp_path / "d")


TREES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "left", "gone", "key", "x.db", ".env", "é *"]), min_size=1, max_size=4).map(
        "/".join
    ),
    st.sampled_from(["", "text", "SQLite format 3\0"]),
    max_size=8,
)


@pytest.mark.property
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, whole=st.booleans())
def test_every_file_is_in_one_place(
    tmp_path_factory: pytest.TempPathFactory,
    whereabouts: Callable[[Store], dict[str, list[str]]],
    tree: dict[str, str],
    whole: bool,  # noqa: FBT001 - hypothesis hands it over by name
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name, content in tree.items():
        if not any((root / parent).is_file() for parent in Path(name).parents) and not (root / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
    for name, places in whereabouts(as_store(root, gathered(root, whole=whole))).items():
        theirs = any(piece == "gone" for piece in name.split("/"))
        assert len(places) == 1 or (theirs and not places) or (theirs and "omitted" in places[0]), (name, places)
