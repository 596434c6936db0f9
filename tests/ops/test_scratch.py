"""Scratch folders of several processes share a folder that comes and goes."""

from pathlib import Path
from typing import Any

import pytest

from memkeep.ops.scratch import scratch


@pytest.mark.parametrize("call", ["lstat", "is_symlink", "glob"])
def test_another_process_that_tidies_up_at_any_moment_is_in_nobodys_way(
    call: str, private_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(Path, call)
    before = []

    def after_the_other(self: Path, *args: Any, **more: Any) -> Any:
        if self.parent == private_tmp and self.is_dir() and len(before) < 3:
            before.append(1)
            self.rmdir()
        return real(self, *args, **more)

    monkeypatch.setattr(Path, call, after_the_other)
    with scratch() as folder:
        assert list(folder.iterdir()) == []
