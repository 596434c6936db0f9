"""The demo leaves nothing behind and touches nothing but its scratch folder, and proves what it says."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memkeep

# Every process notes each file that it opens for writing, and each name that it makes, changes or removes, in all
# places but the one that is for scratch.
WATCH = """
import os, sys
scratch = os.environ["TMPDIR"]
log = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_APPEND)
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
names = {"os." + each for each in "mkdir rename remove rmdir link symlink truncate chmod utime".split()}

def hook(event, args):
    if event == "open" and isinstance(args[0], str) and isinstance(args[2], int) and args[2] & writing:
        paths = args[:1]
    elif event in names:
        paths = [each for each in args[:2] if isinstance(each, str)]
    elif event == "sqlite3.connect":
        paths = [str(args[0]).removeprefix("file:").partition("?")[0]]
    else:
        return
    for path in paths:
        if os.path.isabs(path) and path != scratch and not path.startswith((scratch + "/", "/dev/")):
            os.write(log, f"{event} {path}\\n".encode())

sys.addaudithook(hook)
"""

pytestmark = pytest.mark.e2e


def test_the_demo_proves_equality_and_leaves_nothing_anywhere(
    tmp_path: Path, home: Path, private_tmp: Path, run_cli: Callable[..., Any]
) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "log"
    log.touch()
    source = str(Path(memkeep.__file__).parent.parent)
    env = {"WATCH_LOG": str(log), "PYTHONDONTWRITEBYTECODE": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "first"), source])
    done = run_cli("demo", "--json", cwd=tmp_path / "cwd", env=env)
    assert done.code == 0, done.stderr
    result = done.result
    assert result["equal"] is True
    assert len(result["steps"]) >= 6
    assert 0 < result["day_two_bytes"] < result["first_bytes"] < result["store_bytes"]
    assert list(home.rglob("*")) == []
    assert list((tmp_path / "cwd").iterdir()) == []
    assert list(private_tmp.iterdir()) == []
    assert log.read_text() == ""


def test_the_demo_tells_its_story_to_a_person(home: Path, private_tmp: Path, run_cli: Callable[..., Any]) -> None:
    done = run_cli("demo")
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    for words in ("Built a memory store", "while an agent wrote", "Proved it", "Day two", "Damaged", "in place"):
        assert any(words in line for line in lines), words
    assert "Nothing was left behind" in done.stdout
    assert (list(home.rglob("*")), list(private_tmp.iterdir())) == ([], [])
