"""The settings file: which vaults there are, which stores, and what to keep.

It is TOML at `~/.config/memkeep/config.toml` (the platform's config folder), or where `MEMKEEP_CONFIG` says:

    vault = "home"                       # the default vault: a name from below, a folder or a URL

    [vaults.home]
    url = "~/vault"
    password_file = "~/.vault-password"  # or password_command = "pass show vault"

    [stores.work]
    path = "~/work/agent"
    system = "custom"                    # told by content when it is left out
    exclude = ["*.log"]                  # names under the path, or patterns

    [[stores.work.parts]]                # only for `custom`: which columns are what
    name = "memory.db"
    table = "notes"
    id = "key"
    text = "body"
    created_at = "ts"
    vector = "emb"

    [retention]
    keep_last = 7
    keep_within = "30d"

A flag wins over the environment, the environment over the file, the file over the default: see `settle`.
"""

import difflib
import os
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from memkeep.errors import UsageError
from memkeep.model import Role, Value

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


class VaultSettings(Value):
    """One vault: where it lies, and where its password comes from."""

    url: str
    password_file: str | None = None
    password_command: str | None = None


class PartSettings(Value):
    """One table or folder of notes of a `custom` store, and which of its columns is what."""

    name: str  # the part's path under the store
    table: str = ""  # of a database; a Lance table folder has only one
    collection: str | None = None  # the table's name unless given
    role: Role | None = None
    primary: bool = True
    id: str | None = None
    text: str | None = None
    category: str | None = None
    scope: str | None = None
    source: str | None = None
    tags: str | None = None
    importance: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    vector: str | tuple[str, ...] | None = None


class StoreSettings(Value):
    """One store: where it lies, and what is known of it beforehand."""

    path: str
    system: str | None = None
    parts: tuple[PartSettings, ...] = ()
    exclude: tuple[str, ...] = ()


class Retention(Value):
    """Which snapshots to keep when pruning; None says nothing."""

    policy: str | None = None
    keep_last: int | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None
    keep_within: str | None = None
    keep_tag: tuple[str, ...] = ()


class Config(Value):
    """All settings; `file` is where they were read from, None when there was no file."""

    vault: str | None = None
    vaults: dict[str, VaultSettings] = {}
    stores: dict[str, StoreSettings] = {}
    retention: Retention = Retention()
    file: str | None = None


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the settings file is or would be."""
    if given := environ.get("MEMKEEP_CONFIG"):
        return Path(given).expanduser()
    import platformdirs

    return platformdirs.user_config_path("memkeep") / "config.toml"


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Read the settings file; without one all settings are at their defaults.

    Raises `UsageError`, naming the file and the key, for anything in it that is not a setting, and when
    `MEMKEEP_CONFIG` names a file that is not there.
    """
    path = config_path(environ)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if environ.get("MEMKEEP_CONFIG"):
            message = f"MEMKEEP_CONFIG names {path}, which is not there."
            raise UsageError(message, hint="unset MEMKEEP_CONFIG") from None
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"is not valid TOML: {error}") from error
    if "file" in raw:
        raise _unknown(path, "file", Config)
    return msgspec.structs.replace(_struct(raw, Config, "", path), file=str(path))


def settle(flag: T | None, env: T | None, file: T | None, default: T) -> T:
    """Return the value that wins: the flag, else the environment's, else the file's, else the default.

    None and an empty text mean "not given"; False and 0 are values.
    """
    for value in (flag, env, file):
        if value is not None and value != "":
            return value
    return default


def vault_settings(config: Config, given: str) -> VaultSettings:
    """Return the settings of a vault given by its name, or by its place: then those whose `url` is that place."""
    if given in config.vaults:
        return config.vaults[given]
    for settings in config.vaults.values():
        if given == settings.url or ("://" not in given and _home(given) == _home(settings.url)):
            return settings
    return VaultSettings(url=given)


def _home(place: str) -> Path:
    return Path(place).expanduser()


def _struct(raw: object, kind: type[S], at: str, path: Path) -> S:
    """Convert a TOML table to a struct, field by field, so that an error can name the whole key."""
    if not isinstance(raw, dict):
        raise _wrong(path, f"`{at}` must be a table, not {_said(raw)}")
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values = {}
    for key, value in raw.items():
        if key not in fields:
            raise _unknown(path, f"{at}.{key}" if at else key, kind)
        values[key] = _value(value, fields[key].type, f"{at}.{key}" if at else key, path)
    for name, field in fields.items():
        if field.required and name not in values:
            raise _wrong(path, f"`{at}` needs the key `{name}`")
    return kind(**values)


def _value(raw: object, kind: Any, at: str, path: Path) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(raw, kind, at, path)
    if origin is dict and isinstance(raw, dict):
        return {key: _value(value, arguments[1], f"{at}.{key}", path) for key, value in raw.items()}
    if origin is tuple and isinstance(raw, list):
        return tuple(_value(value, arguments[0], f"{at}[{index}]", path) for index, value in enumerate(raw))
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _wrong(path, f"`{at}`: {str(error)[0].lower()}{str(error)[1:]}") from error


def _unknown(path: Path, key: str, kind: type[msgspec.Struct]) -> UsageError:
    known = [field.encode_name for field in msgspec.structs.fields(kind) if (kind, field.name) != (Config, "file")]
    parent, _, last = key.rpartition(".")
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
    where = f"in [{parent}] of" if parent else "in"
    said = f"the nearest known one is `{near[0]}`" if near else f"known are {', '.join(f'`{name}`' for name in known)}"
    return UsageError(f"Unknown key `{last}` {where} {path}: {said}.", hint=_edit(path), code="config_unknown_key")


def _wrong(path: Path, what: str) -> UsageError:
    joined = f"{path} {what}." if not what.startswith("`") else f"In {path}, {what}."
    return UsageError(joined, hint=_edit(path), code="config")


def _edit(path: Path) -> str:
    return f"${{EDITOR:-vi}} {shlex.quote(str(path))}"


def _said(raw: object) -> str:
    return {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}.get(
        type(raw), type(raw).__name__
    )
