"""A pack, or the restore of a packed file, is killed anywhere: what it makes is there whole, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.testing import agent

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("private_tmp")]


def test_a_pack_or_its_restore_killed_anywhere_leaves_all_or_nothing(
    tmp_path: Path, home: Path, new_vault: Callable[..., Any], run_script: Callable[..., int]
) -> None:
    new_vault().backup(agent.build(tmp_path / "memory", lance=False))
    (tmp_path / "carried").mkdir()
    assert run_script("killed_packs.py", home / "vault", tmp_path / "carried") > 15
