"""Make the golden vaults of this version: `python tests/golden/make.py`, once a format version, never again.

What lies in `v1/` was written by the first version. It is not made anew when the code changes: every version to come
must read it. The folder holds

* `vault/`: a folder of notes and a database on five days, encrypted; one snapshot is forgotten, and pruned;
* `mirror/`: a copy of two of the snapshots, with another password;
* `packed.tar.zst`, `packed.tar.zst.age`: the last snapshot, packed;
* `expected.json`: the secrets of all of them, and what each snapshot must give.
"""

import hashlib
import json
import os
import random
import shutil
import socket
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyrage

import memkeep

PASSWORD, OTHER = "golden password", "another password"
DAYS = 5
FORGOTTEN = 1


def files_of(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def live(store: Path, day: int) -> None:
    """Let a day pass in a store: a note that is new, one that grows, one that stays, rows that are new or change."""
    chance = random.Random(day)
    (store / "notes").mkdir(parents=True, exist_ok=True)
    (store / "notes" / f"day {day} \u00fc\u6f22.md").write_text(f"# Day {day}\n\nNothing is forgotten.\n", "utf-8")
    with (store / "log.md").open("a", encoding="utf-8") as log:
        log.writelines(f"- on day {day}: {chance.randrange(10**12)}\n" for _ in range(60))
    database = sqlite3.connect(store / "memory.db")
    database.execute("create table if not exists notes (id integer primary key, text text, day integer)")
    texts = [(f"what was learned on day {day}: {chance.randrange(10**9)}", day) for _ in range(80)]
    database.executemany("insert into notes (text, day) values (?, ?)", texts)
    database.execute("update notes set text = text || '!' where id % 40 = ?", (day,))
    database.commit()
    database.close()
    if day == 0:
        (store / "fixed.md").write_text("never changes\n" * 20)
        (store / "empty.md").write_bytes(b"")


def listed(vault: Any, truth: Path) -> dict[str, Any]:
    """Return what each snapshot of a vault is, and gives."""
    found = {}
    for one in vault.snapshots().snapshots:
        vault.restore(one.id, to=truth / one.id)
        found[one.id] = {"created": one.created, "tag": one.tag, "files": files_of(truth / one.id)}
    return found


def make(target: Path) -> None:
    """Write the golden folder."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ.update(HOME=folder, XDG_CONFIG_HOME=folder, XDG_STATE_HOME=folder, XDG_CACHE_HOME=folder)
        socket.gethostname = lambda: "golden"  # nobody's machine
        recovery = memkeep.init_vault(target / "vault", PASSWORD).recovery_key
        vault = memkeep.open_vault(target / "vault", PASSWORD)
        store = home / "agent"
        made = []
        for day in range(DAYS):
            live(store, day)
            made += [one.id for one in vault.backup(store, tag=f"day-{day}").snapshots]
        memkeep.init_vault(target / "mirror", OTHER)
        mirror = memkeep.open_vault(target / "mirror", OTHER)
        vault.copy(mirror, made[0], made[-1])
        vault.forget(made[FORGOTTEN])
        vault.prune()
        vault.pack("latest", target / "packed.tar.zst")
        identity = pyrage.x25519.Identity.generate()  # a passphrase would cost what this machine can bear, not others
        vault.pack("latest", target / "packed.tar.zst.age", recipients=[str(identity.to_public())])
        expected = {
            "version": 1,
            "written_by": memkeep.__version__,
            "passwords": {"vault": PASSWORD, "mirror": OTHER},
            "identity": str(identity),
            "recovery": recovery,
            "forgotten": made[FORGOTTEN],
            "vault": listed(vault, home / "truth"),
            "mirror": listed(mirror, home / "copies"),
        }
        for name in ("vault", "mirror"):
            shutil.rmtree(target / name / "tmp", ignore_errors=True)
            shutil.rmtree(target / name / "leases", ignore_errors=True)
    (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    place = Path(__file__).with_name("v1")
    if place.exists():
        sys.exit(f"{place} is there already, and is not to be made again")
    make(place)
