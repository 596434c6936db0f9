"""Forgetting snapshots by rules and by name, and what must not go."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from memkeep import Retention, clock
from memkeep.errors import RefusedError, StorageError, StoreError, UsageError, VaultLeasedError
from memkeep.library import OpenVault
from memkeep.model import Rung
from memkeep.ops import ledger
from memkeep.ops.forget import ForgetResult
from memkeep.storage.append_only import AppendOnlyStorage

Days = Callable[..., list[str]]


@pytest.fixture
def vault(new_vault: Callable[..., OpenVault]) -> OpenVault:
    return new_vault()


@pytest.fixture
def days(vault: OpenVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    """Return `days(n, store="a")`: back up a store on n days, the last one being now; return the ids, oldest first."""

    def back_up(many: int, store: str = "a", *, verify: bool = True) -> list[str]:
        now = clock.now()
        folder = tmp_path / store
        folder.mkdir(exist_ok=True)
        made = []
        for number in reversed(range(many)):
            (folder / "MEMORY.md").write_text(f"# day {number} of {store}\n", encoding="utf-8")
            with monkeypatch.context() as patch:
                patch.setattr(clock, "now", lambda past=now - timedelta(days=number): past)
                made.append(vault.backup(folder, verify=verify).snapshots[0].id)
        return made

    return back_up


def names(result: ForgetResult) -> tuple[list[str], list[str]]:
    return [one.snapshot for one in result.kept], [one.snapshot for one in result.forgotten]


def listed(vault: OpenVault) -> list[str]:
    return [one.id for one in vault.snapshots().snapshots]


def test_what_no_rule_keeps_goes_and_the_rest_is_whole(vault: OpenVault, days: Days) -> None:
    made = days(5)
    plan = vault.forget(retention=Retention(keep_last=2), dry_run=True)
    assert listed(vault) == made
    done = vault.forget(retention=Retention(keep_last=2))
    assert (plan.dry_run, done.dry_run) == (True, False)
    assert (plan.kept, plan.forgotten) == (done.kept, done.forgotten)
    assert names(done) == (made[3:], made[:3])
    assert [one.reasons for one in done.kept] == [("last",), ("last", "last good")]
    assert listed(vault) == made[3:]
    report = vault.verify(all=True, rung=Rung.EQUIVALENT)
    assert report.all_findings == ()
    assert {one.rung for one in report.snapshots} == {Rung.EQUIVALENT}
    assert vault.forget(retention=Retention(keep_last=2)).forgotten == ()


def test_another_store_is_not_touched_by_what_is_named_or_kept(vault: OpenVault, days: Days) -> None:
    first, second = days(3, "a"), days(2, "b")
    assert vault.forget(first[0][:9]).forgotten[0].path.endswith("/a")
    vault.forget(retention=Retention(keep_daily=1))
    assert sorted(listed(vault)) == sorted([first[-1], second[-1]])


def test_the_last_good_one_goes_only_when_its_system_is_named(vault: OpenVault, days: Days) -> None:
    good = days(2)
    bad = days(1, verify=False)
    with pytest.raises(RefusedError) as error:
        vault.forget(*good)
    system = vault.show(good[0]).system
    assert error.value.code == "last_good"
    assert error.value.hint == f"memkeep forget {good[0][:12]} {good[1][:12]} --confirm={system}"
    with pytest.raises(RefusedError):
        vault.forget(*good, confirm="other")
    assert listed(vault) == [*good, *bad]
    assert names(vault.forget(retention=Retention(keep_last=1)))[1] == good[:1]
    vault.forget(good[1], confirm=system)
    with pytest.raises(RefusedError, match="is the last snapshot of"):
        vault.forget("latest")
    assert listed(vault) == bad
    vault.forget("latest", confirm=system)
    assert listed(vault) == []


def test_a_snapshot_that_was_found_damaged_is_no_good_one(vault: OpenVault, days: Days) -> None:
    made = days(2)
    ledger.note(vault.id, made[1], Rung.PRESENT, good=False)
    with pytest.raises(RefusedError, match=made[0][:12]):
        vault.forget(made[0])
    kept = vault.forget(retention=Retention(keep_last=1)).kept
    assert [(one.snapshot, one.reasons) for one in kept] == [(made[0], ("last good",)), (made[1], ("last",))]


@pytest.mark.damage
@pytest.mark.parametrize("loss", ["flipped", "removed"])
def test_a_snapshot_whose_manifest_is_lost_can_be_forgotten_and_then_the_vault_is_clean(
    vault: OpenVault, days: Days, home: Path, loss: str
) -> None:
    made = days(3)
    manifest = home / "vault" / "snapshots" / made[1]
    if loss == "removed":
        manifest.unlink()
    else:
        manifest.chmod(0o600)
        manifest.write_bytes(b"x" + manifest.read_bytes()[1:])
    vault._vault._manifests.clear()
    assert [one.object for one in vault.verify().all_findings] == [f"snapshots/{made[1]}"]
    plan = vault.forget(made[1][:10], dry_run=True)
    done = vault.forget(made[1][:10])
    assert plan.forgotten == done.forgotten
    assert [(one.snapshot, one.damaged, one.created) for one in done.forgotten] == [(made[1], True, None)]
    assert not manifest.exists()
    assert vault.verify(all=True).all_findings == ()
    assert listed(vault) == [made[0], made[2]]


def test_what_is_not_there_is_named(vault: OpenVault, days: Days) -> None:
    made = days(1)
    for name in ("zz", ""):
        with pytest.raises((StoreError, RefusedError)):
            vault.forget(name)
    with pytest.raises(StoreError):
        vault.forget(made[0], "zz", confirm="custom")
    assert listed(vault) == made


def test_without_a_rule_anywhere_nothing_goes(vault: OpenVault, days: Days) -> None:
    made = days(2)
    with pytest.raises(UsageError):
        vault.forget()
    assert listed(vault) == made


def test_two_at_once_are_one_too_many(vault: OpenVault, days: Days) -> None:
    made = days(3)
    with vault._vault.lease("prune", exclusive=True), pytest.raises(VaultLeasedError, match="memkeep prune"):
        vault.forget(retention=Retention(keep_last=1))
    assert listed(vault) == made
    with vault._vault.lease("prune", exclusive=True):
        assert len(vault.forget(retention=Retention(keep_last=1), dry_run=True).forgotten) == 2


def test_days_are_those_of_the_local_time_zone(vault: OpenVault, days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    days(2)
    found = set()
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):  # a whole day and an hour apart
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        result = vault.forget(retention=Retention(keep_daily=1), dry_run=True)
        found.add(result.kept[0].reasons[0])
        local = datetime.fromisoformat(result.kept[0].created).astimezone().date()
        assert result.kept[0].reasons[0] == f"daily {local}"
    monkeypatch.undo()
    time.tzset()
    assert len(found) == 2


def test_where_nothing_may_be_removed_the_log_says_nothing_of_it(vault: OpenVault, days: Days) -> None:
    made = days(2)
    inner = vault._vault
    inner.storage = AppendOnlyStorage(inner.storage)
    before = [stat.key for stat in inner.storage.list("")]
    with pytest.raises(StorageError) as error:
        vault.forget(made[0])
    assert error.value.code == "append_only"
    assert [stat.key for stat in inner.storage.list("")] == before
    assert len(vault.forget(made[0], dry_run=True).forgotten) == 1
