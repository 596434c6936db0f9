import random
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.errors import DamagedError, UnsupportedError, WrongKeyError
from memkeep.vault import crypto
from memkeep.vault.crypto import Keys, Slot

MASTER = bytes(range(32))
VAULT = "0" * 32
CREATED = "2026-01-01T00:00:00+00:00"


def test_a_password_opens_its_slot_and_no_other_does() -> None:
    slot = crypto.password_slot(MASTER, "correct horse", VAULT, CREATED)
    assert crypto.find_master([slot], "correct horse", VAULT, "here") == MASTER
    for wrong in ("correct horsf", "", "correct horse ", "Correct horse", "\0"):
        with pytest.raises(WrongKeyError) as error:
            crypto.find_master([slot], wrong, VAULT, "here")
        assert error.value.code == "wrong_key"


def test_a_password_is_the_same_however_its_letters_are_composed() -> None:
    composed = unicodedata.normalize("NFC", "Zürich ñ é")
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    slot = crypto.password_slot(MASTER, composed, VAULT, CREATED)
    assert crypto.find_master([slot], decomposed, VAULT, "here") == MASTER


def test_a_password_may_be_any_bytes() -> None:
    odd = b"\xff\xfe not text".decode("utf-8", "surrogateescape")
    slot = crypto.password_slot(MASTER, odd, VAULT, CREATED)
    assert crypto.find_master([slot], odd, VAULT, "here") == MASTER


def test_a_slot_of_another_vault_opens_nothing_here() -> None:
    slots = [crypto.password_slot(MASTER, "pw", "1" * 32, CREATED), crypto.recovery_slot(MASTER, "1" * 32, CREATED)[0]]
    with pytest.raises(WrongKeyError):
        crypto.find_master(slots, "pw", VAULT, "here")


def test_where_only_the_recovery_key_is_left_that_is_said() -> None:
    slot, typed = crypto.recovery_slot(MASTER, VAULT, CREATED)
    with pytest.raises(WrongKeyError, match="no password slot is left"):
        crypto.find_master([slot], "correct horse", VAULT, "here")
    assert crypto.find_master([slot], typed, VAULT, "here") == MASTER


def test_with_many_slots_the_fitting_one_is_found() -> None:
    recovery, typed = crypto.recovery_slot(MASTER, VAULT, CREATED)
    slots = [
        crypto.password_slot(bytes(32), "other", VAULT, CREATED),
        recovery,
        crypto.password_slot(MASTER, "pw", VAULT, CREATED),
    ]
    assert crypto.find_master(slots, "pw", VAULT, "here") == MASTER
    assert crypto.find_master(slots, typed, VAULT, "here") == MASTER


@pytest.mark.property
@given(st.binary(min_size=16, max_size=16), st.data())
def test_a_recovery_key_may_be_typed_as_people_type(secret: bytes, data: st.DataObject) -> None:
    spelled = crypto.spell_recovery(secret)
    assert len(spelled) == 39
    assert set(spelled) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")
    typed = ""
    for symbol in spelled:
        choices = {"0": "0oO", "1": "1iIlL", "-": ["-", " ", "", "  ", "\u2013", "\n"]}.get(
            symbol, symbol + symbol.lower()
        )
        typed += data.draw(st.sampled_from(choices))
    assert crypto.parse_recovery(f" {typed}\n") == secret


@pytest.mark.property
@given(st.binary(min_size=16, max_size=16), st.integers(0, 31), st.sampled_from("23456789ABCDEFGH"))
def test_one_wrong_symbol_never_makes_another_key(secret: bytes, place: int, symbol: str) -> None:
    spelled = list(crypto.spell_recovery(secret).replace("-", ""))
    if spelled[place] != symbol:
        spelled[place] = symbol
        assert crypto.parse_recovery("".join(spelled)) is None


@pytest.mark.property
@given(st.text())
def test_any_text_is_a_recovery_key_or_not(text: str) -> None:
    assert crypto.parse_recovery(text) in {None, crypto.parse_recovery(text)}


def test_the_recovery_key_opens_the_vault_in_lower_case_with_spaces_and_confused_letters() -> None:
    slot, spelled = crypto.recovery_slot(MASTER, VAULT, CREATED)
    typed = spelled.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert crypto.find_master([slot], typed, VAULT, "here") == MASTER


@pytest.mark.parametrize("typo", ["symbol", "swap", "missing", "doubled", "foreign"])
def test_a_mistyped_recovery_key_is_told_as_one(typo: str) -> None:
    slot, spelled = crypto.recovery_slot(MASTER, VAULT, CREATED)
    typed = {
        "symbol": spelled[:7] + ("Z" if spelled[7] != "Z" else "Y") + spelled[8:],
        "swap": "-".join(reversed(spelled.split("-"))),
        "missing": spelled[:7] + spelled[8:],
        "doubled": spelled[:7] + spelled[6:],
        "foreign": spelled[:7] + "U" + spelled[8:],
    }[typo]
    with pytest.raises(WrongKeyError, match="mistyped") as error:
        crypto.find_master([slot, crypto.password_slot(MASTER, "pw", VAULT, CREATED)], typed, VAULT, "here")
    assert error.value.code == "recovery_key_mistyped"


def test_a_password_that_looks_like_a_recovery_key_is_a_password() -> None:
    password = "abcd-efgh-jkmn-pqrs-tvwx-yz01-2345-6789"
    assert crypto.parse_recovery(password) is None
    slot = crypto.password_slot(MASTER, password, VAULT, CREATED)
    assert crypto.find_master([slot], password, VAULT, "here") == MASTER


def test_a_valid_recovery_key_of_another_vault_is_wrong_but_not_mistyped() -> None:
    slot, _ = crypto.recovery_slot(MASTER, VAULT, CREATED)
    with pytest.raises(WrongKeyError) as error:
        crypto.find_master([slot], crypto.spell_recovery(bytes(16)), VAULT, "here")
    assert error.value.code == "wrong_key"


@pytest.mark.parametrize("kind", ["password", "recovery"])
@pytest.mark.parametrize("field", ["salt", "wrapped"])
def test_a_slot_with_another_salt_or_content_opens_nothing(kind: str, field: str) -> None:
    recovery, typed = crypto.recovery_slot(MASTER, VAULT, CREATED)
    slot = crypto.password_slot(MASTER, "pw", VAULT, CREATED) if kind == "password" else recovery
    value = getattr(slot, field)
    other = msgspec.structs.replace(slot, **{field: value[:-1] + ("0" if value[-1] != "0" else "1")})
    with pytest.raises(WrongKeyError):
        crypto.find_master([crypto.check_slot(other, "keys/x")], "pw" if kind == "password" else typed, VAULT, "here")


SLOT = Slot(
    kind="password", created=CREATED, salt="00" * 32, wrapped="00" * 48, memory_kib=65536, iterations=3, lanes=4
)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "magic"},
        {"salt": "00" * 31},
        {"salt": "zz" * 32},
        {"salt": "00" * 33},
        {"wrapped": "00" * 47},
        {"wrapped": ""},
        {"wrapped": "0" * 95 + "\u0660"},
        {"memory_kib": 0},
        {"memory_kib": 1 << 30},
        {"memory_kib": 31},
        {"iterations": 0},
        {"iterations": 1 << 20},
        {"lanes": 0},
        {"lanes": 1 << 20},
        {"lanes": -1},
        {"version": 0},
    ],
)
def test_a_hostile_slot_is_refused_before_it_costs_anything(change: dict[str, object]) -> None:
    assert crypto.check_slot(SLOT, "keys/x") is SLOT
    with pytest.raises(DamagedError, match="keys/x is not a key slot") as error:
        crypto.check_slot(msgspec.structs.replace(SLOT, **change), "keys/x")
    assert error.value.obj == "keys/x"


def test_a_newer_slot_is_told_apart_from_a_damaged_one() -> None:
    with pytest.raises(UnsupportedError):
        crypto.check_slot(msgspec.structs.replace(SLOT, version=2), "keys/x")


@pytest.mark.parametrize("master", [MASTER, None])
def test_an_envelope_holds_what_was_put_in_and_is_never_the_same_twice(master: bytes | None) -> None:
    keys = Keys(master, VAULT)
    one, other = keys.envelope(crypto.SEAL, b"content"), keys.envelope(crypto.SEAL, b"content")
    assert one != other
    assert (b"content" in one) == (master is None)
    assert keys.open_envelope(crypto.SEAL, one, "seals/x") == keys.open_envelope(crypto.SEAL, other, "y") == b"content"


@pytest.mark.property
@given(st.binary(max_size=100), st.data())
def test_an_encrypted_envelope_with_any_bit_flipped_is_damage(content: bytes, data: st.DataObject) -> None:
    keys = Keys(MASTER, VAULT)
    sealed = bytearray(keys.envelope(crypto.INDEX, content))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedError) as error:
        keys.open_envelope(crypto.INDEX, bytes(sealed), "index/x")
    assert error.value.obj == "index/x"


@pytest.mark.parametrize("master", [MASTER, None])
def test_an_envelope_cut_anywhere_or_of_another_kind_is_damage(master: bytes | None) -> None:
    keys = Keys(master, VAULT)
    sealed = keys.envelope(crypto.INDEX, b"content")
    for size in range(len(sealed) if master else crypto.HEADER_SIZE):
        with pytest.raises(DamagedError):
            keys.open_envelope(crypto.INDEX, sealed[:size], "index/x")
    with pytest.raises(DamagedError):
        keys.open_envelope(crypto.SNAPSHOT, sealed, "snapshots/x")
    renamed = sealed.replace(crypto.MAGIC + crypto.INDEX, crypto.MAGIC + crypto.SNAPSHOT)
    if master:
        with pytest.raises(DamagedError, match="does not authenticate"):
            keys.open_envelope(crypto.SNAPSHOT, renamed, "snapshots/x")


def test_a_plain_object_is_not_taken_for_an_encrypted_one_or_the_other_way_round() -> None:
    encrypted, plain = Keys(MASTER, VAULT), Keys(None, VAULT)
    for one, other in ((encrypted, plain), (plain, encrypted)):
        with pytest.raises(DamagedError, match="does not begin as it must"):
            one.open_envelope(crypto.SEAL, other.envelope(crypto.SEAL, b"content"), "seals/x")


def test_a_sealed_piece_opens_only_at_its_place() -> None:
    keys = Keys(MASTER, VAULT)
    cipher = keys.cipher(keys.header(crypto.PACK), crypto.PACK, "data/x")
    sealed = cipher.seal(b"content", 52)
    assert cipher.unseal(memoryview(sealed), 52) == b"content"
    assert len(sealed) == 7 + cipher.overhead
    with pytest.raises(DamagedError, match="byte 53"):
        cipher.unseal(sealed, 53)


def test_no_two_vaults_name_a_chunk_alike() -> None:
    keys = [Keys(MASTER, VAULT), Keys(bytes(32), VAULT), Keys(None, VAULT), Keys(None, "1" * 32)]
    assert len({one.chunk_key for one in keys}) == 4


def test_master_keys_are_random() -> None:
    random.seed(1)
    first = crypto.new_master()
    random.seed(1)
    assert len(first) == 32
    assert crypto.new_master() != first
