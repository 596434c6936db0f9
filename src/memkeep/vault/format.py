"""The objects of a vault by name, and the JSON ones. `docs/format.md` is the normative text.

    config                        JSON, plain: what vault this is; carries a digest of itself
    keys/<sha256>                 JSON, plain: one way to the master key each
    data/<2 hex>/<sha256>         packs of chunks
    index/<sha256>                where chunks lie, one segment a backup
    snapshots/<sha256>            manifests; writing one is what makes a snapshot
    seals/<number>-<sha256>       a log of what was added, so that a removed snapshot or key is noticed
    leases/<sha256>               who is at work in the vault, and until when
    marks/<sha256>                what a prune is going to remove, and when

<sha256> is the hex SHA-256 of the object's bytes as stored.
"""

import hashlib
import re
from typing import Any

import msgspec

from memkeep.errors import DamagedError, UnsupportedError

VERSION = 1
CONFIG = "config"
KEYS, DATA, INDEX, SNAPSHOTS, SEALS = "keys/", "data/", "index/", "snapshots/", "seals/"
LEASES, MARKS = "leases/", "marks/"
PREFIXES = (KEYS, DATA, INDEX, SNAPSHOTS, SEALS, LEASES, MARKS)
_NAME = re.compile(
    r"(keys/|index/|snapshots/|leases/|marks/|data/(?P<two>[0-9a-f]{2})/|seals/[0-9]{8,18}-)(?P<digest>[0-9a-f]{64})"
)
_ID = re.compile(r"[0-9a-f]{32}")


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
    forgotten: tuple[str, ...] = ()  # objects that were removed on purpose


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at work in the vault. One that is neither renewed nor taken away ends by itself."""

    what: str  # the verb
    exclusive: bool  # False: a backup, of which there may be many
    host: str
    user: str
    pid: int
    machine: str  # the host's boot and the process's pid namespace: where `pid` means something
    since: str  # ISO 8601, when the work began
    expires: str  # ISO 8601


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune is going to remove, unless a snapshot turns out to need it."""

    created: str
    ready: str  # ISO 8601, when it may be removed
    objects: tuple[str, ...]  # keys of packs and index segments


def digest_of(data: bytes) -> str:
    """Return the hex SHA-256 that names stored bytes."""
    return hashlib.sha256(data).hexdigest()


def check_name(key: str, data: bytes) -> None:
    """Raise `DamagedError` unless the key is one that the data may have: its last part is the SHA-256 of them."""
    name = _NAME.fullmatch(key)
    if name is None or name["two"] not in {None, name["digest"][:2]}:
        message = f"{key} is not the name of an object: it does not belong into a vault"
        raise DamagedError(message, obj=key)
    if digest_of(data) != name["digest"]:
        what = "is empty" if not data else "is not what was written"
        message = f"{key} {what} (SHA-256 differs)"
        raise DamagedError(message, obj=key)


def encode_config(config: Config) -> bytes:
    """Return the bytes of `config` with its digest filled in."""
    blank = msgspec.json.encode(msgspec.structs.replace(config, digest="")) + b"\n"
    return msgspec.json.encode(msgspec.structs.replace(config, digest=digest_of(blank))) + b"\n"


def decode_config(data: bytes) -> Config:
    """Read `config`; a newer version is told apart from damage."""
    try:
        raw: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _bad_config() from error
    if not isinstance(raw, dict) or raw.get("format") != "memkeep vault":
        raise _bad_config()
    version = raw.get("version")
    newer = isinstance(version, int) and version > VERSION
    if not _says_its_digest(raw, data):
        raise _bad_config(f"it says that the vault is of the newer version {version}, but " if newer else "")
    if newer:
        message = f"this vault has format version {version}; this memkeep reads version {VERSION}"
        raise UnsupportedError(message, hint="pip install --upgrade memkeep", code="vault_too_new")
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.MsgspecError as error:
        raise _bad_config() from error
    if config.version != VERSION or not _ID.fullmatch(config.id):
        raise _bad_config()
    return config


def _says_its_digest(raw: dict[str, Any], data: bytes) -> bool:
    """Say whether the digest in `config` is that of the rest: so of any version, whatever else it may hold."""
    digest = raw.get("digest")
    if not isinstance(digest, str) or data.count(f'"{digest}"'.encode("utf-8", "replace")) != 1:
        return False
    return digest_of(data.replace(f'"{digest}"'.encode("utf-8", "replace"), b'""')) == digest


def _bad_config(says: str = "") -> DamagedError:
    message = f"config: {says}it is not what was written: the vault cannot be opened until it is put back from a copy"
    return DamagedError(message, obj=CONFIG, hint="cp OTHER_COPY_OF_THE_VAULT/config VAULT/config")
