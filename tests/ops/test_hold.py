"""Object Lock, set and prolonged by memkeep itself, against a server that has it."""

import random
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jmespath
import pytest
from tests.conftest import REPO

from memkeep import clock
from memkeep.config import Period, Retention, VaultSettings
from memkeep.errors import StorageError, StorageUnreachableError, UnsupportedError, UsageError
from memkeep.model import Store
from memkeep.ops import open as opening
from memkeep.ops.backup import backup
from memkeep.ops.copy import copy
from memkeep.ops.discover import discover
from memkeep.ops.forget import forget
from memkeep.ops.outcome import status_of_prune
from memkeep.ops.prune import prune
from memkeep.ops.verify import verify
from memkeep.storage.object_lock_s3 import S3Locks
from memkeep.testing.servers import Server
from memkeep.vault.vault import Vault

PERIOD = timedelta(days=30)
DAY = timedelta(days=1)
FREE = ("leases/", "marks/", "tmp/")
pytestmark = pytest.mark.usefixtures("home")


class Bucket:
    """A bucket with Object Lock, as its owner sees it with the provider's own tools."""

    def __init__(self, server: Server, name: str) -> None:
        import boto3

        self.name = name
        self.url = f"s3://{name}/vault"
        self.boto: Any = boto3.client("s3", endpoint_url=server.environment["AWS_ENDPOINT_URL"])
        self.boto.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)

    def names(self) -> list[str]:
        listed = self.boto.list_objects_v2(Bucket=self.name).get("Contents", [])
        keys = (one["Key"].removeprefix("vault/") for one in listed)
        return [key for key in keys if not key.startswith(FREE)]

    def held(self) -> dict[str, datetime]:
        """Return until when every object is held: the smallest moment for one that is not."""
        return {
            key: self.head(key).get("ObjectLockRetainUntilDate", datetime.min.replace(tzinfo=UTC))
            for key in self.names()
        }

    def head(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.boto.head_object(Bucket=self.name, Key=f"vault/{key}")
        return found

    def versions(self) -> Any:
        return self.boto.list_object_versions(Bucket=self.name)


class Asked(list[tuple[str, str]]):
    """Requests about retention, in order: what and key."""


@pytest.fixture(scope="module")
def session() -> Any:
    """Return one session for all tests: each new one reads megabytes of what services there are."""
    import boto3

    return boto3.Session()


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch, session: Any) -> "Callable[[timedelta], None]":
    """Return `pass_time(span)`; time stands still else."""
    moment = [datetime.now(UTC).replace(microsecond=0)]
    monkeypatch.setattr(clock, "now", lambda: moment[0])
    monkeypatch.setattr(clock, "pause", lambda _: None)
    monkeypatch.setattr("boto3.Session", lambda: session)
    monkeypatch.setattr("memkeep.vault.crypto.ARGON", {"memory_kib": 1024, "iterations": 1, "lanes": 1})

    def pass_time(span: timedelta) -> None:
        moment[0] += span

    return pass_time


@pytest.fixture
def bucket(moto: Server, request: pytest.FixtureRequest) -> Bucket:
    """Return a bucket with Object Lock and no default retention."""
    name = re.sub("[^a-z0-9]+", "-", f"{request.node.name}-{id(request)}".lower())[-60:].strip("-")
    return Bucket(moto, name)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Return the requests about retention from now on."""
    found = Asked()
    for name in ("get", "set"):
        real = getattr(S3Locks, name)

        def noted(self: S3Locks, key: str, *rest: Any, _real: Any = real, _name: str = name) -> Any:
            found.append((_name, key))
            return _real(self, key, *rest)

        monkeypatch.setattr(S3Locks, name, noted)
    return found


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Return an empty folder for `learn`."""
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def learn(folder: Path, text: str) -> list[Store]:
    """Write a small file that is always the same, and one in place of the last one: too different for a delta."""
    for file in folder.iterdir():
        file.unlink()
    for name, size in (("always", 500), (text, 9000)):
        (folder / f"{name}.md").write_bytes(random.Random(name).randbytes(size))
    return discover([folder])


def settings_of(bucket: Bucket, **more: Any) -> VaultSettings:
    return VaultSettings(**{"url": bucket.url, "object_lock": Period(PERIOD), "cache": False, **more})


def opened(settings: VaultSettings) -> Vault:
    return opening.open_vault(settings.url, "pw", settings=settings)


def made(settings: VaultSettings) -> Vault:
    opening.init_vault(settings.url, "pw", settings=settings)
    return opened(settings)


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
def test_every_object_of_two_backups_is_held_and_no_version_of_it_can_be_removed(
    bucket: Bucket, notes: Path, mode: str
) -> None:
    settings = settings_of(bucket, object_lock_mode=mode)
    made(settings)
    assert len(bucket.held()) == 4  # config, two key slots, a seal
    for text in ("one", "two"):
        backup(opened(settings), learn(notes, text))
    held = bucket.held()
    assert len([key for key in held if key.startswith("snapshots/")]) == 2
    assert set(held.values()) == {clock.now() + PERIOD}
    assert {bucket.head(key)["ObjectLockMode"] for key in held} == {mode}
    for version in bucket.versions()["Versions"]:
        if not version["Key"].removeprefix("vault/").startswith(FREE):
            with pytest.raises(Exception, match="AccessDenied"):
                bucket.boto.delete_object(Bucket=bucket.name, Key=version["Key"], VersionId=version["VersionId"])
    leases = [one for one in bucket.versions()["Versions"] if "/leases/" in one["Key"]]
    for version in leases:
        bucket.boto.delete_object(Bucket=bucket.name, Key=version["Key"], VersionId=version["VersionId"])
    assert leases


def test_what_is_listed_is_prolonged_when_it_is_due_and_not_before(
    bucket: Bucket, notes: Path, now: Callable[[timedelta], None], asked: Asked
) -> None:
    settings = settings_of(bucket)
    made(settings)
    backup(opened(settings), learn(notes, "one"))
    first = bucket.held()
    now(9 * DAY)
    asked.clear()
    backup(opened(settings), learn(notes, "two"))
    assert sorted(asked) == sorted(("set", key) for key in bucket.held().keys() - first.keys())  # a request each
    assert first.items() <= bucket.held().items()
    now(2 * DAY)
    asked.clear()
    backup(opened(settings), learn(notes, "three"))
    held = bucket.held()
    assert {held[key] for key in first} == {clock.now() + PERIOD}  # the first snapshot, and all that it needs
    assert min(held.values()) >= clock.now() + PERIOD * 2 / 3
    assert len(asked) == len(set(asked))
    assert {what for what, _ in asked} == {"set"}


def packs_needed(vault: Vault) -> set[str]:
    from memkeep.ops.prove import chunks_of, packs_of

    latest = vault.snapshots()[-1]
    return set(packs_of(vault, chunks_of(latest.parts, [vault.image(part) for part in latest.parts])))


def test_a_machine_that_knows_nothing_asks_once(bucket: Bucket, notes: Path, home: Path, asked: Asked) -> None:
    settings = settings_of(bucket)
    made(settings)
    backup(opened(settings), learn(notes, "one"))
    before = bucket.held()
    (known,) = (home / ".local/state/memkeep/holds").iterdir()
    known.write_bytes(b"\x00\xff 2031 nonsense\n2031-01-01T00:00:00Z ../../etc\n2031-01-01T00:00:00Z con")
    asked.clear()
    backup(opened(settings), learn(notes, "two"))
    assert {key for what, key in asked if what == "get"} == before.keys()
    assert {key for what, key in asked if what == "set"} == bucket.held().keys() - before.keys()
    asked.clear()
    backup(opened(settings), learn(notes, "three"))
    assert not [key for what, key in asked if what == "get"]


def test_whatever_a_run_left_unheld_the_next_one_holds(
    bucket: Bucket, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(bucket)
    made(settings)
    real = S3Locks.set
    dead = 0
    for number in range(1, 20):
        left = iter(range(1, number))

        def cut_off(self: S3Locks, *given: Any, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt  # put and not held: as after a kill
            real(self, *given)

        monkeypatch.setattr(S3Locks, "set", cut_off)
        stores = learn(notes, f"try {number}")
        try:
            backup(opened(settings), stores)
        except KeyboardInterrupt:
            dead += 1
        else:
            break
        finally:
            monkeypatch.setattr(S3Locks, "set", real)
        assert min(bucket.held().values()) < clock.now()
        backup(opened(settings), stores)
        assert min(bucket.held().values()) == clock.now() + PERIOD
    assert dead >= 4  # a pack, an index segment, the manifest, its seal


def test_an_answer_that_was_lost_is_asked_for_again(
    bucket: Bucket, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(bucket)
    made(settings)
    real, calls = S3Locks.set, [0]

    def lost(self: S3Locks, *given: Any) -> None:
        calls[0] += 1
        if calls[0] % 2:
            if calls[0] % 4 == 1:
                real(self, *given)
            message = "no answer"
            raise StorageUnreachableError(message)
        real(self, *given)

    monkeypatch.setattr(S3Locks, "set", lost)
    backup(opened(settings), learn(notes, "one"))
    assert set(bucket.held().values()) == {clock.now() + PERIOD}


def test_an_init_that_was_cut_off_can_be_begun_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(bucket)

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("memkeep.vault.vault.Vault.next_seal", cut_off)
        with pytest.raises(KeyboardInterrupt):
            opening.init_vault(bucket.url, "pw", settings=settings)
    assert any(key.startswith("keys/") for key in bucket.names())
    made(settings)
    assert set(bucket.held().values()) == {clock.now() + PERIOD}


def test_a_vault_made_anew_at_a_place_is_held_whatever_was_known_of_the_one_before(
    bucket: Bucket, now: Callable[[timedelta], None]
) -> None:
    settings = settings_of(bucket)
    made(settings)
    for version in bucket.versions()["Versions"]:
        place = {"Bucket": bucket.name, "Key": version["Key"], "VersionId": version["VersionId"]}
        bucket.boto.delete_object(**place, BypassGovernanceRetention=True)
    now(DAY)
    made(settings)
    assert set(bucket.held().values()) == {clock.now() + PERIOD}


def test_what_somebody_hid_and_no_new_snapshot_needs_keeps_no_backup_from_being_made(
    bucket: Bucket, notes: Path, tmp_path: Path, now: Callable[[timedelta], None]
) -> None:
    settings = settings_of(bucket)
    made(settings)
    backup(opened(settings), learn(notes, "one"))
    before = set(bucket.names())
    now(DAY)
    other = tmp_path / "other"
    other.mkdir()
    backup(opened(settings), learn(other, "else"))
    own = packs_needed(opened(settings)) - before
    now(DAY)
    backup(opened(settings), learn(notes, "two"))
    victim = (own - packs_needed(opened(settings))).pop()
    bucket.boto.delete_object(Bucket=bucket.name, Key=f"vault/{victim}")
    now(11 * DAY)
    backup(opened(settings), learn(notes, "three"))
    assert len(opened(settings).snapshots()) == 4


def test_copies_are_held_too(bucket: Bucket, moto: Server, notes: Path, home: Path) -> None:
    opening.init_vault(str(home / "vault"), "pw")
    source = opening.open_vault(str(home / "vault"), "pw")
    backup(source, learn(notes, "one"))
    target = made(settings_of(bucket))
    copy(source, target)
    assert any(key.startswith("snapshots/") for key in bucket.names())
    assert set(bucket.held().values()) == {clock.now() + PERIOD}


def test_a_bucket_without_object_lock_is_told_before_anything_is_put(moto: Server, notes: Path) -> None:
    url = moto.bucket()
    settings = VaultSettings(url=f"{url}/vault", object_lock=Period(PERIOD))
    with pytest.raises(StorageError, match="has no Object Lock") as error:
        made(settings)
    assert error.value.code == "object_lock_missing"
    assert error.value.hint.startswith("aws s3api put-bucket-versioning")
    opening.init_vault(settings.url, "pw")
    before = list(opening.open_vault(settings.url, "pw").storage.list(""))
    with pytest.raises(StorageError, match="has no Object Lock"):
        backup(opened(settings), learn(notes, "one"))
    assert list(opening.open_vault(settings.url, "pw").storage.list("")) == before


def test_without_the_extra_it_is_named_and_reading_needs_it_not(
    bucket: Bucket, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(bucket)
    backup(made(settings), learn(notes, "one"))
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert len(opened(settings).snapshots()) == 1
    with pytest.raises(UnsupportedError, match="extra `aws`") as error:
        backup(opened(settings), learn(notes, "two"))
    assert "memkeep[aws]" in error.value.hint


@pytest.mark.parametrize("url", ["gs://bucket/vault", "sftp://u@h/v", "/srv/vault"])
def test_only_s3_holds(url: str) -> None:
    with pytest.raises(UsageError, match="is for s3://"):
        opening.init_vault(url, "pw", settings=VaultSettings(url=url, object_lock=Period(PERIOD)))


def test_what_is_forgotten_and_pruned_is_only_hidden_until_its_day(
    bucket: Bucket, notes: Path, now: Callable[[timedelta], None]
) -> None:
    settings = settings_of(bucket)
    made(settings)
    for text in ("one", "two"):
        backup(opened(settings), learn(notes, text))
        now(DAY)
    old = opened(settings).snapshots()[0]
    (gone,) = forget(opened(settings), retention=Retention(keep_last=1)).forgotten
    assert (gone.snapshot, gone.locked_until) == (old.id, (clock.now() + PERIOD - 2 * DAY).isoformat())
    prune(opened(settings), grace=20 * DAY)
    marked = {key for mark in opened(settings).marks().values() for key in mark.objects}
    before = bucket.held()
    now(20 * DAY)
    backup(opened(settings), learn(notes, "three"))
    held = bucket.held()
    assert {key for key, until in held.items() if until < clock.now() + PERIOD * 2 / 3} == marked
    looked = prune(opened(settings), grace=timedelta(0), dry_run=True)
    result = prune(opened(settings), grace=timedelta(0))
    hidden = held.keys() - bucket.held().keys()
    assert marked <= hidden
    assert result.locked_objects == len(hidden) == result.removed_objects > 0
    assert result.locked_bytes == result.removed_bytes == looked.locked_bytes > 0
    assert result.locked_until == looked.locked_until == max(held[key] for key in hidden).isoformat()
    assert status_of_prune(result) == 0
    there = {one["Key"].removeprefix("vault/"): one["VersionId"] for one in bucket.versions()["Versions"]}
    for key in marked:
        version = {"Bucket": bucket.name, "Key": f"vault/{key}", "VersionId": there[key]}
        assert bucket.boto.head_object(**version)["ObjectLockRetainUntilDate"] == before[key]
        with pytest.raises(Exception, match="AccessDenied"):
            bucket.boto.delete_object(**version)


def test_who_prunes_from_another_machine_hears_what_is_held(
    bucket: Bucket, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(bucket)
    made(settings)
    for text in ("one", "two"):
        backup(opened(settings), learn(notes, text))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    assert forget(opened(settings), retention=Retention(keep_last=1)).forgotten[0].locked_until
    assert prune(opened(settings), grace=timedelta(0)).locked_bytes > 0


def test_a_snapshot_that_was_forgotten_by_a_stranger_comes_back_whole(bucket: Bucket, notes: Path) -> None:
    settings = settings_of(bucket)
    made(settings)
    for text in ("one", "two", "three"):
        backup(opened(settings), learn(notes, text))
    listed = [one.id for one in opened(settings).snapshots()]
    forget(opened(settings), listed[:2])
    prune(opened(settings), grace=timedelta(0))
    assert [one.id for one in opened(settings).snapshots()] == listed[2:]
    unhide(bucket)
    assert [one.id for one in opened(settings).snapshots()] == listed
    report = verify(opened(settings), all=True)
    assert report.all_findings == ()
    backup(opened(settings), learn(notes, "four"))


def unhide(bucket: Bucket) -> None:
    """Do what the manual says, with what the command line of the provider asks of the server."""
    page = (REPO / "docs/how-to/append-only.md").read_text()
    (query,) = re.findall(r"--query \"(DeleteMarkers.*?)\"", page)
    for key, version in jmespath.search(query, bucket.versions()):
        assert not key.removeprefix("vault/").startswith(FREE)
        bucket.boto.delete_object(Bucket=bucket.name, Key=key, VersionId=version)


def test_what_somebody_hid_comes_back_by_the_command_of_the_manual(bucket: Bucket, notes: Path) -> None:
    settings = settings_of(bucket)
    made(settings)
    backup(opened(settings), learn(notes, "one"))
    whole = bucket.held()
    for key in whole:
        bucket.boto.delete_object(Bucket=bucket.name, Key=f"vault/{key}")
    assert bucket.names() == []
    unhide(bucket)
    assert bucket.held() == whole
    assert verify(opened(settings)).findings == ()
    backup(opened(settings), learn(notes, "two"))


def test_what_somebody_wrote_over_comes_back_by_the_command_of_the_manual(bucket: Bucket, notes: Path) -> None:
    settings = settings_of(bucket)
    made(settings)
    backup(opened(settings), learn(notes, "one"))
    victim = next(key for key in bucket.names() if key.startswith("data/"))
    bucket.boto.put_object(Bucket=bucket.name, Key=f"vault/{victim}", Body=b"mine now")
    assert victim in {one.object for one in verify(opened(settings)).all_findings}
    page = (REPO / "docs/how-to/append-only.md").read_text()
    (query,) = re.findall(r"--query \"(Versions.*?)\"", page)
    found = jmespath.search(query, bucket.versions())
    (version,) = (version for key, version, _ in found if key == f"vault/{victim}")
    source = {"Bucket": bucket.name, "Key": f"vault/{victim}", "VersionId": version}
    bucket.boto.copy_object(Bucket=bucket.name, Key=f"vault/{victim}", CopySource=source)
    assert verify(opened(settings)).findings == ()


@pytest.mark.parametrize(("mode", "days"), [("COMPLIANCE", 90), ("COMPLIANCE", 10), ("GOVERNANCE", 90)])
def test_a_longer_or_stricter_default_of_the_bucket_stays(
    bucket: Bucket, notes: Path, monkeypatch: pytest.MonkeyPatch, mode: str, days: int
) -> None:
    rule = {"DefaultRetention": {"Mode": mode, "Days": days}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    bucket.boto.put_object_lock_configuration(Bucket=bucket.name, ObjectLockConfiguration=lock)
    real = S3Locks.set

    def strict(self: S3Locks, key: str, retention: Any) -> None:
        """Refuse, as S3 does and this server does not, what is shorter or weaker."""
        found = self.get(key)
        if found is not None and (
            retention.until < found.until or (found.mode, retention.mode) == ("COMPLIANCE", "GOVERNANCE")
        ):
            raise StorageError("no", code="storage_denied")
        real(self, key, retention)

    monkeypatch.setattr(S3Locks, "set", strict)
    settings = settings_of(bucket)
    made(settings)
    backup(opened(settings), learn(notes, "one"))
    held = bucket.held()
    assert min(held.values()) >= clock.now() + max(PERIOD, timedelta(days=days)) - DAY
    assert {bucket.head(key)["ObjectLockMode"] for key in held} == {mode}


def test_a_denial_is_told(bucket: Bucket, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(bucket)
    made(settings)

    def denied(*_: Any) -> None:
        raise StorageError("may not", code="storage_denied")

    monkeypatch.setattr(S3Locks, "set", denied)
    with pytest.raises(StorageError, match="may not"):
        backup(opened(settings), learn(notes, "one"))
    assert opened(settings).snapshots() == []
