"""What `openclaw.json` says: where plugins keep their stores, and which of its keys hold secrets."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memkeep.records import relaxed
from memkeep.systems.base import OpenClaw, Places
from memkeep.systems.look import Look

FILE = "openclaw.json"

_REFERENCE = re.compile(r"\$\{(\w+)\}")
_BY_NAME = re.compile(r"env:\w+")  # as mem0 refers to the environment
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = frozenset(
    {"apikey", "token", "tokens", "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
    | {"authorization", "cookie"}
)
_SECRET_KEYS = frozenset({"api", "access", "auth", "encryption", "master", "private", "secret", "signing", "service"})
_REFERENCE_KEYS = frozenset({"source", "provider", "id", "env", "file", "path", "command", "mode", "type"})
_LOOKS_SECRET = re.compile(r"(sk|pk|rk|ghp|gho|xox[abpr])[-_][\w-]{16,}|AKIA[0-9A-Z]{16}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*")


def is_home(look: Look, folder: Path, places: Places) -> bool:
    """Say whether a folder is a state folder, or holds the one in use, so that much in it is of others."""
    return FILE in look.folder(folder).files or places.state_dir.is_relative_to(folder)


def read(file: Path) -> dict[str, Any] | None:
    """Return what a file in the form of `openclaw.json` says; None when it is not there or is not one."""
    try:
        said = relaxed.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def dig(said: object, *keys: str) -> Any:
    """Return the value under nested keys; None when there is none."""
    for key in keys:
        said = said.get(key) if isinstance(said, dict) else None
    return said


def plugin(config: OpenClaw, name: str) -> dict[str, Any]:
    """Return the settings of a plugin; empty when there are none."""
    said = dig(config.data, "plugins", "entries", name, "config")
    return said if isinstance(said, dict) else {}


def place(said: object, config: OpenClaw, places: Places) -> Path | None:
    """Return the local path that a setting means, `~` and `${NAME}` expanded; None for none, or for a URL.

    A path under `~/.openclaw` means the state folder that the config lies in, when that is a copy made elsewhere:
    what a copy says of itself must not lead to the live store.
    """
    if not isinstance(said, str) or not said.strip() or "://" in said:
        return None
    if any(name not in places.environ for name in _REFERENCE.findall(said)):
        return None
    text = _REFERENCE.sub(lambda found: places.environ[found.group(1)], said)
    if text == "~" or text.startswith("~/"):
        text = f"{places.home}/{text[2:]}"
    meant = Path(os.path.normpath(config.state_dir / text))
    usual = places.home / ".openclaw"
    if meant.is_relative_to(usual):
        moved = config.state_dir / meant.relative_to(usual)
        if config.state_dir != places.state_dir or not meant.exists():
            meant = moved
    return Path(os.path.realpath(meant))


def workspaces(config: OpenClaw, places: Places) -> list[Path]:
    """Return the workspaces that a config names, the default agent's first, which has a default."""
    agents = dig(config.data, "agents", "list")
    said = [dig(config.data, "agents", "defaults", "workspace")]
    said += [dig(agent, "workspace") for agent in agents] if isinstance(agents, list) else []
    named = [found for each in said if (found := place(each, config, places))]
    if not isinstance(said[0], str):
        named.insert(0, Path(os.path.realpath(config.state_dir / "workspace")))
    return list(dict.fromkeys(named))


def embedding(settings: object) -> dict[str, Any]:
    """Return the embedder that a plugin's settings name: provider, model, dims; only what is said."""
    said = dig(settings, "embedding")
    wanted = {"provider": dig(said, "provider"), "model": dig(said, "model"), "dims": dig(said, "dimensions")}
    return {name: value for name, value in wanted.items() if isinstance(value, str | int)}


def plugin_version(config: OpenClaw, name: str) -> str | None:
    """Return the version of a plugin as installed under the state folder; None when it is not there."""
    version = (read(config.state_dir / "extensions" / name / "package.json") or {}).get("version")
    return version if isinstance(version, str) else None


def secrets(said: object) -> tuple[str, ...]:
    """Return the dotted keys that hold a secret as literal text, in order.

    A key holds a secret by its last words (`apiKey`, `bot_token`, `encryptionKey`), in a table of such a name, or by
    the form of its value. References, to the environment (`${NAME}`, `env:NAME`) or by a table (`{source, id}`), are
    no secrets.
    """
    return tuple(_secrets(said, "", secret=False))


def _secrets(said: object, at: str, *, secret: bool) -> Iterator[str]:
    if isinstance(said, dict):
        for key, value in said.items():
            listed = secret and not isinstance(value, dict) and key not in _REFERENCE_KEYS
            yield from _secrets(value, f"{at}.{key}" if at else key, secret=listed or _names_secret(key))
    elif isinstance(said, list):
        for index, value in enumerate(said):
            yield from _secrets(value, f"{at}.{index}" if at else str(index), secret=secret)
    elif isinstance(said, str):
        literal = _REFERENCE.sub("", said).removeprefix("Bearer").strip()
        if (
            literal
            and not _BY_NAME.fullmatch(literal)
            and (_LOOKS_SECRET.search(said) or (secret and not literal.isdigit()))
        ):
            yield at


def _names_secret(key: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(key)]
    if not words:
        return False
    return words[-1] in _SECRET_WORDS or (len(words) > 1 and words[-1] == "key" and words[-2] in _SECRET_KEYS)
