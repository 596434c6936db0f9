"""Whole uses with the vault in an object store: as a process, with real servers and real stores."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.conftest import REPO, Ran

from memkeep.cli.main import run
from memkeep.errors import RefusedError, StorageError
from memkeep.library import init_vault
from memkeep.storage.places import storage_at
from memkeep.testing import agent
from memkeep.testing.servers import Server
from memkeep.testing.servers import moto as moto_of

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("moto_server", "rclone_server", "private_tmp")]


@pytest.mark.parametrize("name", ["moto", "rclone"])
def test_a_vault_in_an_object_store_is_made_filled_proven_and_read(
    name: str,
    request: pytest.FixtureRequest,
    run_cli: Callable[..., Ran],
    copy_store: Callable[..., Path],
    tree_hash: Callable[[Path], dict[str, str]],
    tmp_path: Path,
) -> None:
    server = request.getfixturevalue(name)
    place = server.bucket() + "/vaults/one"
    store = copy_store("oc-memory")
    before = tree_hash(store)

    def memkeep(*words: object) -> Any:
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


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path) -> Callable[..., None]:
    """Return `ask(*words)`: a command line that must succeed, in this process, with a password cheap to try."""
    monkeypatch.setattr("memkeep.vault.crypto.ARGON", {"memory_kib": 1024, "iterations": 1, "lanes": 1})
    monkeypatch.setenv("MEMKEEP_PASSWORD", "pw")

    def asked(*words: Any) -> None:
        status = run([*map(str, words), "--json"])
        assert status == 0, (words, capsys.readouterr().out)

    return asked


def test_a_days_backup_takes_few_requests(
    moto: Server,
    ask: Callable[..., None],
    writing: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    bucket = moto.bucket()
    memory = agent.build(tmp_path / "memory", lance=False)
    monkeypatch.setenv("MEMKEEP_VAULT", f"{bucket}/vault")
    ask("init")
    ask("backup", memory)
    with writing(memory, agent.KEPT + 3, "--no-lance") as day:
        day.stop()
    before = len(asked(moto, bucket))
    ask("backup", memory)
    assert len(asked(moto, bucket)) - before <= 30, asked(moto, bucket)[before:]


def asked(server: Server, bucket: str) -> list[str]:
    name = re.escape(bucket.removeprefix("s3://"))
    return re.findall(rf"[A-Z]+ /{name}\S* HTTP/1", server.log.read_text(errors="replace"))


@pytest.fixture
def append_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run an S3 that enforces the policy of the how-to, for a user who is this process and those it starts."""
    with moto_of(INITIAL_NO_AUTH_ACTION_COUNT="4") as server:  # then it checks who asks
        url = server.environment["AWS_ENDPOINT_URL"]
        admin = boto3.session.Session("admin", "admin", region_name="us-east-1")
        iam = admin.client("iam", endpoint_url=url)
        admin.client("s3", endpoint_url=url).create_bucket(Bucket="bucket")
        iam.create_user(UserName="machine")
        iam.put_user_policy(UserName="machine", PolicyName="append-only", PolicyDocument=policy())
        key = iam.create_access_key(UserName="machine")["AccessKey"]
        for name in list(os.environ):
            if name.startswith("AWS_"):
                monkeypatch.delenv(name)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        yield server


def policy() -> str:
    """Return the policy that the how-to shows."""
    page = (REPO / "docs" / "how-to" / "append-only.md").read_text(encoding="utf-8")
    return page.partition("```json\n")[2].partition("```")[0].replace("BUCKET", "bucket").replace("PREFIX", "vault")


def test_all_but_removal_works_for_who_may_not_delete(
    append_only: Server,
    ask: Callable[..., None],
    copy_store: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    store = copy_store("oc-memory")
    monkeypatch.setenv("MEMKEEP_VAULT", "s3://bucket/vault")
    for words in (
        ("init",),
        ("backup", store),
        ("backup", store),
        ("verify", "latest", "--rung", "restorable"),
        ("status",),
        ("diff", "latest", store),
        ("restore", "latest", "--to", tmp_path / "restored"),
    ):
        ask(*words)
    storage = storage_at("s3://bucket/vault")
    for stat in list(storage.list("")):
        with pytest.raises(StorageError) as error:
            storage.delete(stat.key)
        assert error.value.code == "storage_denied"


def test_a_prefix_that_holds_other_things_is_refused(moto: Server) -> None:
    bucket = moto.bucket()
    storage_at(bucket).put_new("photos/one", [b"x"])
    with pytest.raises(RefusedError, match="it holds photos") as error:
        init_vault(bucket, "pw")
    assert error.value.hint == f"memkeep init --vault {bucket}/vault"
    assert init_vault(f"{bucket}/vault", "pw").vault == f"{bucket}/vault"
    with pytest.raises(RefusedError, match="is a vault already"):
        init_vault(f"{bucket}/vault", "pw")
