"""The objects of a vault by name, and the JSON ones. `docs/format.md` is the normative text.

    config                        JSON, plain: what vault this is; carries a digest of itself
    keys/<sha256>                 JSON, plain: one way to the master key each
    data/<2 hex>/<sha256>         packs of chunks
    index/<sha256>                where chunks lie, one segment a backup
    snapshots/<sha256>            manifests; writing one is what makes a snapshot
    seals/<number>-<sha256>       a log of what was added, so that a removed snapshot or key is noticed

<sha256> is the hex SHA-256 of the object's bytes as stored.
"""

import hashlib
from typing import Any

import msgspec

from memkeep.errors import DamagedError, UnsupportedError

VERSION = 1
CONFIG = "config"
KEYS, DATA, INDEX, SNAPSHOTS, SEALS = "keys/", "data/", "index/", "snapshots/", "seals/"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The plain object `config`."""

    format: str = "memkeep vault"
    version: int = VERSION
    id: str
    created: str
    encrypted: bool
    digest: str = ""  # hex SHA-256 of this object with an empty digest


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """What one commit added, and the seals before it."""

    created: str
    previous: tuple[str, ...]  # keys of the seals with the highest number before
    snapshots: tuple[str, ...]  # keys
    objects: tuple[str, ...] = ()  # keys of the packs and index segments written with them
    keys: tuple[str, ...]  # all key slots at that moment
    forgotten: tuple[str, ...] = ()  # snapshots that were removed on purpose


def digest_of(data: bytes) -> str:
    """Return the hex SHA-256 that names stored bytes."""
    return hashlib.sha256(data).hexdigest()


def check_name(key: str, data: bytes) -> None:
    """Raise `DamagedError` unless the key's last 64 characters are the SHA-256 of the data."""
    if digest_of(data) != key[-64:]:
        what = "is empty" if not data else "is not what was written"
        message = f"{key} {what} (SHA-256 differs)"
        raise DamagedError(message, obj=key)


def encode_config(config: Config) -> bytes:
    """Return the bytes of `config` with its digest filled in."""
    blank = msgspec.structs.replace(config, digest="")
    return msgspec.json.encode(msgspec.structs.replace(blank, digest=digest_of(msgspec.json.encode(blank)))) + b"\n"


def decode_config(data: bytes) -> Config:
    """Read `config`; a newer version is told apart from damage."""
    try:
        raw: Any = msgspec.json.decode(data)
        if isinstance(raw, dict) and raw.get("format") == "memkeep vault" and int(raw.get("version", 0)) > VERSION:
            message = f"this vault has format version {raw['version']}; this memkeep reads version {VERSION}"
            raise UnsupportedError(
                message, hint="pip install --upgrade memkeep", code="vault_too_new", unchanged="Nothing was changed."
            )
        config = msgspec.convert(raw, Config)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise _bad_config() from error
    if config.format != "memkeep vault" or encode_config(config) != data:
        raise _bad_config()
    return config


def _bad_config() -> DamagedError:
    message = "config is not what was written: the vault cannot be opened until it is put back from a copy"
    return DamagedError(message, obj=CONFIG, hint="cp OTHER_COPY_OF_THE_VAULT/config VAULT/config")
