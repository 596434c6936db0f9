"""The ways into a vault: added, changed, revoked, and killed at every write of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

import memkeep
from memkeep.errors import RefusedError, StorageError, StoreError, UsageError, VaultLeasedError, WrongKeyError
from memkeep.library import OpenVault
from memkeep.ops import keys
from memkeep.ops.survey import survey
from memkeep.storage.append_only import AppendOnlyStorage
from memkeep.storage.local import LocalStorage
from memkeep.testing.faults import Fault, FaultyStorage, cut, flip
from memkeep.testing.snapshots import take
from memkeep.vault import crypto, opening
from memkeep.vault.vault import Vault


@pytest.fixture
def vault(new_vault: Callable[..., OpenVault]) -> Vault:
    return new_vault()._vault


@pytest.fixture
def place(home: Path) -> Path:
    return home / "vault"


def opens(place: Path, secret: str) -> bool:
    try:
        return opening.open_vault(LocalStorage(place), secret) is not None
    except WrongKeyError:
        return False


def slots_in(place: Path) -> set[str]:
    return {path.name for path in (place / "keys").iterdir()}


def test_all_passwords_open_the_vault_and_the_list_tells_them_apart(vault: Vault, place: Path) -> None:
    done = keys.add_password(vault, "pw", "Ünïcode 2", label="laptop")
    assert sorted((row.kind, row.label or "", row.state, row.yours) for row in done.slots) == [
        ("password", "", "good", True),
        ("password", "laptop", "good", False),
        ("recovery", "", "good", False),
    ]
    assert done.added == done.slots[-1].id
    assert opens(place, "pw")
    assert opens(place, "Ünïcode 2")
    again = opening.open_vault(LocalStorage(place), "Ünïcode 2")
    assert [row.yours for row in keys.list_keys(again, "Ünïcode 2").slots] == [False, False, True]
    assert survey(again) == []


def test_changing_puts_the_new_one_in_the_place_of_the_one_that_was_used(vault: Vault, place: Path) -> None:
    keys.add_password(vault, "pw", "two", label="laptop")
    done = keys.change_password(vault, "two", "three")
    assert [opens(place, word) for word in ("pw", "two", "three")] == [True, False, True]
    assert next(row for row in done.slots if row.id == done.added).label == "laptop"
    assert survey(vault) == []
    take(opening.open_vault(LocalStorage(place), "three"), {"a": b"x"}, created="1")
    assert survey(opening.open_vault(LocalStorage(place), "pw")) == []


def test_removing_wants_the_id_and_leaves_a_way_in(vault: Vault, place: Path) -> None:
    added = keys.add_password(vault, "pw", "two").added
    assert added
    for confirm in (None, "", added[:4], "0" * 64, "two"):
        with pytest.raises(RefusedError) as error:
            keys.remove_key(vault, "pw", added[:10], confirm=confirm)
        assert error.value.code == "not_confirmed"
        assert error.value.hint == f"memkeep key remove {added[:10]} --confirm={added[:12]}"
    assert keys.remove_key(vault, "pw", added[:10], confirm=added[:12]).removed == (added,)
    assert not opens(place, "two")
    with pytest.raises(StoreError):
        keys.remove_key(vault, "pw", added, confirm=added)
    with pytest.raises(StoreError):
        keys.remove_key(vault, "pw", "z", confirm=added)
    recovery = next(row.id for row in keys.list_keys(vault, "pw").slots if row.kind == "recovery")
    keys.remove_key(vault, "pw", recovery, confirm=recovery)
    mine = keys.list_keys(vault, "pw").slots[0].id
    for name in (mine, None):
        with pytest.raises(RefusedError) as error:
            keys.remove_key(vault, "pw", name, confirm=mine)
        assert error.value.code == "last_key"
    assert slots_in(place) == {mine}
    assert survey(vault) == []


def test_without_an_id_the_password_that_is_given_goes(vault: Vault, place: Path) -> None:
    keys.add_password(vault, "pw", "two")
    mine = next(row.id for row in keys.list_keys(vault, "two").slots if row.yours)
    keys.remove_key(opening.open_vault(LocalStorage(place), "two"), "two", None, confirm=mine[:12])
    assert (opens(place, "pw"), opens(place, "two")) == (True, False)


def test_a_new_recovery_key_replaces_the_old_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "ARGON", {"memory_kib": 32, "iterations": 1, "lanes": 1})
    old = memkeep.init_vault(home / "v", "pw").recovery_key
    assert old
    vault = opening.open_vault(LocalStorage(home / "v"), "pw")
    new = keys.new_recovery(vault, "pw").recovery_key
    assert new
    assert [opens(home / "v", key) for key in (old, new, "pw")] == [False, True, True]
    assert survey(vault) == []
    # Whoever has only the recovery key must set a password first: a new key that no one has read opens nothing.
    lost = opening.open_vault(LocalStorage(home / "v"), new)
    for act in (keys.new_recovery, lambda *given: keys.change_password(*given, "three")):
        with pytest.raises(RefusedError) as error:
            act(lost, new)
        assert error.value.hint.startswith("memkeep key add")
    keys.add_password(lost, new, "three")
    assert opens(home / "v", "three")


@pytest.mark.damage
@pytest.mark.parametrize("damage", [lambda path: flip(path, 40), lambda path: cut(path, 5), lambda path: cut(path, 0)])
def test_a_damaged_key_can_be_removed_and_then_the_vault_is_clean(
    vault: Vault, place: Path, damage: Callable[[Path], None]
) -> None:
    added = keys.add_password(vault, "pw", "two").added
    assert added
    (place / "keys" / added).chmod(0o600)
    damage(place / "keys" / added)
    opened = opening.open_vault(LocalStorage(place), "pw")
    assert [finding.object for finding in survey(opened)] == [f"keys/{added}"]
    assert [(row.id, row.kind) for row in keys.list_keys(opened, "pw").slots if row.state == "damaged"] == [
        (added, "unknown")
    ]
    keys.remove_key(opened, "pw", added, confirm=added)
    assert survey(opening.open_vault(LocalStorage(place), "pw")) == []


def test_a_damaged_key_is_no_way_in_that_is_left(vault: Vault, place: Path) -> None:
    rows = {row.kind: row.id for row in keys.list_keys(vault, "pw").slots}
    (place / "keys" / rows["recovery"]).chmod(0o600)
    flip(place / "keys" / rows["recovery"], 30)
    with pytest.raises(RefusedError, match="last way into the vault"):
        keys.remove_key(vault, "pw", rows["password"], confirm=rows["password"])


def test_a_vault_without_encryption_has_no_keys(new_vault: Callable[..., OpenVault]) -> None:
    vault = new_vault("plain", encrypted=False)._vault
    assert keys.list_keys(vault, None).slots == ()
    with pytest.raises(RefusedError) as error:
        keys.add_password(vault, "", "two")
    assert error.value.code == "not_encrypted"


def test_a_label_stays_a_label(vault: Vault, place: Path) -> None:
    before = slots_in(place)
    for label in ("x" * 61, "two\nlines", "\x1b[2J"):
        with pytest.raises(UsageError):
            keys.add_password(vault, "pw", "two", label=label)
    assert slots_in(place) == before
    # A slot without a label is what it was before there were labels.
    assert b"label" not in b"".join((place / "keys" / name).read_bytes() for name in before)


def test_two_at_once_are_one_too_many(vault: Vault, place: Path) -> None:
    before = slots_in(place)
    with vault.lease("key", exclusive=True), pytest.raises(VaultLeasedError):
        keys.change_password(vault, "pw", "two")
    assert slots_in(place) == before
    assert keys.list_keys(vault, "pw").slots


ACTS = {
    "change": lambda vault: keys.change_password(vault, "pw", "two"),
    "recovery": lambda vault: keys.new_recovery(vault, "pw"),
    "remove": lambda vault: keys.remove_key(
        vault, "pw", None, confirm=next(row.id for row in keys.list_keys(vault, "pw").slots if row.yours)
    ),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_storage_that_removes_nothing_is_told_of_and_the_old_one_still_opens(act: str, place: Path) -> None:
    memkeep.init_vault(place, "pw")
    storage = FaultyStorage(
        LocalStorage(place), Fault(call="delete", number=1, kind="refuse", prefix="keys/", lasting=True)
    )
    vault = opening.open_vault(storage, "pw")
    with pytest.raises(StorageError) as error:
        ACTS[act](vault)
    assert error.value.unchanged == "The new key opens the vault, and so does the old one still."
    assert opens(place, "pw")
    assert {finding.code for finding in survey(vault)} == {"key_revoked"}


@pytest.mark.damage
def test_a_new_key_that_was_not_stored_as_it_was_written_revokes_nothing(place: Path) -> None:
    memkeep.init_vault(place, "pw")
    storage = FaultyStorage(LocalStorage(place), Fault(call="put_new", number=1, kind="corrupt", prefix="keys/"))
    before = slots_in(place)
    with pytest.raises(memkeep.errors.DamagedError):
        keys.change_password(opening.open_vault(storage, "pw"), "pw", "two")
    assert before < slots_in(place)
    assert opens(place, "pw")


@pytest.mark.parametrize("act", ACTS)
def test_where_nothing_may_be_removed_no_key_is_made_that_should_replace_one(
    act: str, vault: Vault, place: Path
) -> None:
    vault.storage = AppendOnlyStorage(vault.storage)
    before, seals = slots_in(place), vault.seals()
    with pytest.raises(StorageError) as error:
        ACTS[act](vault)
    assert error.value.code == "append_only"
    assert (slots_in(place), vault.seals()) == (before, seals)
    keys.add_password(vault, "pw", "two")
    assert opens(place, "two")


def test_a_key_that_was_wrapped_wrong_revokes_nothing(
    vault: Vault, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = crypto.password_slot
    monkeypatch.setattr(crypto, "password_slot", lambda master, password, *rest: right(master, password + "x", *rest))
    with pytest.raises(memkeep.errors.DamagedError, match="does not open the vault"):
        keys.change_password(vault, "pw", "two")
    assert opens(place, "pw")


@pytest.mark.damage
def test_a_slot_that_cannot_be_read_any_more_is_not_taken_for_a_revoked_one(place: Path) -> None:
    memkeep.init_vault(place, "pw")
    vault = opening.open_vault(LocalStorage(place), "pw")
    for slot in (place / "keys").iterdir():
        slot.chmod(0o600)
        slot.write_bytes(slot.read_bytes()[:-1])
    with pytest.raises(memkeep.errors.DamagedError) as error:
        keys.change_password(vault, "pw", "two")
    assert error.value.obj.startswith("keys/")
    assert error.value.unchanged == "No key was changed."
