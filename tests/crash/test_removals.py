"""What removes objects is killed anywhere: nothing that could be read is lost, and the same again ends it."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("private_tmp")]


@pytest.mark.parametrize("action", ["prune", "repair"])
def test_a_removal_killed_anywhere_costs_nothing_that_could_be_read(
    action: str, tmp_path: Path, run_script: Callable[..., int]
) -> None:
    assert run_script("killed_removals.py", action, tmp_path) > 20
