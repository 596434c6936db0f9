"""The tutorial can be followed from its first line to its last."""

import os
import re
import subprocess
import sys
from pathlib import Path

from memkeep.testing import agent

REPO = Path(__file__).resolve().parents[2]


def test_its_commands_work_one_after_another(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    agent.build(home / ".openclaw" / "memory")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "memkeep").write_text(f'#!/bin/sh\nexec {sys.executable} -m memkeep "$@"\n', encoding="utf-8")
    (tools / "memkeep").chmod(0o755)
    text = (REPO / "docs" / "tutorial.md").read_text(encoding="utf-8")
    settings = home / ".config" / "memkeep" / "config.toml"
    script = [f"mkdir -p '{settings.parent}'"]
    for kind, block in re.findall(r"(?ms)^```(console|toml)\n(.*?)^```", text):
        if kind == "toml":
            script.append(f"cat > '{settings}' <<'END'\n{block}END")
        else:
            script += [line[2:] for line in block.splitlines() if not re.match(r"\$ (python3 -m venv|pip) ", line)]
    done = subprocess.run(
        ["bash", "-eu", "-c", "\n".join(script)],
        cwd=home,
        env={"HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(REPO / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert done.stderr == ""
    assert "All is well" in done.stdout
    assert "Undo: sh" in done.stdout
