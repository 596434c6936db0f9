"""A forgetting is killed anywhere: each snapshot is whole or gone, none that is kept goes, and the log agrees."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("private_tmp")]


def test_a_forgetting_killed_anywhere_leaves_each_snapshot_whole_or_gone(
    tmp_path: Path, run_script: Callable[..., int]
) -> None:
    assert run_script("killed_forgets.py", tmp_path) > 8
