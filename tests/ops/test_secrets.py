"""Secrets go into an encrypted vault, and into another only when asked; nothing of an encrypted one can be read."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyrage
import pytest

import memkeep
from memkeep.errors import WrongKeyError
from memkeep.library import OpenVault
from memkeep.model import Severity
from memkeep.testing import agent

KEY = "sk-thisisaverysecretapikey1234567890"
TOKEN = "1234567:telegram/bot-token"
PHRASE = "correct-horse-battery-staple"
PROFILE = "sk-ant-of-the-auth-profile-0987654321"
DOTENV = "never-take-this-one"
SETTINGS = f"""// What OpenClaw reads: JSON with comments and trailing commas.
{{
  "models": {{"providers": {{"openai": {{"apiKey": "{KEY}", 'baseUrl': 'http://localhost/v1'}}}}}},
  "channels": {{"telegram": {{"botToken": "{TOKEN.replace("/", chr(92) + "/")}", enabled: true,}},}},\t
  "plugins": {{"entries": {{"openclaw-hybrid-memory": {{"config": {{
    "credentials": {{"encryptionKey": '{PHRASE}'}}, "embedding": {{"apiKey": "${{OPENAI_API_KEY}}"}}}}}}}}}},
  "note": "café ☕ stays",
}}
"""


@pytest.fixture
def state(tmp_path: Path, copy_store: Callable[..., Path]) -> Path:
    """Return an OpenClaw state folder with every kind of secret in it."""
    folder = tmp_path / "openclaw"
    memory = agent.build(folder / "memory", lance=False)
    shutil.copy(copy_store("hybrid-2026.4.273", "memory") / "credentials.db", memory)
    for name, text in {
        "openclaw.json": SETTINGS,
        "workspace/MEMORY.md": "# Memory\n",
        "workspace/USER.md": "# User\n",
        "agents/main/agent/auth-profiles.json": json.dumps({"profiles": {"anthropic": {"key": PROFILE}}}),
        ".env": f"KEY={DOTENV}\n",
        "workspace/.env": f"KEY={DOTENV}\n",
        "memory/.env.local": f"KEY={DOTENV}\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def secrets_in(folder: Path) -> set[str]:
    """Return which secrets are anywhere in a folder."""
    text = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    named = {"key": KEY, "token": TOKEN.replace("/", "\\/"), "phrase": PHRASE, "profile": PROFILE, "dotenv": DOTENV}
    found = {name for name, value in named.items() if value.encode() in text}
    return found | ({"vault"} if list(folder.rglob("credentials.db")) else set())


def plain(vault: OpenVault) -> bytes:
    """Return all that a vault keeps, decoded."""
    inner, found = vault._vault, []
    for snapshot in inner.snapshots():
        found.append(repr(snapshot).encode())
        for part in snapshot.parts:
            image = inner.image(part)
            found.append(repr(image).encode())
            found += [inner.reader.read(one.recipe) for one in image.entries if one.recipe is not None]
            found += [inner.reader.chunk(group.chunk) for one in image.collections for group in one.groups]
    return b"\n".join(found)


ALL = {"key", "token", "phrase", "profile", "vault"}


@pytest.mark.parametrize(
    ("encrypted", "choice", "taken"),
    [(True, "auto", ALL), (True, "exclude", set()), (False, "auto", set()), (False, "include", ALL)],
)
def test_secrets_go_where_they_may(
    *, encrypted: bool, choice: Any, taken: set[str], state: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault(encrypted=encrypted)
    reports = vault.backup(state, secrets=choice).snapshots
    assert {report.system for report in reports} == {"openclaw-core", "openclaw-hybrid"}
    for number, report in enumerate(reports):
        vault.restore(report.id, to=tmp_path / "back" / str(number))
    assert secrets_in(tmp_path / "back") == taken
    assert not list((tmp_path / "back").rglob(".env*"))
    omitted = {omission.part: omission.reason for report in reports for omission in report.omitted}
    secret = {"credentials.db", "agents/main/agent/auth-profiles.json", "openclaw.json"}
    assert secret & omitted.keys() == (set() if taken else secret)
    assert {".env", "workspace/.env", ".env.local"} <= omitted.keys()
    assert all(".env" in omitted[name] for name in (".env", "workspace/.env", ".env.local"))
    kept = plain(vault)
    for secret_text in (KEY, TOKEN, PROFILE):
        assert (secret_text.encode() in kept.replace(b"\\/", b"/")) == bool(taken)
    assert DOTENV.encode() not in kept
    if not taken:
        where = "--no-secrets was given" if encrypted else "the vault is not encrypted"
        assert where in omitted["credentials.db"]
        assert "models.providers.openai.apiKey" in omitted["openclaw.json"]
    assert {one.rung for one in vault.verify(rung=memkeep.Rung.EQUIVALENT, all=True).snapshots} == {"equivalent"}


def test_a_redacted_file_keeps_every_other_byte(
    state: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault(encrypted=False)
    report = next(one for one in vault.backup(state).snapshots if one.system == "openclaw-core")
    vault.restore(report.id, to=tmp_path / "back", parts=["openclaw.json"])
    restored = (tmp_path / "back" / "openclaw.json").read_bytes()
    wanted = SETTINGS
    for literal in (KEY, TOKEN.replace("/", "\\/"), PHRASE):
        assert wanted.count(literal) == 1
        wanted = wanted.replace(literal, "redacted by memkeep")
    assert restored == wanted.encode()
    live, back = (state / "openclaw.json").stat(), (tmp_path / "back" / "openclaw.json").stat()
    assert (back.st_mode, back.st_mtime_ns) == (live.st_mode, live.st_mtime_ns)
    assert (state / "openclaw.json").read_text(encoding="utf-8") == SETTINGS


def test_a_secret_that_cannot_be_found_in_the_text_is_not_stored(
    state: Path, new_vault: Callable[..., OpenVault]
) -> None:
    escaped = SETTINGS.replace(KEY, "\\u0073" + KEY[1:])  # the same key, spelled in another way
    (state / "openclaw.json").write_text(escaped, encoding="utf-8")
    vault = new_vault(encrypted=False)
    (failed,) = vault.backup(state).failed
    assert "openclaw.json" in failed.message
    assert failed.hint == "memkeep backup --include-secrets"
    assert [row.system for row in vault.snapshots().snapshots] == ["openclaw-hybrid"]
    assert KEY[1:].encode() not in plain(vault)


def test_a_credential_vault_in_plain_text_is_a_finding(state: Path, new_vault: Callable[..., OpenVault]) -> None:
    with closing(sqlite3.connect(state / "memory" / "credentials.db")) as connection, connection:
        connection.execute("UPDATE vault_meta SET value = '0' WHERE key = 'kdf_version'")
    for encrypted in (True, False):
        vault = new_vault(str(encrypted), encrypted=encrypted)
        report = next(one for one in vault.backup(state).snapshots if one.system == "openclaw-hybrid")
        [finding] = [one for one in report.findings if one.code == "credentials_plaintext"]
        assert finding.part == "credentials.db"
        assert finding.severity is Severity.WARNING
        assert finding.mend
    [found] = [one for store in memkeep.discover(state) for one in store.findings]
    assert found.code == "credentials_plaintext"


def test_nothing_in_an_encrypted_vault_can_be_read_without_its_key(
    state: Path, new_vault: Callable[..., OpenVault], home: Path
) -> None:
    vault = new_vault()
    vault.backup(state, tag="nightly-tag", label="a label of mine")
    vault.backup(state)
    words = [
        *(KEY, TOKEN, PHRASE, PROFILE, "remembers fact", "café", "# Memory", "# User"),
        *("facts.db", "memory.wal", "MEMORY.md", "workspace", "openclaw", "credentials", "hybrid"),
        *(str(state), state.name, "nightly-tag", "a label of mine", "SQLite format 3", "CREATE TABLE", "readable"),
        agent.identity(30),
    ]
    files = [path for path in (home / "vault").rglob("*") if path.is_file()]
    assert len(files) > 8
    told = " ".join(path.relative_to(home).as_posix() for path in files)
    raw = b"".join(path.read_bytes() for path in files)
    for word in words:
        assert word not in told
        for encoded in (word.encode(), word.encode("utf-16-le"), word.encode().hex().encode()):
            assert encoded not in raw, word
    assert b"remembers fact" in plain(vault)  # it is there for those with the key


def carried(vault: OpenVault, folder: Path, identity: Path | None = None, **how: Any) -> tuple[Path, list[Any]]:
    """Pack every snapshot and bring it back; return where they lie now, and what was packed."""
    results = []
    for one in vault.snapshots().snapshots:
        file = folder / f"{one.id}.tar.zst"
        results.append(vault.pack(one.id, file, **how))
        memkeep.restore_file(file, to=folder / "back" / one.id, identities=[identity] if identity else ())
    return folder / "back", results


def test_a_packed_file_holds_no_secret_unless_asked(
    state: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault()
    vault.backup(state)
    (tmp_path / "plain").mkdir()
    (tmp_path / "asked").mkdir()
    back, done = carried(vault, tmp_path / "plain")
    assert secrets_in(back) == set()
    left = {omitted.part: omitted.reason for one in done for omitted in one.omitted}
    unwanted = "secret, and the packed file is not encrypted"
    assert left["credentials.db"] == left["agents/main/agent/auth-profiles.json"] == unwanted
    assert "were replaced" in left["openclaw.json"]
    back, _ = carried(vault, tmp_path / "asked", secrets="include")
    assert secrets_in(back) == {"key", "token", "phrase", "profile", "vault"}


def test_an_encrypted_packed_file_holds_the_secrets_and_shows_nothing(
    state: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault()
    vault.backup(state)
    identity = tmp_path / "identity"
    mine = pyrage.x25519.Identity.generate()
    identity.write_text(f"# created: today\n{mine}\n")
    for name in ("all", "none"):
        (tmp_path / name).mkdir()
    back, done = carried(vault, tmp_path / "all", identity, recipients=[str(mine.to_public())])
    assert all(one.encrypted for one in done)
    assert not any(omitted.reason.startswith("secret") for one in done for omitted in one.omitted)
    assert secrets_in(back) == {"key", "token", "phrase", "profile", "vault"}
    for file in (tmp_path / "all").glob("*.zst"):
        sealed = file.read_bytes()
        assert sealed.startswith(b"age-encryption.org/v1")
        assert not any(word in sealed for word in (b"MANIFEST", b"openclaw", b"facts", KEY.encode()))
        identity.write_text(str(pyrage.x25519.Identity.generate()))
        with pytest.raises(WrongKeyError):
            memkeep.restore_file(file, to=tmp_path / "other", identities=[identity])
        assert not (tmp_path / "other").exists()
    identity.write_text(str(mine))
    how = {"recipients": [str(mine.to_public())], "secrets": "exclude"}
    back, _ = carried(vault, tmp_path / "none", identity, **how)
    assert secrets_in(back) == set()
