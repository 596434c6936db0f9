"""The format is open: a reader that knows only docs/format.md brings everything back."""

import ast
import hashlib
import importlib.util
import shutil
import sqlite3
import sys
import unicodedata
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from memkeep.model import PartImage
from memkeep.ops.backup import backup
from memkeep.ops.discover import discover
from memkeep.records import groups
from memkeep.storage.local import LocalStorage
from memkeep.testing.snapshots import read, take
from memkeep.vault import objects, opening, writer
from memkeep.vault.vault import Vault

READER = Path(__file__).with_name("independent_reader.py")
PASSWORD = "pässword"  # in a form that a keyboard may compose in two ways


@pytest.fixture(scope="module")
def independent() -> ModuleType:
    """Return the reader, loaded as a file."""
    spec = importlib.util.spec_from_file_location("independent_reader", READER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Made(NamedTuple):
    """A vault, what opens it, and the vault as memkeep sees it."""

    root: Path
    secrets: list[str | None]
    vault: Vault


@pytest.fixture(params=["encrypted", "plain"])
def aged(request: pytest.FixtureRequest, stores: Path, tmp_path: Path, home: Path) -> tuple[Made, list[dict[str, str]]]:
    """Return a vault with three days of a real store, and the digests of the store's files on each of them."""
    assert home.is_dir()
    store = tmp_path / "store"
    shutil.copytree(stores / "oc-memory", store)
    encrypted = request.param == "encrypted"
    vault, recovery = opening.create(LocalStorage(tmp_path / "vault"), PASSWORD if encrypted else None)
    days = []
    for day in range(3):
        database = sqlite3.connect(store / "memory.db")
        database.execute("create table if not exists aging (day integer, text text, vector blob)")
        vector = np.random.default_rng(day).standard_normal(3000).astype("<f4").tobytes()
        database.execute("insert into aging values (?, ?, ?)", (day, f"day {day} " * 99, vector))
        database.commit()
        database.close()
        backup(vault, discover([store]))
        days.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in store.rglob("*") if p.is_file()})
    decomposed = unicodedata.normalize("NFD", PASSWORD)
    assert decomposed != PASSWORD
    secrets = [PASSWORD, decomposed, recovery, recovery.lower().replace("-", " ")] if recovery else [None]
    return Made(tmp_path / "vault", secrets, vault), days


def test_the_reader_knows_nothing_of_memkeep() -> None:
    tree = ast.parse(READER.read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names = {name.partition(".")[0] for name in imported}
    assert names - set(sys.stdlib_module_names) == {"blake3", "cryptography", "msgspec", "zstandard"}


def test_it_restores_all_files_of_all_snapshots_byte_for_byte(
    aged: tuple[Made, list[dict[str, str]]], independent: ModuleType
) -> None:
    made, days = aged
    for secret in made.secrets:
        reader = independent.Reader(made.root, secret)
        snapshots = reader.snapshots()
        assert list(snapshots) == [one.id for one in made.vault.snapshots()]
        for one, day in zip(made.vault.snapshots(), days, strict=True):
            files = reader.files(snapshots[one.id])
            images = [made.vault.image(part) for part in one.parts]
            assert files == {path: data for image in images for path, data in contents(made.vault, image).items()}
            live = {Path(path).name: hashlib.sha256(data).hexdigest() for path, data in files.items()}
            assert {"memory.db"} <= live.keys() <= day.keys()
            assert live == {name: day[name] for name in live}


def contents(vault: Vault, image: PartImage) -> dict[str, bytes]:
    return {one.entry.path: vault.reader.read(one.recipe) for one in image.entries if one.recipe is not None}


def test_it_reads_all_records(aged: tuple[Made, list[dict[str, str]]], independent: ModuleType) -> None:
    made, _ = aged
    reader = independent.Reader(made.root, made.secrets[-1])
    for one in made.vault.snapshots():
        expected: dict[str, list[dict[str, Any]]] = {}
        for part in one.parts:
            for collection in made.vault.image(part).collections:
                rows = expected.setdefault(f"{part.name}/{collection.map.collection}", [])
                for group in collection.groups:
                    columns, values = groups.decode(made.vault.reader.chunk(group.chunk))
                    rows += [dict(zip(columns, row, strict=True)) for row in values]
        assert sum(map(len, expected.values())) > 0
        assert reader.records(reader.snapshots()[one.id]) == expected


def test_it_finds_every_object_that_the_seals_name(
    aged: tuple[Made, list[dict[str, str]]], independent: ModuleType
) -> None:
    made, _ = aged
    reader = independent.Reader(made.root, made.secrets[-1])
    seals = reader.seals()
    named = {
        key for seal in seals.values() for field in ("snapshots", "objects", "keys", "previous") for key in seal[field]
    }
    there = {path.relative_to(made.root).as_posix() for path in made.root.rglob("*") if path.is_file()}
    assert named | {"config", max(seals)} == there
    for key in there - {"config"}:
        reader.whole(key)


def test_it_reads_every_kind_of_blob(tmp_path: Path, independent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_DEPTH", 30)
    vault, recovery = opening.create(LocalStorage(tmp_path), PASSWORD)
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal(60_000) * 0.1).astype("<f4").tobytes()
    data = bytearray(
        b"".join(bytes(shift) + vectors[: 40_000 + shift] for shift in range(4)) + rng.bytes(50_001) + bytes(9000)
    )
    days = []
    for day in range(6):
        for at in range(day * 1000, len(data), 30_011):
            data[at : at + 9] = b"%09d" % (day * at)
        days.append({"mixed": bytes(data), "short": bytes(data[:5000]), "empty": b"", "tiny": b"%d" % day})
        take(vault, days[-1], created=f"{day}")
    with vault.writer() as one:
        texts = [b'{"id": %d, "text": "memories"}' % n * 200 for n in range(3)]
        ids = [one.put_blob(texts[0])]
        one.flush()
        ids += [one.put_blob(text, ids[0]) for text in texts[1:]]
        one.flush()
    reader = independent.Reader(tmp_path, recovery)
    assert [reader.files(manifest) for manifest in reader.snapshots().values()] == days
    assert [read(vault, snapshot) for snapshot in vault.snapshots()] == days
    assert [reader.chunk(one) for one in ids] == texts
    depths = {place[4] for place in reader.index.values()}
    assert {0, 1, 2} <= depths


def test_it_refuses_a_wrong_secret_and_a_changed_object(tmp_path: Path, independent: ModuleType) -> None:
    vault, _ = opening.create(LocalStorage(tmp_path), PASSWORD)
    take(vault, {"a": b"data" * 100}, created="1")
    with pytest.raises(independent.FormatError, match="opens no slot"):
        independent.Reader(tmp_path, "wrong")
    manifest = next((tmp_path / "snapshots").iterdir())
    manifest.write_bytes(manifest.read_bytes()[:-1])
    with pytest.raises(independent.FormatError, match="another digest"):
        independent.Reader(tmp_path, PASSWORD).snapshots()


def test_the_text_of_the_format_names_every_limit_as_it_is() -> None:
    from memkeep.vault import codec, crypto
    from memkeep.vault import format as layout

    text = Path(__file__, "../../../docs/format.md").resolve().read_text("utf-8")
    assert codec.MAX_CHUNK == 2**26
    assert codec.MAX_BLOCK == 2**17
    assert codec.MAX_BLOB == 2**26 + 2**20 + 4096
    assert objects.MAX_OBJECT == 2**28
    assert (crypto._MAX_MEMORY, crypto._MAX_PASSES, crypto._MAX_LANES) == (2**20, 16, 64)
    assert layout.VERSION == 1
    for said in ("2^26", "2^28", "2^20 KiB, 16 iterations or 64 lanes", crypto._ALPHABET, crypto.MAGIC.decode()):
        assert said in text
    for words in ("memkeep chunk id", "memkeep recovery", '"memkeep " | kind'):
        assert words in text
