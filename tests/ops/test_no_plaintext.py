"""Nothing of a memory can be found in an encrypted vault, in what is kept of it here, in a locked file, or in logs."""

import base64
import hashlib
import random
import socket
import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyrage
import pytest
import zstandard
from blake3 import blake3

import memkeep
from memkeep.cli.main import run
from memkeep.ops import open as opening
from memkeep.storage.memory import MemoryStorage

TEXT = "Zq7Wunderbar remembers the Blue Heron \u00fc\u6f22 of last spring"
INSIDE = {  # of a store
    "text": TEXT,
    "row": "Zq7Row: the second thing that was learned",
    "file": "Zq7file-of-notes",
    "folder": "Zq7folder",
    "table": "Zq7table",
    "tag": "Zq7tag",
    "label": "Zq7label",
    "host": "zq7host",
    "user": "zq7user",
}
AROUND = {"store": "Zq7store", "name": "zq7name"}  # what the user calls it, in the settings too
RUNS = b"\x28\xb5\x2f\xfd"  # how a frame of zstd begins


class Recorded(MemoryStorage):
    """A far storage that remembers everything that it was ever given: leases and marks come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = self.capabilities._replace(near=False)
        self.ever: dict[str, bytes] = {}

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        whole = b"".join(data)
        self.ever[key] = whole
        return super().put_new(key, [whole])


class World(NamedTuple):
    """A vault in a storage, and all folders around it."""

    storage: Recorded
    home: Path
    locked: bytes  # a packed file, encrypted
    recovery: str


def spellings(word: str) -> set[bytes]:
    """Return a word in every way in which it might be written down."""
    found = set()
    for text in {word, word.lower(), word.upper()}:
        for data in (text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be")):
            found |= {data, data.hex().encode(), data.hex().upper().encode(), data[::-1]}
            for shift in range(3):
                coded = base64.b64encode(b"\0" * shift + data)[4 if shift else 0 : -4]
                found |= {coded, base64.urlsafe_b64encode(b"\0" * shift + data)[4 if shift else 0 : -4]}
    return {one for one in found if len(one) >= 6}


def layers(data: bytes) -> Iterable[bytes]:
    """Yield bytes, and whatever in them can be decompressed."""
    yield data
    for magic, opener in ((RUNS, _zstd), (b"\x78", _zlib), (b"\x1f\x8b", _zlib)):
        at = data.find(magic)
        while at >= 0:
            yield opener(data[at:])
            at = data.find(magic, at + 1)


def _zstd(data: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError:
        return b""


def _zlib(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data)
    except zlib.error:
        return b""


def told(places: dict[str, bytes], words: dict[str, str]) -> set[tuple[str, str]]:
    """Return which words can be found in which places."""
    wanted = [(what, spelling) for what, word in words.items() for spelling in spellings(word)]
    whole = hashlib.sha256(TEXT.encode()), blake3(TEXT.encode())
    wanted += [("digest", one) for hashed in whole for one in (hashed.digest(), hashed.hexdigest().encode())]
    return {
        (place, what)
        for place, data in places.items()
        for layer in layers(place.encode() + b"\n" + data)
        for what, spelling in wanted
        if spelling in layer
    }


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lived(home: Path, monkeypatch: pytest.MonkeyPatch, *, encrypt: bool) -> World:
    """Back up, run, copy, prune and pack a store whose every word is unmistakable."""
    storages = {"s3://bucket/one": Recorded(), "s3://bucket/two": Recorded()}
    monkeypatch.setattr(opening, "storage_at", lambda url: storages[str(url)])
    monkeypatch.setattr(socket, "gethostname", lambda: INSIDE["host"])
    monkeypatch.setenv("LOGNAME", INSIDE["user"])
    monkeypatch.setattr("memkeep.vault.crypto.ARGON", {"memory_kib": 1024, "iterations": 1, "lanes": 1})
    store = home / AROUND["store"]
    inner = store / INSIDE["folder"]
    inner.mkdir(parents=True)
    note = inner / f"{INSIDE['file']}.md"
    note.write_text(TEXT, encoding="utf-8")
    bulk = inner / "bulk.md"
    bulk.write_text(random.Random(1).randbytes(20_000).hex())  # what a prune gives back
    database = sqlite3.connect(store / "memory.db")
    database.execute(f"create table {INSIDE['table']} (id integer primary key, text text)")
    database.executemany(f"insert into {INSIDE['table']} (text) values (?)", [(INSIDE["row"],)] * 30)
    database.commit()
    database.close()
    word = home / "word"
    word.write_text("pw")
    word.chmod(0o600)
    settings = home / ".config" / "memkeep" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        f'vault = "one"\n[vaults.one]\nurl = "s3://bucket/one"\npassword_file = "{word}"\n'
        f'[vaults.two]\nurl = "s3://bucket/two"\npassword_file = "{word}"\n'
        f'[stores.{AROUND["name"]}]\npath = "{store}"\n[retention]\nkeep_last = 1\n[run]\ncopy_to = ["two"]\n'
    )
    made = [memkeep.init_vault(url, "pw" if encrypt else None, encrypt=encrypt) for url in storages]
    vault = memkeep.open_vault("one", "pw" if encrypt else None)
    vault.backup(store, tag=INSIDE["tag"], label=INSIDE["label"])
    note.write_text(TEXT * 2, encoding="utf-8")
    bulk.unlink()
    assert run(["run", "--json"]) == 0
    run(["verify", INSIDE["tag"], "--json"])  # what fails must not tell more
    lock = pyrage.x25519.Identity.generate().to_public()
    vault.pack(
        memkeep.open_vault("one", "pw" if encrypt else None).snapshots().snapshots[0].id,
        home / "locked",
        recipients=[str(lock)],
    )
    everything = Recorded()
    for storage in storages.values():
        everything.ever |= storage.ever
    return World(everything, home, (home / "locked").read_bytes(), made[0].recovery_key or "")


def test_no_word_of_a_memory_can_be_found_outside_of_it(
    home: Path, private_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = lived(home, monkeypatch, encrypt=True)
    kinds = {key.partition("/")[0] for key in world.storage.ever}
    assert kinds == {"config", "keys", "data", "index", "snapshots", "seals", "leases", "marks"}
    assert told(world.storage.ever, INSIDE | AROUND | {"recovery": world.recovery}) == set()
    assert told({"packed": world.locked}, INSIDE | AROUND) == set()
    cached = files(home / ".cache")
    assert len(cached) > 5
    assert told(cached, INSIDE | AROUND) == set()
    state = files(home / ".local" / "state")
    assert any(name.endswith("run.log") for name in state)
    assert told(state, INSIDE) == set()  # it may say which store it was


def test_the_search_finds_everything_in_a_vault_that_is_not_encrypted(
    home: Path, private_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = lived(home, monkeypatch, encrypt=False)
    assert {what for _, what in told(world.storage.ever, INSIDE | AROUND)} >= INSIDE.keys() | {"store"}


@pytest.mark.parametrize(
    "how", [str.encode, lambda word: zlib.compress(word.encode()), lambda word: base64.b64encode(b"ab" + word.encode())]
)
def test_the_search_sees_through_what_is_not_encryption(how: object) -> None:
    assert told({"place": b"before" + how(TEXT) + b"after"}, INSIDE) == {("place", "text")}  # type: ignore[operator]
