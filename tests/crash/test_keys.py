"""A change of keys is killed anywhere: the vault opens with the old secret or the new one, and stays clean."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("private_tmp")]


@pytest.mark.parametrize("action", ["add", "change", "recovery", "remove"])
def test_a_change_of_keys_killed_anywhere_leaves_a_way_in(
    action: str, tmp_path: Path, run_script: Callable[..., int]
) -> None:
    assert run_script("killed_keys.py", action, tmp_path) > 8
