"""One world for all tests of a process: making its vaults takes longer than most operations on them."""

from pathlib import Path

import pytest
from tests.faults.world import World, make_worlds, patch

Worlds = tuple[World, World]


@pytest.fixture(scope="session")
def made(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    return make_worlds(tmp_path_factory.mktemp("world"), stores / "oc-memory")


@pytest.fixture
def both(made: Worlds, monkeypatch: pytest.MonkeyPatch) -> Worlds:
    """Return a world whose vaults are near, and one whose vaults are far, with nothing around them."""
    patch(monkeypatch, made[0].folder, made[0].time)
    return made
