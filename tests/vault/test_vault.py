from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from memkeep.errors import DamagedError, RefusedError, StorageError, StoreError, VaultMissingError, WrongKeyError
from memkeep.storage.local import LocalStorage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import FaultyStorage
from memkeep.testing.snapshots import PATH, SYSTEM, read, take
from memkeep.vault import crypto, opening
from memkeep.vault import format as layout
from memkeep.vault import vault as vaults
from memkeep.vault.vault import Vault

Reopen = Callable[[], Vault]


def folders(storage: MemoryStorage) -> list[str]:
    return sorted(key.split("/")[0] for key in storage.objects)


def test_a_new_vault_has_two_keys_a_seal_and_its_config(storage: MemoryStorage) -> None:
    vault, recovery = opening.create(storage, "pw")
    assert folders(storage) == ["config", "keys", "keys", "seals"]
    assert recovery is not None
    for secret in ("pw", recovery, recovery.lower().replace("-", " ")):
        found = opening.open_vault(storage, secret)
        assert found.snapshots() == []
        assert found.config == vault.config
        (seal,) = found.seals().values()
        assert set(seal.keys) == {key for key in storage.objects if key.startswith("keys/")}
    assert vault.config.encrypted


def test_a_vault_without_encryption_has_no_keys(storage: MemoryStorage) -> None:
    vault, recovery = opening.create(storage, None)
    assert recovery is None
    assert folders(storage) == ["config", "seals"]
    assert not vault.config.encrypted
    take(vault, {"a": b"some text " * 100}, created="1")
    found = opening.open_vault(storage, None)
    assert read(found, found.resolve("latest")) == {"a": b"some text " * 100}


def test_a_vault_is_not_made_twice(storage: MemoryStorage, vault: Vault) -> None:
    before = dict(storage.objects)
    with pytest.raises(RefusedError, match="is a vault already"):
        opening.create(storage, "pw")
    assert storage.objects == before
    assert opening.open_vault(storage, "correct horse").config == vault.config


def test_of_two_who_make_a_vault_at_once_one_is_refused(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "exists", lambda _: False)
    opening.create(storage, None)
    with pytest.raises(RefusedError, match="is a vault already"):
        opening.create(storage, None)


def test_an_interrupted_init_leaves_no_vault_and_can_be_done_again(storage: MemoryStorage) -> None:
    opening.create(storage, "pw")
    del storage.objects["config"]
    with pytest.raises(VaultMissingError):
        opening.open_vault(storage, "pw")
    vault, recovery = opening.create(storage, "pw")
    assert folders(storage) == ["config", "keys", "keys", "seals"]
    take(vault, {"a": b"x"}, created="1")
    for secret in ("pw", recovery):
        found = opening.open_vault(storage, secret)
        assert read(found, found.snapshots()[0]) == {"a": b"x"}


def test_a_vault_whose_config_was_removed_is_damaged_and_is_not_made_anew(storage: MemoryStorage, vault: Vault) -> None:
    take(vault, {"a": b"x"}, created="1")
    config = storage.objects.pop("config")
    before = dict(storage.objects)
    for ask in (
        lambda: opening.open_vault(storage, "correct horse"),
        lambda: opening.create(storage, "pw"),
    ):
        with pytest.raises(DamagedError, match="config is missing") as error:
            ask()
        assert error.value.obj == "config"
    assert storage.objects == before
    storage.objects["config"] = config
    assert opening.open_vault(storage, "correct horse").snapshots()


def test_the_password_is_asked_for_only_when_it_is_needed(storage: MemoryStorage, vault: Vault) -> None:
    plain = MemoryStorage()
    opening.create(plain, None)
    asked: list[str] = []

    def ask() -> str:
        asked.append("once")
        return "correct horse"

    opening.open_vault(plain, ask)
    assert asked == []
    opening.open_vault(storage, ask)
    assert asked == ["once"]
    with pytest.raises(WrongKeyError, match="no password was given"):
        opening.open_vault(storage, lambda: None)


def test_a_vault_is_opened_with_few_requests(storage: MemoryStorage, vault: Vault) -> None:
    counted = FaultyStorage(storage)
    opening.open_vault(counted, "correct horse")
    calls = [(call, key.partition("/")[0]) for call, key in counted.calls]
    assert sorted(calls) == [
        ("get", "config"),
        ("get", "keys"),
        ("get", "keys"),
        ("list", "index"),
        ("list", "keys"),
        ("list", "marks"),
    ]


def test_where_no_vault_is_that_is_said(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "nothing")
    with pytest.raises(VaultMissingError, match="there is no vault at"):
        opening.open_vault(storage, None)
    assert not opening.exists(storage)
    assert not (tmp_path / "nothing").exists()


def test_a_vault_that_is_a_file_is_an_error_of_storage(tmp_path: Path) -> None:
    (tmp_path / "vault").write_bytes(b"x")
    storage = LocalStorage(tmp_path / "vault")
    for ask in (lambda: opening.open_vault(storage, None), lambda: opening.create(storage, None)):
        with pytest.raises(StorageError, match="Not a directory"):
            ask()


def test_a_wrong_or_a_missing_password_is_told(storage: MemoryStorage, vault: Vault) -> None:
    assert vault.keys.encrypted
    with pytest.raises(WrongKeyError, match="does not open"):
        opening.open_vault(storage, "wrong")
    with pytest.raises(WrongKeyError, match="no password was given") as error:
        opening.open_vault(storage, None)
    assert error.value.code == "password_missing"


def test_a_vault_all_of_whose_keys_were_removed_is_damaged(storage: MemoryStorage, vault: Vault) -> None:
    for key in [key for seal in vault.seals().values() for key in seal.keys]:
        del storage.objects[key]
    with pytest.raises(DamagedError, match="all key slots were removed"):
        opening.open_vault(storage, "correct horse")


def test_one_damaged_key_slot_leaves_the_other(storage: MemoryStorage) -> None:
    _, recovery = opening.create(storage, "pw")
    slots = {key: msgspec.json.decode(data) for key, data in storage.objects.items() if key.startswith("keys/")}
    key = next(key for key, slot in slots.items() if slot["kind"] == "password")
    storage.objects[key] = storage.objects[key].replace(b'"lanes":1', b'"lanes":2')
    with pytest.raises(DamagedError) as error:
        opening.open_vault(storage, "pw")
    assert error.value.obj == key
    found = opening.open_vault(storage, recovery)
    assert [one.obj for one in found.damaged] == [key]


def test_a_hostile_key_slot_does_not_stop_the_good_one(storage: MemoryStorage, vault: Vault) -> None:
    data = msgspec.json.encode({"kind": "password", "created": "", "salt": "", "wrapped": "", "memory_kib": 1 << 40})
    key = layout.KEYS + layout.digest_of(data)
    storage.objects[key] = data
    found = opening.open_vault(storage, "correct horse")
    assert [one.obj for one in found.damaged] == [key]
    assert found.config == vault.config


def test_a_key_slot_of_a_newer_kind_is_passed_over(storage: MemoryStorage, vault: Vault) -> None:
    data = msgspec.json.encode({"version": 2, "kind": "token", "created": "", "salt": "", "wrapped": "", "more": 1})
    storage.objects[layout.KEYS + layout.digest_of(data)] = data
    found = opening.open_vault(storage, "correct horse")
    assert found.damaged == []
    assert found.config == vault.config
    storage.objects = {
        key: storage.objects[key] for key in storage.objects if key == "config" or b"token" in storage.objects[key]
    }
    with pytest.raises(WrongKeyError):
        opening.open_vault(storage, "correct horse")


def test_nobody_can_have_the_next_backup_written_in_the_clear(storage: MemoryStorage, vault: Vault) -> None:
    plain = msgspec.structs.replace(vault.config, encrypted=False)
    storage.objects["config"] = layout.encode_config(plain)
    with pytest.raises(DamagedError, match="it has key slots") as error:
        opening.open_vault(storage, None)
    assert error.value.obj == "config"


def test_snapshots_are_listed_oldest_first_and_found_by_name(vault: Vault, reopen: Reopen) -> None:
    with pytest.raises(StoreError, match="no snapshot yet"):
        vault.resolve("latest")
    made = [take(vault, {"a": bytes([n])}, created=f"2026-01-{9 - n:02}") for n in range(4)]
    found = reopen()
    assert found.snapshots() == made[::-1]
    assert found.resolve("latest") == found.latest_of(SYSTEM, PATH) == made[0]
    assert found.latest_of(SYSTEM, "/elsewhere") is None
    for one in made:
        assert found.resolve(one.id) == found.resolve(one.id[:12].upper()) == one
    with pytest.raises(StoreError, match="no snapshot is called zz"):
        found.resolve("zz")
    with pytest.raises(StoreError, match="names 4 snapshots"):
        found.resolve("")


def test_an_unreadable_manifest_is_noted_and_the_others_are_listed(
    storage: MemoryStorage, vault: Vault, reopen: Reopen
) -> None:
    made = [take(vault, {"a": bytes([n])}, created=f"{n}") for n in range(3)]
    key = f"snapshots/{made[1].id}"
    storage.objects[key] = storage.objects[key][:-1]
    found = reopen()
    assert found.snapshots() == found.snapshots() == [made[0], made[2]]
    assert [error.obj for error in found.damaged] == [key]
    with pytest.raises(DamagedError) as error:
        found.resolve(made[1].id[:10])
    assert error.value.obj == key


def test_what_does_not_belong_into_the_vault_is_noted(storage: MemoryStorage, vault: Vault, reopen: Reopen) -> None:
    one = take(vault, {"a": b"x"}, created="1")
    names = [f"snapshots/{one.id}-conflicted-copy", "snapshots/notes.txt", "index/x"]
    for name in names:
        storage.objects[name] = storage.objects[f"snapshots/{one.id}"]
    found = reopen()
    assert found.snapshots() == [one]
    assert sorted(error.obj for error in found.damaged) == sorted(names)


def test_a_manifest_of_impossible_size_is_not_read(storage: MemoryStorage, vault: Vault, reopen: Reopen) -> None:
    take(vault, {"a": b"x"}, created="1")
    found = reopen()
    real = found.storage.list
    storage.list = lambda prefix: (one._replace(size=1 << 40) for one in real(prefix))  # type: ignore[method-assign]
    storage.get = lambda key: pytest.fail(f"{key} was read")  # type: ignore[method-assign]
    assert found.snapshots() == []
    assert [error.obj for error in found.damaged] == [stat.key for stat in real("snapshots/")]


def test_each_commit_is_sealed_with_what_it_added(storage: MemoryStorage, vault: Vault, reopen: Reopen) -> None:
    for number in range(3):
        before = set(storage.objects)
        one = take(vault, {"a": bytes([number]) * 1000}, created=f"{number}")
        added = set(storage.objects) - before
        seals = reopen().seals()
        key = max(seals)
        assert vaults.seal_number(key) == number + 2
        assert seals[key].snapshots == (f"snapshots/{one.id}",)
        assert set(seals[key].objects) | set(seals[key].snapshots) | {key} == added
        assert seals[key].previous == (sorted(seals)[-2],)


def test_a_snapshot_without_a_seal_is_sealed_by_the_next_commit(
    storage: MemoryStorage, vault: Vault, reopen: Reopen
) -> None:
    take(vault, {"a": b"1"}, created="1")
    before = set(storage.objects)
    take(vault, {"a": b"2" * 99_999}, created="2")
    lost = max(key for key in storage.objects if key.startswith("seals/"))
    unsealed = set(storage.objects) - before - {lost}
    del storage.objects[lost]
    take(reopen(), {"a": b"3"}, created="3")
    seals = reopen().seals()
    newest = seals[max(seals)]
    assert unsealed <= {*newest.snapshots, *newest.objects}


def test_a_damaged_seal_is_named_and_stops_no_backup(storage: MemoryStorage, vault: Vault, reopen: Reopen) -> None:
    take(vault, {"a": b"1"}, created="1")
    key = max(key for key in storage.objects if key.startswith("seals/"))
    storage.objects[key] = storage.objects[key][::-1]
    with pytest.raises(DamagedError) as error:
        reopen().seals()
    assert error.value.obj == key
    found = reopen()
    take(found, {"a": b"2"}, created="2")
    assert [error.obj for error in found.damaged] == [key]
    newest = max(key for key in storage.objects if key.startswith("seals/"))
    assert vaults.seal_number(newest) == 3


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("seals/00000012-ab", 12),
        ("seals/x-ab", 0),
        ("seals/", 0),
        ("seals/²-ab", 0),
        ("seals/" + "9" * 5000 + "-ab", 0),
    ],
)
def test_the_number_of_a_seal_is_read_from_its_name(key: str, number: int) -> None:
    assert vaults.seal_number(key) == number


def test_segments_that_others_add_are_read_when_a_chunk_is_in_none(vault: Vault, reopen: Reopen) -> None:
    other = reopen()
    one = take(other, {"a": b"x" * 1000}, created="1")
    assert read(vault, one) == {"a": b"x" * 1000}


@pytest.mark.parametrize("password", ["pw", None])
def test_nothing_of_a_snapshot_can_be_read_in_an_encrypted_vault(password: str | None) -> None:
    storage = MemoryStorage()
    vault, _ = opening.create(storage, password)
    words = [b"the cat is called Mitzi", b"secret-name.db", SYSTEM.encode(), PATH.encode()]
    take(vault, {"secret-name.db": b"the cat is called Mitzi" * 10}, created="2026-01-01")
    take(vault, {"secret-name.db": b"the cat is called Mitzi and sleeps " * 10}, created="2026-01-02")
    everything = b"".join([*storage.objects.values(), *(key.encode() for key in storage.objects)])
    # Words are found in a vault without encryption, or this test would prove nothing; there they are only compressed.
    assert (words[0] in everything) == (password is None)
    if password is not None:
        assert not [word for word in words[:2] + words[3:] if word in everything]
        kinds = {data[8:10] for key, data in storage.objects.items() if key != "config" and not key.startswith("keys/")}
        assert kinds == {kind + b"\x01" for kind in (crypto.PACK, crypto.INDEX, crypto.SNAPSHOT, crypto.SEAL)}


def test_what_another_process_has_added_since_the_index_was_read_is_found() -> None:
    storage = MemoryStorage()
    opening.create(storage, None)
    before = opening.open_vault(storage, None)
    made = take(opening.open_vault(storage, None), {"a": b"new" * 999}, created="1")
    assert read(before, before.resolve(made.id)) == {"a": b"new" * 999}
