"""Whole uses with the vault in an object store: as a process, with real servers and real stores."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from memkeep.errors import RefusedError
from memkeep.library import init_vault
from memkeep.storage.places import storage_at
from memkeep.testing import agent
from memkeep.testing.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("moto_server", "rclone_server", "private_tmp")]


@pytest.mark.parametrize("name", ["moto", "rclone"])
def test_a_vault_in_an_object_store_is_made_filled_proven_and_read(
    name: str,
    request: pytest.FixtureRequest,
    run_cli: Callable[..., object],
    copy_store: Callable[..., Path],
    tree_hash: Callable[[Path], dict[str, str]],
    tmp_path: Path,
) -> None:
    server = request.getfixturevalue(name)
    place = server.bucket() + "/vaults/one"
    store = copy_store("oc-memory")
    before = tree_hash(store)

    def memkeep(*words: object) -> object:
        done = run_cli(*words, "--vault", place, "--json", env={"MEMKEEP_PASSWORD": "pw"})
        assert done.code == 0, done.stdout
        return done.result

    assert memkeep("init")["vault"] == place
    snapshot = memkeep("backup", store)["snapshots"][0]["id"]
    memkeep("status")
    memkeep("verify", snapshot, "--rung", "equivalent")
    memkeep("restore", snapshot, "--to", tmp_path / "restored")
    assert any(
        path.read_bytes() == (store / "memory.db").read_bytes() for path in (tmp_path / "restored").rglob("*.db")
    )
    memkeep("diff", snapshot, store)
    assert tree_hash(store) == before


def test_a_days_backup_takes_few_requests(moto: Server, run_cli: Callable[..., object], tmp_path: Path) -> None:
    bucket = moto.bucket()
    memory = agent.build(tmp_path / "memory", lance=False)
    environment = {"MEMKEEP_PASSWORD": "pw", "MEMKEEP_VAULT": f"{bucket}/vault"}
    for words in (("init",), ("backup", memory)):
        assert run_cli(*words, env=environment).code == 0
    before = len(asked(moto, bucket))
    assert run_cli("backup", memory, env=environment).code == 0
    assert len(asked(moto, bucket)) - before <= 30, asked(moto, bucket)[before:]


def asked(server: Server, bucket: str) -> list[str]:
    name = re.escape(bucket.removeprefix("s3://"))
    return re.findall(rf"[A-Z]+ /{name}\S* HTTP/1", server.log.read_text(errors="replace"))


def test_a_prefix_that_holds_other_things_is_refused(moto: Server) -> None:
    bucket = moto.bucket()
    storage_at(bucket).put_new("photos/one", [b"x"])
    with pytest.raises(RefusedError, match="it holds photos") as error:
        init_vault(bucket, "pw")
    assert error.value.hint == f"memkeep init --vault {bucket}/vault"
    assert init_vault(f"{bucket}/vault", "pw").vault == f"{bucket}/vault"
    with pytest.raises(RefusedError, match="is a vault already"):
        init_vault(f"{bucket}/vault", "pw")
