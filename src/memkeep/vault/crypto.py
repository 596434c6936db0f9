"""Keys and envelopes.

A vault has one random 32-byte master key. Key slots hold it, wrapped: one a password (Argon2id), one the recovery
key (random, so HKDF is enough). Every object but `config` and the slots is an envelope with a key of its own:

    header  = "memkeep1" | kind (1) | encrypted 0/1 (1) | zeros (6) | salt (32)            48 bytes
    subkey  = HKDF-SHA256(master, salt=salt, info="memkeep " + kind)                        32 bytes
    sealed  = AES-256-GCM(subkey, nonce, plaintext, no associated data), tag appended

Since every subkey is used for one object only, nonces are simply the offset of the sealed bytes in the object (12
bytes, little endian). In a vault without encryption "sealed" means the plain bytes; the salt only makes every object's
name its own, so that what is stored again never meets a damaged copy under the same name.
"""

import base64
import mmap
import re
import secrets as random_source
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from memkeep.errors import DamagedError, RefusedError, UnsupportedError, WrongKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"memkeep1"
HEADER_SIZE = 48
MASTER_SIZE = 32
_SALT_SIZE = 32
TAG_SIZE = 16
PACK, INDEX, SNAPSHOT, SEAL, LEASE, MARK = b"P", b"I", b"S", b"L", b"H", b"M"
ARGON = {"memory_kib": 65536, "iterations": 3, "lanes": 4}
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_RECOVERY_BYTES = 16
_CHECK_BYTES = 4
_SYMBOLS = 8 * (_RECOVERY_BYTES + _CHECK_BYTES) // 5
_GROUPING = "-_.\u2010\u2011\u2012\u2013\u2014"
_LONG = 1 << 20  # bytes
_MAX_MEMORY, _MAX_PASSES, _MAX_LANES = 1 << 20, 16, 64  # KiB; of Argon2id
_HEX = re.compile("[0-9a-f]*")


class Keys:
    """What opens and closes a vault's objects. `master` is None in a vault without encryption."""

    def __init__(self, master: bytes | None, vault_id: str) -> None:
        self._master = master
        self.chunk_key = _hkdf(master or vault_id.encode(), b"", b"memkeep chunk id")

    @property
    def encrypted(self) -> bool:
        """Whether objects are encrypted."""
        return self._master is not None

    @property
    def master(self) -> bytes:
        """The master key, for key slots only; `RefusedError` in a vault without encryption."""
        if self._master is None:
            message = "this vault is not encrypted: it has no keys"
            raise RefusedError(message, hint="memkeep copy --to DIR   # an encrypted one", code="not_encrypted")
        return self._master

    def header(self, kind: bytes) -> bytes:
        """Return a fresh header with a fresh salt."""
        return self._start(kind) + random_source.token_bytes(_SALT_SIZE)

    def cipher(self, header: bytes, kind: bytes, name: str) -> "Cipher":
        """Return the cipher of the object that begins with `header`; `DamagedError` when it is no such object."""
        start = self._start(kind)
        if len(header) != HEADER_SIZE or not header.startswith(start):
            message = f"{name} does not begin as it must"
            raise DamagedError(message, obj=name)
        return Cipher(_hkdf(self._master, header[len(start) :], b"memkeep " + kind) if self._master else None, name)

    def _start(self, kind: bytes) -> bytes:
        return MAGIC + kind + (b"\x01" if self.encrypted else b"\x00") + bytes(6)

    def envelope(self, kind: bytes, plain: bytes) -> bytes:
        """Return a whole object: header and one sealed piece."""
        header = self.header(kind)
        return header + self.cipher(header, kind, "new object").seal(plain, HEADER_SIZE)

    def open_envelope(self, kind: bytes, data: bytes, name: str) -> bytes | memoryview:
        """Return what an envelope holds."""
        return self.cipher(data[:HEADER_SIZE], kind, name).unseal_whole(memoryview(data)[HEADER_SIZE:])


class Cipher:
    """Seals and unseals pieces of one object."""

    def __init__(self, subkey: bytes | None, name: str) -> None:
        self._name = name
        self._aead = _aead(subkey) if subkey is not None else None
        self.overhead = TAG_SIZE if self._aead else 0

    def seal(self, plain: bytes, offset: int) -> bytes:
        """Seal the piece that will lie at `offset`."""
        return self._aead.encrypt(offset.to_bytes(12, "little"), plain, None) if self._aead else plain

    def unseal(self, sealed: bytes | memoryview, offset: int) -> bytes:
        """Open the piece at `offset`; `DamagedError` when it was changed."""
        if self._aead is None:
            return bytes(sealed)
        from cryptography.exceptions import InvalidTag

        try:
            return self._aead.decrypt(offset.to_bytes(12, "little"), sealed, None)
        except InvalidTag:
            raise self._changed(offset) from None

    def unseal_whole(self, sealed: memoryview) -> bytes | memoryview:
        """Open the only piece of an envelope, however long, while other threads go on; `DamagedError` as above."""
        if self._aead is None:
            return sealed
        if len(sealed) < _LONG:
            return self.unseal(sealed, HEADER_SIZE)
        import numpy as np
        from cryptography.exceptions import InvalidTag

        room = np.empty(len(sealed) - TAG_SIZE, np.uint8)
        # Taking memory from the system costs more than decrypting into it, which holds the interpreter's lock.
        room[:: mmap.PAGESIZE] = 0
        try:
            self._aead.decrypt_into(HEADER_SIZE.to_bytes(12, "little"), sealed, None, room.data)
        except InvalidTag:
            raise self._changed(HEADER_SIZE) from None
        return room.data

    def _changed(self, offset: int) -> DamagedError:
        message = f"{self._name} was changed: the piece at byte {offset} does not authenticate"
        return DamagedError(message, obj=self._name)


class Slot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One way to the master key, as stored (JSON, under `keys/<SHA-256 of the bytes>`)."""

    version: int = 1
    kind: str  # "password" or "recovery"
    created: str
    salt: str  # hex, 32 bytes
    wrapped: str  # hex: AES-256-GCM(key, nonce zero, master, associated data: the vault's id), tag appended
    memory_kib: int = 0
    iterations: int = 0
    lanes: int = 0
    label: str = ""  # what its owner calls it; everyone who can read the storage can read this


def new_master() -> bytes:
    """Return a new master key."""
    return random_source.token_bytes(MASTER_SIZE)


def password_slot(master: bytes, password: str, vault_id: str, created: str, label: str = "") -> Slot:
    """Wrap the master key for a password."""
    salt = random_source.token_bytes(_SALT_SIZE)
    wrapped = _wrap(_argon(password, salt, **ARGON), master, vault_id)
    return Slot(kind="password", created=created, salt=salt.hex(), wrapped=wrapped.hex(), label=label, **ARGON)


def recovery_slot(master: bytes, vault_id: str, created: str) -> tuple[Slot, str]:
    """Wrap the master key for a new recovery key; return the slot and the key in the form to be written down."""
    secret = random_source.token_bytes(_RECOVERY_BYTES)
    salt = random_source.token_bytes(_SALT_SIZE)
    wrapped = _wrap(_hkdf(secret, salt, b"memkeep recovery"), master, vault_id)
    return Slot(kind="recovery", created=created, salt=salt.hex(), wrapped=wrapped.hex()), spell_recovery(secret)


def spell_recovery(secret: bytes) -> str:
    """Return a recovery key as it is written down: eight groups of four, the last symbols a check of the others."""
    typed = base64.b32encode(secret + blake3(secret).digest(_CHECK_BYTES)).decode()
    typed = typed.translate(str.maketrans(_STANDARD, _ALPHABET))
    return "-".join(typed[i : i + 4] for i in range(0, len(typed), 4))


def parse_recovery(typed: str) -> bytes | None:
    """Return the secret of a typed recovery key; None when the text is no such key (a typo breaks its check)."""
    plain = _bare(typed).translate(str.maketrans("ILO", "110"))
    if len(plain) != _SYMBOLS or any(symbol not in _ALPHABET for symbol in plain):
        return None
    data = base64.b32decode(plain.translate(str.maketrans(_ALPHABET, _STANDARD)))
    secret, check = data[:_RECOVERY_BYTES], data[_RECOVERY_BYTES:]
    return secret if blake3(secret).digest(_CHECK_BYTES) == check else None


def check_slot(slot: Slot, name: str) -> Slot:
    """Return a slot that can be tried; `DamagedError` for one that can't, `UnsupportedError` for a newer one."""
    if slot.version > 1:
        message = f"{name} is a key slot of version {slot.version}; this memkeep reads version 1"
        raise UnsupportedError(message, hint="pip install --upgrade memkeep", code="vault_too_new")
    fits = (
        slot.version == 1
        and slot.kind in {"password", "recovery"}
        and _HEX.fullmatch(slot.salt)
        and len(slot.salt) == 2 * _SALT_SIZE
        and _HEX.fullmatch(slot.wrapped)
        and len(slot.wrapped) == 2 * (MASTER_SIZE + TAG_SIZE)
    )
    if fits and slot.kind == "password":
        # A hostile slot must take neither all memory nor all day.
        lanes, memory = slot.lanes, slot.memory_kib
        fits = 1 <= lanes <= _MAX_LANES and 8 * lanes <= memory <= _MAX_MEMORY and 1 <= slot.iterations <= _MAX_PASSES
    if not fits:
        message = f"{name} is not a key slot"
        raise DamagedError(message, obj=name)
    return slot


def unwrap(slot: Slot, secret: str, vault_id: str) -> bytes | None:
    """Return the master key if the password or recovery key fits the (checked) slot."""
    from cryptography.exceptions import InvalidTag

    salt = bytes.fromhex(slot.salt)
    if slot.kind == "recovery":
        recovered = parse_recovery(secret)
        if recovered is None:
            return None
        key = _hkdf(recovered, salt, b"memkeep recovery")
    else:
        key = _argon(secret, salt, memory_kib=slot.memory_kib, iterations=slot.iterations, lanes=slot.lanes)
    try:
        return _aead(key).decrypt(bytes(12), bytes.fromhex(slot.wrapped), vault_id.encode())
    except InvalidTag:
        return None


def find_master(slots: Iterable[Slot], secret: str, vault_id: str, place: str) -> bytes:
    """Return the master key by the first slot that the secret fits; `WrongKeyError`, naming the place, if none does."""
    typed = parse_recovery(secret) is not None
    ordered = sorted(slots, key=lambda slot: (slot.kind == "recovery") != typed)
    for slot in ordered:
        master = unwrap(slot, secret, vault_id)
        if master is not None:
            return master
    if not typed and _SYMBOLS - 2 <= len(_bare(secret)) <= _SYMBOLS + 2 and _bare(secret).isalnum():
        message = (
            "this opens the vault neither as a password nor as a recovery key; "
            "if it is the recovery key, it is mistyped: its last symbols, which check the others, do not fit"
        )
        raise WrongKeyError(
            message,
            unchanged="Nothing was read or changed.",
            hint="memkeep status   # and type the recovery key again",
            code="recovery_key_mistyped",
        )
    message = f"the password (or recovery key) does not open the vault {place}"
    if not typed and all(slot.kind == "recovery" for slot in ordered):
        message += ": no password slot is left in it, only its recovery key can"
    raise WrongKeyError(message, unchanged="Nothing was read or changed.", hint="memkeep status --password-file FILE")


def _bare(typed: str) -> str:
    """Return a typed key without what only groups it, in upper case."""
    return "".join(symbol for symbol in typed if symbol not in _GROUPING and not symbol.isspace()).upper()


def _wrap(key: bytes, master: bytes, vault_id: str) -> bytes:
    return _aead(key).encrypt(bytes(12), master, vault_id.encode())  # the key is used this once: its salt is random


def _aead(key: bytes) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _argon(password: str, salt: bytes, *, memory_kib: int, iterations: int, lanes: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    # Keyboards and systems compose letters in different ways; the password is the same.
    plain = unicodedata.normalize("NFC", password).encode("utf-8", "surrogateescape")
    return Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib).derive(plain)


def _hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)
