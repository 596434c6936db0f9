"""Break a vault with many real processes at once, round after round, and look after each whether all is as it was.

    python -m tests.soak.driver [--rounds N] [--seconds S] [--place local|sftp|moto|rclone] [--seed N]

In a round several writers change stores of their own and back them up, a live agent writes to one more, and beside them
others forget, prune, copy, verify, restore, repair and change keys, each as a process of one of three machines whose
clocks differ. Some are killed, some sleep for longer than their lease lasts; the server is killed and comes back. After
each round, with all stopped, every snapshot must be proven and come back as its writer has recorded it.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.openssh import SshServer

import memkeep
from memkeep.testing import agent, servers

if TYPE_CHECKING:
    from collections.abc import Callable

LIFE = 3.0  # seconds that a lease lasts
MACHINES = {"alpha": 0.0, "beta": -4.0, "gamma": 4.0}  # seconds by which their clocks are ahead
REPO = Path(__file__).resolve().parents[2]
# What a verb may come back with beside its work: others held the vault, a snapshot went meanwhile, a server was away.
EXPECTED = {
    "vault_leased",
    "no_snapshot",
    "storage_unreachable",
    "last_good",
    "lease_lost",
    "no_key",
    "store_unstable",
}


class Soak:
    """A vault, its mirror, and what was done to them."""

    def __init__(self, work: Path, place: "Place", seed: int) -> None:
        self.work = work
        self.place = place
        self.chance = random.Random(seed)
        self.recorded: dict[str, dict[str, str]] = {}  # tag -> file -> digest
        self.counts: Counter[str] = Counter()
        self.found: list[str] = []
        self.vault, self.mirror = place.vault, str(work / "mirror")
        self._numbers = iter(range(1 << 30))
        self._lock = threading.Lock()
        self.stores = []
        for name in ("one", "two"):
            store = agent.build(work / name / "memory", lance=False)
            self.stores.append(store)
        self.live = agent.build(work / "live" / "memory", lance=False)
        self.batches = {store: self.next_batch(store) for store in self.stores}

    # -- processes ----------------------------------------------------------------------------------------------

    def start(self, *words: str | Path, machine: str = "alpha", skew: float | None = None) -> "subprocess.Popen[str]":
        env = {
            **os.environ,
            **self.place.environment,
            "PYTHONPATH": f"{REPO / 'src'}:{REPO}",
            "HOME": str(self.place.home),
            "XDG_STATE_HOME": str(self.work / "state" / machine),
            "XDG_CACHE_HOME": str(self.work / "cache" / machine),
            "XDG_CONFIG_HOME": str(self.work / "config"),
            "TMPDIR": str(self.work / "tmp"),
            "MEMKEEP_PASSWORD": "pw",
            "MEMKEEP_TO_PASSWORD": "pw2",
            "MEMKEEP_VAULT": self.vault,
            "SOAK_SKEW": str(MACHINES[machine] if skew is None else skew),
            "SOAK_LIFE": str(LIFE),
            "SOAK_MACHINE": machine,
        }
        with self._lock:
            self.counts["processes"] += 1
        command = [sys.executable, "-m", "tests.soak.launch", *map(str, words), "--json"]
        return subprocess.Popen(command, env=env, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str | Path, machine: str = "alpha", skew: float | None = None) -> tuple[int, Any]:
        process = self.start(*words, machine=machine, skew=skew)
        out, err = process.communicate()
        return process.returncode, self.read(words, process.returncode, out, err)

    def read(self, words: Any, code: int, out: str, err: str) -> Any:
        try:
            return json.loads(out)
        except ValueError:
            if code != -signal.SIGKILL:
                self.note(f"{words} ended with {code} and no document: {err[-3000:]}")
            return None

    def note(self, what: str) -> None:
        with self._lock:
            self.found.append(what)
            say("FOUND", what)

    def hurt(self, chance: random.Random, *words: str | Path) -> Any:
        """Run a command on some machine, perhaps killed or put to sleep; judge how it ended."""
        machine = chance.choice(list(MACHINES))
        process = self.start(*words, machine=machine)
        got: list[str] = []
        reader = threading.Thread(target=lambda: got.extend(process.communicate()))
        reader.start()
        fate = chance.random()
        if fate < 0.35:
            reader.join(0.35 + chance.random() * 1.2)
            if process.poll() is None:
                if fate < 0.17:
                    process.kill()
                    with self._lock:
                        self.counts["kills"] += 1
                else:
                    process.send_signal(signal.SIGSTOP)
                    with self._lock:
                        self.counts["sleeps"] += 1
                    time.sleep(LIFE * (1.2 if fate < 0.3 else 2.2))
                    process.send_signal(signal.SIGCONT)
        reader.join()
        code = process.returncode
        with self._lock:
            self.counts[f"{words[0]} {code}"] += 1
        document = self.read(words, code, *got) if code != -signal.SIGKILL else None
        if document is None:
            return None
        if not document["ok"]:
            error = document["error"]
            with self._lock:
                self.counts[error["code"]] += 1
            if error["code"] not in EXPECTED:
                self.note(f"{machine} {words}: {json.dumps(error)} {got[1][-500:]}")
        elif code != 0:
            self.note(f"{machine} {words}: {code} {json.dumps(document['result'])[:1500]}")
        else:
            text = json.dumps(document["result"].get("findings", []) if isinstance(document["result"], dict) else [])
            if "damaged" in text or '"object": "' in text:
                self.note(f"{machine} {words}: {text[:1500]}")
        return document

    # -- what goes on -------------------------------------------------------------------------------------------

    def writer(self, store: Path, chance: random.Random, until: float) -> None:
        while time.monotonic() < until:
            first = self.batches[store]
            self.batches[store] = first + 3
            with closing(agent._connect(store, "wal")) as connection:
                for batch in range(first, first + 3):
                    agent.write_batch(store, connection, batch, lance=False)
            with (store / "vectors.bin").open("r+b" if (store / "vectors.bin").exists() else "wb") as file:
                file.seek(chance.randrange(8) * 65536)
                file.write(chance.randbytes(65536))
            tag = f"{store.parent.name}-{first}"
            self.recorded[tag] = hashes(store)
            self.hurt(chance, "backup", store, "--tag", tag)

    def live_backups(self, chance: random.Random, until: float) -> None:
        while time.monotonic() < until:
            self.hurt(chance, "backup", self.live, "--tag", "live")

    def others(self, chance: random.Random, until: float) -> None:  # noqa: C901 - a list
        while time.monotonic() < until:
            word = chance.choice(
                [
                    "forget",
                    "forget",
                    "prune",
                    "prune",
                    "prune",
                    "copy",
                    "copy",
                    "verify",
                    "verify",
                    "restore",
                    "restore",
                    "repair",
                    "key",
                    "status",
                    "prune-mirror",
                    "forget-mirror",
                    "snapshots",
                ]
            )
            if word == "forget":
                self.hurt(chance, "forget", "--keep-last", str(chance.randrange(1, 5)))
            elif word == "prune":
                self.hurt(chance, "prune", *self.place.grace)
            elif word == "copy":
                self.hurt(chance, "copy", "--to", self.mirror)
            elif word == "verify":
                self.hurt(chance, "verify", "--all", "--rung", chance.choice(["intact", "readable"]))
            elif word == "restore":
                back = self.work / "back" / str(next(self._numbers))
                self.hurt(chance, "restore", "latest", "--to", back)
                shutil.rmtree(back, ignore_errors=True)
            elif word == "repair":
                self.hurt(chance, "repair")
            elif word == "key":
                self.keys(chance)
            elif word == "prune-mirror":
                self.hurt(chance, "prune", "--vault", self.mirror, "--password-file", self.work / "pw2")
            elif word == "forget-mirror":
                self.hurt(
                    chance, "forget", "--keep-last", "2", "--vault", self.mirror, "--password-file", self.work / "pw2"
                )
            elif word == "snapshots":
                self.hurt(chance, "snapshots")
            else:
                self.hurt(chance, "status", self.stores[0])

    def keys(self, chance: random.Random) -> None:
        more = self.work / f"more{next(self._numbers)}"
        more.write_text(f"{more.name}-password")
        done = self.hurt(chance, "key", "add", "--new-password-file", more)
        if done and done["ok"] and chance.random() < 0.9:
            added = done["result"]["added"]
            self.hurt(chance, "key", "remove", added, "--confirm", added)

    def round(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        first = self.next_batch(self.live)
        command = [sys.executable, "-m", "memkeep.testing.agent", str(self.live), str(first), "--no-lance"]
        command += ["--pace", "0.1"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPO / "src")},
        ) as writing:
            jobs: list[Callable[[random.Random, float], None]] = [
                lambda chance, until, one=store: self.writer(one, chance, until) for store in self.stores
            ]
            jobs += [self.live_backups, self.others, self.others]
            threads = [threading.Thread(target=job, args=(random.Random(self.chance.random()), until)) for job in jobs]
            for thread in threads:
                thread.start()
            while time.monotonic() < until:
                time.sleep(min(3.0, max(0.0, until - time.monotonic())))
                if self.chance.random() < 0.4 and time.monotonic() < until - 2:
                    self.counts["server restarts"] += self.place.bounce()
            for thread in threads:
                thread.join()
            writing.communicate("")
        self.counts["rounds"] += 1

    def next_batch(self, store: Path) -> int:
        with closing(sqlite3.connect(store / "facts.db")) as connection:
            return int(connection.execute("SELECT max(created_at) FROM facts").fetchone()[0]) + 1

    # -- looking ------------------------------------------------------------------------------------------------

    def look(self) -> None:  # noqa: C901 - a list
        for place, secret in ((self.vault, "pw"), (self.mirror, "pw2")):
            password = self.work / secret
            on = ("--vault", place, "--password-file", password)
            code, document = self.run("verify", "--all", "--rung", "intact", *on)
            if not document or not document["ok"]:
                self.note(f"AFTER verify of {place}: {code} {document}")
            else:
                bad = [one for one in document["result"]["findings"] if one["code"] != "unsealed"]
                bad += [one for each in document["result"].get("snapshots", []) for one in each.get("findings", [])]
                if bad:
                    self.note(f"AFTER verify of {place}: {json.dumps(bad)[:3000]}")
            code, document = self.run("snapshots", *on)
            if not document or not document["ok"]:
                self.note(f"AFTER snapshots of {place}: {code} {document}")
                continue
            rows = document["result"]["snapshots"]
            self.counts["snapshots looked at"] += len(rows)
            vault = self.open(place, secret)
            for row in rows:
                back = self.work / "back" / f"look{next(self._numbers)}"
                try:
                    vault.restore(row["id"], to=back)
                except memkeep.MemkeepError as error:
                    self.note(f"AFTER restore {row['id'][:8]} of {place}: {error.message}")
                    continue
                found = next(iter(back.rglob("facts.db"))).parent
                want = self.recorded.get(row["tag"])
                if want is not None:
                    have = hashes(found)
                    if have != want:
                        self.note(f"AFTER {row['tag']} of {place} came back otherwise: {have} not {want}")
                else:
                    try:
                        agent.read_moment(found)
                    except AssertionError as error:
                        self.note(f"AFTER live {row['id'][:8]} is torn: {error}")
                shutil.rmtree(back)
            on_machine = [name for name in (self.work / "tmp").iterdir() if name.is_dir()]
            if on_machine:
                self.counts["scratch left"] = len(on_machine)

    def open(self, place: str, secret: str) -> Any:
        os.environ.update({**self.place.environment, "HOME": str(self.place.home)})
        return memkeep.open_vault(place, secret)

    def sweep(self) -> None:
        """After a last prune or two there is nothing in the vault that nobody needs."""
        from memkeep.ops.prove import chunks_of, packs_of

        time.sleep(LIFE * 2 + 8)  # what was left of leases has ended by every clock
        for place, secret in ((self.vault, "pw"), (self.mirror, "pw2")):
            on = ("--vault", place, "--password-file", self.work / secret)
            for day in (0, 1, 2, 3):
                code, document = self.run("prune", *on, skew=day * 90000.0 if not self.place.fresh else 0.0)
                if code:
                    self.note(f"LAST prune of {place}: {code} {document}")
            vault = self.open(place, secret)._vault
            needed: set[str] = set()
            for one in vault.snapshots():
                needed |= set(packs_of(vault, chunks_of(one.parts, [vault.image(part) for part in one.parts])))
            there = {stat.key for stat in vault.storage.list("")}
            extra = {key for key in there if key.startswith("data/")} - needed
            extra |= {key for key in there if key.startswith(("leases/", "marks/"))}
            extra |= {
                key
                for key in there
                if not key.startswith(("data/", "index/", "snapshots/", "seals/", "keys/", "config"))
            }
            if extra:
                self.note(f"LAST garbage in {place}: {sorted(extra)}")
            lacking = needed - there
            if lacking:
                self.note(f"LAST lacking in {place}: {sorted(lacking)}")
            if "://" not in place:
                left = list((Path(place) / "tmp").iterdir())
                if left:
                    self.note(f"LAST temporary files in {place}: {left}")
            dead = {pack for packs in vault.index.segments.values() for pack in packs} - there
            if dead:
                self.note(f"LAST segments of {place} name packs that are gone: {sorted(dead)}")


class Place:
    """Where the vault lies."""

    fresh = True
    grace: tuple[str, ...] = ("--grace", "0")

    def __init__(self, kind: str, work: Path, stack: ExitStack) -> None:
        self.kind = kind
        self.home = work / "home"
        self.home.mkdir()
        self.environment: dict[str, str] = {}
        self._server: Any = None
        if kind == "local":
            self.vault = str(work / "vault")
        elif kind == "sftp":
            self._server = SshServer(work / "sshd", self.home)
            self._server.start()
            stack.callback(self._server.stop)
            (work / "served").mkdir()
            self.vault = self._server.url(work / "served" / "vault")
        else:
            self._server = stack.enter_context(servers.moto() if kind == "moto" else servers.rclone())
            self.environment = dict(self._server.environment)
            self.vault = self._server.bucket() + "/vault"
            self.fresh = False
            self.grace = ()

    def bounce(self) -> int:
        """Restart the server, where there is one that keeps what it has."""
        if self.kind == "sftp":
            self._server.restart()
            return 1
        if self.kind in {"moto", "rclone"}:  # it hangs for a while: its store is in its memory
            self._server.freeze()
            time.sleep(2.0)
            self._server.process.send_signal(signal.SIGCONT)
            return 1
        return 0


def hashes(store: Path) -> dict[str, str]:
    """Return the digests of a store's files that hold memory."""
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def say(*what: object) -> None:
    """Print at once."""
    print(*what, flush=True)  # noqa: T201 - this is a program


def main() -> int:
    """Soak, and say what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--place", default="local")
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memkeep-soak-")))
        for name in ("tmp", "back", "config"):
            (work / name).mkdir()
        (work / "pw").write_text("pw")
        (work / "pw2").write_text("pw2")
        soak = Soak(work, Place(words.place, work, stack), words.seed)
        for place, secret in ((soak.vault, "pw"), (soak.mirror, "pw2")):
            code, document = soak.run("init", "--vault", place, "--password-file", work / secret)
            if code:
                raise SystemExit(f"{document}")
        for number in range(words.rounds):
            before = len(soak.found)
            soak.round(words.seconds)
            soak.look()
            say(f"round {number}:", dict(soak.counts))
            if len(soak.found) > before and os.environ.get("SOAK_KEEP"):
                with suppress(FileExistsError):
                    shutil.copytree(work, os.environ["SOAK_KEEP"])
        soak.sweep()
        say(json.dumps(soak.counts))
        say(len(soak.found), "found")
        return 1 if soak.found else 0


if __name__ == "__main__":
    sys.exit(main())
