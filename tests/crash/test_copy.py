"""A copy that is killed at any write leaves both vaults whole, and the next one ends it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memkeep.library import OpenVault
from memkeep.testing import agent


@pytest.mark.crash
def test_a_copy_can_be_killed_at_every_change(
    new_vault: Callable[..., OpenVault],
    home: Path,
    tree_hash: Callable[[Path], dict[str, str]],
    run_script: Callable[..., int],
) -> None:
    memory = agent.build(home / "agent" / "memory", lance=False)
    source, target = new_vault("source"), new_vault("target")
    source.backup(memory)
    shutil.copy(memory / "facts.db", memory / "more.db")
    source.backup(memory)
    target.backup(memory)
    before = tree_hash(home / "source")
    assert run_script("killed_copies.py", home / "source", home / "target") > 20
    assert tree_hash(home / "source") == before
