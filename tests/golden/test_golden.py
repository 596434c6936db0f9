"""Vaults that the first version wrote: every version to come opens, proves and restores them, byte for byte."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.golden.make import files_of, live
from tests.vault import independent_reader

import memkeep
from memkeep.model import Rung
from memkeep.vault import format as layout
from memkeep.vault.vault import Vault

HERE = Path(__file__).with_name("v1")
EXPECTED: dict[str, Any] = json.loads((HERE / "expected.json").read_text("utf-8"))
NAMES = ["vault", "mirror"]

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("home")]


@pytest.fixture
def golden(tmp_path: Path) -> Callable[[str], Path]:
    """Return `golden(name)`: a writable copy."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(HERE / name, tmp_path / name))

    return copy


def opened(root: Path, secret: str = "") -> Vault:
    return memkeep.open_vault(root, secret or EXPECTED["passwords"][root.name])._vault


@pytest.mark.parametrize("name", NAMES)
def test_every_snapshot_is_listed_proven_and_restored(name: str, golden: Callable[[str], Path], tmp_path: Path) -> None:
    vault = memkeep.open_vault(golden(name), EXPECTED["passwords"][name])
    listed = {one.id: (one.created, one.tag) for one in vault.snapshots().snapshots}
    assert listed == {one: (want["created"], want["tag"]) for one, want in EXPECTED[name].items()}
    report = vault.verify(all=True, rung=Rung.EQUIVALENT)
    assert report.all_findings == ()
    assert {one.rung for one in report.snapshots} == {Rung.EQUIVALENT}
    for one, want in EXPECTED[name].items():
        vault.restore(one, to=tmp_path / one)
        assert files_of(tmp_path / one) == want["files"]


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_that_are_kept_here_are_those_that_were_written(name: str) -> None:
    keys = [path.relative_to(HERE / name).as_posix() for path in (HERE / name).rglob("*") if path.is_file()]
    for key in keys:
        if key != "config":
            layout.check_name(key, (HERE / name / key).read_bytes())
    assert layout.decode_config((HERE / name / "config").read_bytes()).version == 1


def test_they_hold_what_a_reader_may_get_wrong(golden: Callable[[str], Path]) -> None:
    vault = opened(golden("vault"))
    depths = [place.depth for _, place in vault.index.entries(vault.index.packs)]
    assert max(depths) >= 3  # a chain of deltas
    assert EXPECTED["forgotten"] not in EXPECTED["vault"]
    assert any(layout.SNAPSHOTS + EXPECTED["forgotten"] in seal.forgotten for seal in vault.seals().values())
    origins = [one.origin for one in opened(golden("mirror")).snapshots()]
    assert {(one.vault, one.snapshot) for one in origins if one} == {
        (vault.config.id, twin) for twin in (min(EXPECTED["vault"], key=_created), max(EXPECTED["vault"], key=_created))
    }


def _created(name: str) -> str:
    created: str = EXPECTED["vault"][name]["created"]
    return created


def test_the_recovery_key_opens_it(golden: Callable[[str], Path]) -> None:
    assert {one.id for one in opened(golden("vault"), EXPECTED["recovery"]).snapshots()} == EXPECTED["vault"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_reader_that_knows_only_the_format_reads_it(name: str) -> None:
    reader = independent_reader.Reader(HERE / name, EXPECTED["passwords"][name])
    assert set(reader.snapshots()) == EXPECTED[name].keys()


@pytest.mark.parametrize("name", ["packed.tar.zst", "packed.tar.zst.age"])
def test_the_packed_file_gives_the_last_snapshot(name: str, tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    identity.write_text(EXPECTED["identity"])
    identity.chmod(0o600)
    identities = [identity] if name.endswith(".age") else []
    memkeep.restore_file(HERE / name, to=tmp_path / "back", identities=identities)
    assert files_of(tmp_path / "back") == EXPECTED["vault"][max(EXPECTED["vault"], key=_created)]["files"]


def test_this_version_goes_on_with_it(golden: Callable[[str], Path], tmp_path: Path) -> None:
    root = golden("vault")
    vault = memkeep.open_vault(root, EXPECTED["passwords"]["vault"])
    live(tmp_path / "agent", 0)
    [made] = vault.backup(tmp_path / "agent").snapshots
    first, *others = EXPECTED["vault"]
    vault.forget(first)
    vault.prune()
    assert vault.verify(all=True, rung=Rung.INTACT).all_findings == ()
    assert {one.id for one in vault.snapshots().snapshots} == {made.id, *others}
    vault.restore(others[0], to=tmp_path / "back")
    assert files_of(tmp_path / "back") == EXPECTED["vault"][others[0]]["files"]
