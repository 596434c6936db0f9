"""Keys and envelopes.

A vault has one random 32-byte master key. Key slots hold it, wrapped: one a password (Argon2id), one the recovery
key (random, so HKDF is enough). Every object but `config` and the slots is an envelope with a key of its own:

    header  = "memkeep1" | kind (1) | encrypted 0/1 (1) | zeros (6) | salt (32)            48 bytes
    subkey  = HKDF-SHA256(master, salt=salt, info="memkeep " + kind)                        32 bytes
    sealed  = AES-256-GCM(subkey, nonce, plaintext, no associated data), tag appended

Since every subkey is used for one object only, nonces are simply the offset of the sealed bytes in the object (12
bytes, little endian). In a vault without encryption the salt is zero and "sealed" means the plain bytes.
"""

import base64
import secrets as random_source
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from memkeep.errors import DamagedError, WrongKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"memkeep1"
HEADER_SIZE = 48
TAG_SIZE = 16
PACK, INDEX, SNAPSHOT, SEAL = b"P", b"I", b"S", b"L"
ARGON = {"memory_kib": 65536, "iterations": 3, "lanes": 4}
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_RECOVERY_BYTES = 16
_CHECK_BYTES = 4


class Keys:
    """What opens and closes a vault's objects. `master` is None in a vault without encryption."""

    def __init__(self, master: bytes | None, vault_id: str) -> None:
        self._master = master
        self.chunk_key = _hkdf(master or vault_id.encode(), b"", b"memkeep chunk id")

    @property
    def encrypted(self) -> bool:
        """Whether objects are encrypted."""
        return self._master is not None

    def header(self, kind: bytes) -> bytes:
        """Return a fresh header with a fresh salt."""
        salt = random_source.token_bytes(32) if self.encrypted else bytes(32)
        return MAGIC + kind + (b"\x01" if self.encrypted else b"\x00") + bytes(6) + salt

    def cipher(self, header: bytes, kind: bytes, name: str) -> "Cipher":
        """Return the cipher of the object that begins with `header`; `DamagedError` when it is no such object."""
        wanted = MAGIC + kind + (b"\x01" if self.encrypted else b"\x00") + bytes(6)
        if len(header) != HEADER_SIZE or header[:16] != wanted:
            message = f"{name} does not begin as it must"
            raise DamagedError(message, obj=name)
        return Cipher(_hkdf(self._master, header[16:], b"memkeep " + kind) if self._master else None, name)

    def envelope(self, kind: bytes, plain: bytes) -> bytes:
        """Return a whole object: header and one sealed piece."""
        header = self.header(kind)
        return header + self.cipher(header, kind, "new object").seal(plain, HEADER_SIZE)

    def open_envelope(self, kind: bytes, data: bytes, name: str) -> bytes:
        """Return what an envelope holds."""
        return self.cipher(data[:HEADER_SIZE], kind, name).unseal(data[HEADER_SIZE:], HEADER_SIZE)


class Cipher:
    """Seals and unseals pieces of one object."""

    def __init__(self, subkey: bytes | None, name: str) -> None:
        self._name = name
        self._aead: AESGCM | None = None
        if subkey is not None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - heavy

            self._aead = AESGCM(subkey)
        self.overhead = TAG_SIZE if self._aead else 0

    def seal(self, plain: bytes, offset: int) -> bytes:
        """Seal the piece that will lie at `offset`."""
        return self._aead.encrypt(offset.to_bytes(12, "little"), plain, None) if self._aead else plain

    def unseal(self, sealed: bytes, offset: int) -> bytes:
        """Open the piece at `offset`; `DamagedError` when it was changed."""
        if self._aead is None:
            return sealed
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - heavy

        try:
            return self._aead.decrypt(offset.to_bytes(12, "little"), sealed, None)
        except InvalidTag:
            message = f"{self._name} was changed: the piece at byte {offset} does not authenticate"
            raise DamagedError(message, obj=self._name) from None


class Slot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One way to the master key, as stored (JSON, under `keys/<SHA-256 of the bytes>`)."""

    version: int = 1
    kind: str  # "password" or "recovery"
    created: str
    salt: str  # hex, 32 bytes
    wrapped: str  # hex: AES-256-GCM(key, nonce zero, master), tag appended
    memory_kib: int = 0
    iterations: int = 0
    lanes: int = 0


def new_master() -> bytes:
    """Return a new master key."""
    return random_source.token_bytes(32)


def password_slot(master: bytes, password: str, created: str) -> Slot:
    """Wrap the master key for a password."""
    salt = random_source.token_bytes(32)
    key = _argon(password, salt, **ARGON)
    return Slot(kind="password", created=created, salt=salt.hex(), wrapped=_wrap(key, master).hex(), **ARGON)


def recovery_slot(master: bytes, created: str) -> tuple[Slot, str]:
    """Wrap the master key for a new recovery key; return the slot and the key in the form to be written down."""
    secret = random_source.token_bytes(_RECOVERY_BYTES)
    salt = random_source.token_bytes(32)
    key = _hkdf(secret, salt, b"memkeep recovery")
    typed = base64.b32encode(secret + blake3(secret).digest(_CHECK_BYTES)).decode()
    typed = typed.translate(str.maketrans(_STANDARD, _ALPHABET))
    grouped = "-".join(typed[i : i + 4] for i in range(0, len(typed), 4))
    return Slot(kind="recovery", created=created, salt=salt.hex(), wrapped=_wrap(key, master).hex()), grouped


def parse_recovery(typed: str) -> bytes | None:
    """Return the secret of a typed recovery key; None when the text is no such key (a typo breaks its check)."""
    plain = typed.strip().upper().replace("-", "").replace(" ", "")
    plain = plain.translate(str.maketrans("ILO", "110"))
    if len(plain) != 8 * (_RECOVERY_BYTES + _CHECK_BYTES) // 5 or any(c not in _ALPHABET for c in plain):
        return None
    data = base64.b32decode(plain.translate(str.maketrans(_ALPHABET, _STANDARD)))
    secret, check = data[:_RECOVERY_BYTES], data[_RECOVERY_BYTES:]
    return secret if blake3(secret).digest(_CHECK_BYTES) == check else None


def unwrap(slot: Slot, secret: str) -> bytes | None:
    """Return the master key if the password or recovery key fits the slot."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - heavy

    salt = bytes.fromhex(slot.salt)
    if slot.kind == "recovery":
        recovered = parse_recovery(secret)
        if recovered is None:
            return None
        key = _hkdf(recovered, salt, b"memkeep recovery")
    else:
        limit = 1 << 21  # 2 GiB: a hostile slot must not take all memory
        if not (8 <= slot.memory_kib <= limit and 1 <= slot.iterations <= 64 and 1 <= slot.lanes <= 64):  # noqa: PLR2004
            message = "a key slot asks for impossible Argon2id settings"
            raise DamagedError(message, obj="keys")
        key = _argon(secret, salt, memory_kib=slot.memory_kib, iterations=slot.iterations, lanes=slot.lanes)
    try:
        return AESGCM(key).decrypt(bytes(12), bytes.fromhex(slot.wrapped), None)
    except InvalidTag:
        return None


def find_master(slots: list[Slot], secret: str) -> bytes:
    """Return the master key by the first slot that the secret fits; `WrongKeyError` when none does."""
    typed = parse_recovery(secret) is not None
    for slot in sorted(slots, key=lambda slot: (slot.kind == "recovery") != typed):
        master = unwrap(slot, secret)
        if master is not None:
            return master
    message = "the password (or recovery key) does not open this vault"
    raise WrongKeyError(
        message, unchanged="Nothing was read or changed.", hint="memkeep status --password-file FILE"
    )


def _wrap(key: bytes, master: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - heavy

    return AESGCM(key).encrypt(bytes(12), master, None)  # the key is used this once: its salt is random


def _argon(password: str, salt: bytes, *, memory_kib: int, iterations: int, lanes: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415 - heavy

    kdf = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
    return kdf.derive(password.encode("utf-8", "surrogateescape"))


def _hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415 - heavy

    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)
