"""A schedule in a real cron daemon: installed, run by it, and taken away again.

The daemon and `crontab` see private folders in a mount namespace of their own, so the machine's own crontabs are not
touched. Its clock is made to run faster, where libfaketime can be had; the runs that it starts have the real one.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import memkeep
from memkeep.library import OpenVault

pytestmark = pytest.mark.e2e

OWN = b'# my own\n7 7 * * 1 echo "100 \\%"   \n\n# no job below'

STORY = """
set -eu
for name in spool tables pid; do mkdir -p $name; done
mount --bind tables /etc/cron.d
mount --bind /dev/null /etc/crontab
mount --bind pid /run
mount --bind spool /var/spool
mkdir -p /var/spool/cron/crontabs
chmod 1730 /var/spool/cron/crontabs
(cat own; echo) | crontab -
crontab -l > before
$MEMKEEP schedule install --every 1m --with cron --json > installed.json
$MEMKEEP schedule install --every 1m --with cron > /dev/null
crontab -l > between
LD_PRELOAD="$FASTER" FAKETIME="+0 x30" cron -f > cron.log 2>&1 &
daemon=$!
trap 'kill $daemon 2> /dev/null || true' EXIT
left=900
until grep -qs '"exit":0' "$LAST" || [ $left = 0 ]; do sleep 0.1; left=$((left - 1)); done
kill $daemon
wait $daemon || true
env -u MEMKEEP_PASSWORD $MEMKEEP status --json > status.json
$MEMKEEP schedule remove > /dev/null
crontab -l > after
"""


@pytest.fixture
def faster() -> str:
    """Return the library that speeds up a clock, empty without it; see that there is a cron daemon."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a cron daemon with private folders needs root and a mount namespace")
    libraries = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not (shutil.which("cron") and libraries) and shutil.which("apt-get"):
        subprocess.run(
            [
                "apt-get",
                "-o",
                "DPkg::Lock::Timeout=120",
                "install",
                "-y",
                "--no-install-recommends",
                "cron",
                "libfaketime",
            ],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            check=False,
        )
        libraries = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not shutil.which("cron"):
        pytest.skip("there is no cron daemon, and it can't be installed")
    return str(libraries[0]) if libraries else ""


def test_a_cron_daemon_runs_it_and_all_other_lines_stay_as_they_were(
    faster: str, new_vault: Callable[..., OpenVault], home: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "it's 100% my $HOME"
    notes, settings = odd / "notes", odd / ".config" / "memkeep" / "config.toml"
    for folder in (notes, settings.parent):
        folder.mkdir(parents=True)
    (notes / "one.md").write_text("# One\n", encoding="utf-8")
    new_vault().backup(notes)
    (odd / "password").write_text("pw\n", encoding="utf-8")
    (odd / "password").chmod(0o600)
    settings.write_text(
        f"""
vault = "home"
[vaults.home]
url = {json.dumps(str(home / "vault"))}
password_file = "~/password"
[stores.notes]
path = "~/notes"
"""
    )
    (tmp_path / "own").write_bytes(OWN)
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "/bin/sh", "-c", STORY],
        env={
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "HOME": str(odd),
            "PYTHONPATH": str(Path(memkeep.__file__).parent.parent),
            "MEMKEEP": shlex.join([sys.executable, "-m", "memkeep"]),
            "MEMKEEP_PASSWORD": "not written down",
            "LAST": str(odd / ".local" / "state" / "memkeep" / "last-run.json"),
            "FASTER": faster,
        },
        cwd=tmp_path,
        capture_output=True,
        timeout=150,
        check=False,
    )

    def read(name: str) -> bytes:
        return (tmp_path / name).read_bytes()

    assert done.returncode == 0, done.stderr
    assert read("before") == OWN + b"\n"
    assert read("after") == read("before")
    assert read("between").startswith(read("before"))
    assert read("between").count(b"cron.sh") == 1
    installed = json.loads(read("installed.json"))["result"]
    assert installed["installed"] == {"by": "cron", "when": "every 1m"}
    assert "not written down" not in str(installed) + str(list(installed["files"].values()))
    status = json.loads(read("status.json"))["result"]
    assert status["schedule"] == {"by": "cron", "when": "every 1m"}
    assert status["last_run"]["exit"] == 0
    assert len(memkeep.open_vault(home / "vault", "pw").snapshots().snapshots) >= 2
    assert not (odd / ".local" / "state" / "memkeep" / "cron.sh").exists()
