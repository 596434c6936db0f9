"""A restore in place is killed anywhere: the old moment is there, or the new one, or a journal that says so."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memkeep.testing import agent

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("private_tmp")]


def test_a_restore_killed_anywhere_leaves_no_mix_that_is_not_known(
    tmp_path: Path, home: Path, new_vault: Callable[..., Any], run_script: Callable[..., int]
) -> None:
    store, vault = agent.build(tmp_path / "memory"), new_vault()
    vault.backup(store)
    newer = tmp_path / "newer"
    shutil.copytree(store, newer)
    with closing(agent._connect(newer, "wal")) as connection:
        agent.write_batch(newer, connection, agent.KEPT + 2)
    kills = run_script("killed_restores.py", store, home / "vault", newer)
    assert kills > 20
