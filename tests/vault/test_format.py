import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.errors import DamagedError, UnsupportedError
from memkeep.vault import format as layout
from memkeep.vault.format import Config, check_name, decode_config, digest_of, encode_config

CONFIG = Config(id="0123456789abcdef" * 2, created="2026-01-01T00:00:00+00:00", encrypted=True)
DIGEST = digest_of(b"data")


def test_config_comes_back() -> None:
    data = encode_config(CONFIG)
    found = decode_config(data)
    assert (found.id, found.created, found.encrypted) == (CONFIG.id, CONFIG.created, True)
    assert encode_config(found) == data


@pytest.mark.property
@given(st.integers(0, len(encode_config(CONFIG)) - 1), st.integers(0, 7))
def test_config_with_any_bit_flipped_is_damage(place: int, bit: int) -> None:
    data = bytearray(encode_config(CONFIG))
    data[place] ^= 1 << bit
    with pytest.raises(DamagedError, match="config") as error:
        decode_config(bytes(data))
    assert error.value.obj == "config"


@pytest.mark.property
@given(st.one_of(st.binary(), st.integers(0, 300).map(lambda size: encode_config(CONFIG)[:size])))
def test_what_is_no_config_is_damage(data: bytes) -> None:
    if data != encode_config(CONFIG):
        with pytest.raises(DamagedError):
            decode_config(data)


@pytest.mark.parametrize(
    "data", [b"[]", b"{}", b"null", b'"x"', b"1e999", b"[" * 100_000, b'{"format":"memkeep vault","digest":7}']
)
def test_json_that_is_no_config_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_config(data)


def with_digest(values: dict[str, object]) -> bytes:
    """Return a config as another version may write it: spaces, other fields, another order."""
    text = json.dumps({**values, "digest": ""}, indent=1)
    return text.replace('"digest": ""', f'"digest": "{digest_of(text.encode())}"').encode()


def test_a_newer_version_is_told_apart_from_damage() -> None:
    with pytest.raises(UnsupportedError, match=r"version 7.*reads version 1") as error:
        decode_config(with_digest({"format": "memkeep vault", "version": 7, "id": {"new": "shape"}, "more": []}))
    assert error.value.code == "vault_too_new"
    assert error.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other vault"},
        {"version": 0},
        {"version": "1"},
        {"version": 1.5},
        {"id": "../../etc"},
        {"id": "ABCD" * 8},
        {"encrypted": "yes"},
        {"created": 7},
    ],
)
def test_a_config_with_a_good_digest_and_a_bad_content_is_damage(change: dict[str, object]) -> None:
    good = {"format": "memkeep vault", "version": 1, "id": CONFIG.id, "created": "now", "encrypted": True}
    assert decode_config(with_digest(good)).encrypted
    with pytest.raises(DamagedError):
        decode_config(with_digest(good | change))


@pytest.mark.parametrize(
    "key",
    [
        f"keys/{DIGEST}",
        f"index/{DIGEST}",
        f"snapshots/{DIGEST}",
        f"data/{DIGEST[:2]}/{DIGEST}",
        f"seals/00000001-{DIGEST}",
        f"seals/123456789-{DIGEST}",
    ],
)
def test_an_object_has_the_name_of_its_bytes(key: str) -> None:
    check_name(key, b"data")
    for other in (b"", b"Data", b"data\n"):
        with pytest.raises(DamagedError, match="SHA-256 differs") as error:
            check_name(key, other)
        assert error.value.obj == key


@pytest.mark.parametrize(
    "key",
    [
        f"snapshots/x{DIGEST}",
        f"snapshots/{DIGEST} (conflicted copy)",
        f"snapshots/{DIGEST}\n",
        f"snapshots/{DIGEST.upper()}",
        f"data/ff/{DIGEST}",
        f"data/{DIGEST}",
        f"seals/{DIGEST}",
        f"seals/1-{DIGEST}",
        f"seals/{'9' * 19}-{DIGEST}",
        f"other/{DIGEST}",
        DIGEST,
        "",
    ],
)
def test_what_does_not_belong_into_a_vault_is_told(key: str) -> None:
    with pytest.raises(DamagedError, match="does not belong") as error:
        check_name(key, b"data")
    assert error.value.obj == key


def test_every_folder_of_a_vault_is_known() -> None:
    assert {layout.KEYS, layout.DATA, layout.INDEX, layout.SNAPSHOTS, layout.SEALS} == {
        "keys/",
        "data/",
        "index/",
        "snapshots/",
        "seals/",
    }
