"""The settings file: which vaults there are, which stores, and what to keep.

It is TOML at `~/.config/memkeep/config.toml` (the platform's config folder), or where `MEMKEEP_CONFIG` says:

    vault = "home"                       # the default vault: a name from below, a folder or a URL

    [vaults.home]
    url = "~/vault"
    password_file = "~/.vault-password"  # or password_command = "pass show vault"
    upload_limit = "2 MB/s"              # and download_limit: over all threads of one command
    append_only = true                   # this machine adds snapshots and removes nothing
    object_lock = "30d"                  # s3:// only: nobody removes what a snapshot needs for so long
    cache_size = "2GB"                   # of packs kept here of a vault that is far; or cache = false

    [stores.work]
    path = "~/work/agent"                # or a URL: postgresql://user@host/database, qdrant://host:6333/collection
    system = "custom"                    # told by content when it is left out
    exclude = ["*.log"]                  # names under the path, or patterns
    servers = ["qdrant://localhost:6333/notes"]   # only for `custom`: what of the store lies in servers
    password_file = "~/.qdrant-key"      # of the servers: password or API key
    stop = "docker compose stop api"     # what writes to the store stands still while it is frozen
    start = "docker compose start api"   # needed with `stop`; it is run whatever happens

    [[stores.work.parts]]                # only for `custom`: which columns are what
    name = "memory.db"
    table = "notes"
    id = "key"
    text = "body"
    created_at = "ts"
    vector = "emb"

    [retention]
    policy = "openmemory"                # or thanos, rolling-7: see `memkeep forget --help`
    keep_last = 7                        # the policy's own number or span for a key gives way to one given here
    keep_within = "30d"

    [run]                                # what `memkeep run` does; see docs/how-to/unattended.md
    verify = "readable"                  # how far the newest snapshots are proven
    copy_to = ["away"]                   # vaults that mirror this one: names from above, folders or URLs

A vault's password is taken from the first of these that has it: `--password-file`, `--password-command`;
`MEMKEEP_PASSWORD`, `MEMKEEP_PASSWORD_FILE`, `MEMKEEP_PASSWORD_COMMAND`; `password_file`, `password_command` from here;
the systemd credential `memkeep-password` (or what `password_credential` names); the keyring, when
`memkeep key remember` put it there; a question on the terminal.

A flag wins over the environment, the environment over the file, the file over the default: see `settle`.
"""

import difflib
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NewType, TypeVar, get_args, get_origin

import msgspec

from memkeep.errors import UsageError
from memkeep.model import Role, Value

_PERIOD = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s?)?")
T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

Size = NewType("Size", int)
"""Bytes, written like `500kB`, `2 MB` or `1GiB`."""

Rate = NewType("Rate", int)
"""Bytes a second, written like `500kB/s`, `2 MB/s` or `1GiB/s`."""

Period = NewType("Period", timedelta)
"""A length of time, written like `30d`, `12h` or `1d12h`."""

MOST = timedelta(days=36500)  # what Object Lock takes
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([kMGT]i?|)B(/s|)")
_UNITS = {"": 1} | {
    letter + i: base**power for power, letter in enumerate("kMGT", 1) for i, base in (("", 1000), ("i", 1024))
}


class VaultSettings(Value):
    """One vault: where it lies, where its password comes from, and how this machine uses it."""

    url: str
    password_file: str | None = None
    password_command: str | None = None
    password_credential: str | None = None
    append_only: bool = False
    object_lock: Period | None = None
    object_lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    upload_limit: Rate | None = None
    download_limit: Rate | None = None
    cache: bool = True
    cache_size: Size = Size(2_000_000_000)


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
    servers: tuple[str, ...] = ()
    password_file: str | None = None
    stop: str | None = None
    start: str | None = None


class Retention(Value):
    """Which snapshots `forget` keeps; None says nothing, and leaves a policy its own. What they mean: ops.retention."""

    policy: str | None = None
    keep_last: int | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None
    keep_within: str | None = None
    keep_tag: tuple[str, ...] = ()


class RunSettings(Value):
    """What `memkeep run` does; no steps means all that the settings say enough for."""

    steps: tuple[Literal["backup", "verify", "forget", "prune", "copy"], ...] = ()
    verify: Literal["intact", "readable", "restorable", "equivalent"] = "intact"
    verify_all: bool = False  # every snapshot, not only the newest of each store
    copy_to: tuple[str, ...] = ()


class Config(Value):
    """All settings; `file` is where they were read from, None when there was no file."""

    vault: str | None = None
    vaults: dict[str, VaultSettings] = {}
    stores: dict[str, StoreSettings] = {}
    retention: Retention = Retention()
    run: RunSettings = RunSettings()
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
    config = _struct(raw, Config, "", path)
    for name, store in config.stores.items():
        if (store.stop is None) != (store.start is None):
            raise _wrong(path, f"`stores.{name}` needs `stop` and `start`, or neither")
    return msgspec.structs.replace(config, file=str(path))


def settle(flag: T | None, env: T | None, file: T | None, default: T) -> T:
    """Return the value that wins: the flag, else the environment's, else the file's, else the default.

    None and an empty text mean "not given"; False and 0 are values.
    """
    for value in (flag, env, file):
        if value is not None and value != "":
            return value
    return default


def parse_size(text: str) -> Size:
    """Return how many bytes `500kB`, `2 MB` or `1GiB` are; `ValueError` for what says no size, and for none at all."""
    return Size(_amount(text, "", "a size: write it like 500kB, 2 MB or 1GiB"))


def parse_rate(text: str) -> Rate:
    """Return how many bytes a second `2 MB/s` is; `ValueError` for what says no such speed, and for none at all."""
    return Rate(_amount(text, "/s", "a speed: write it like 500kB/s, 2 MB/s or 1GiB/s"))


def parse_period(text: str) -> Period:
    """Return how long `30d` is; `ValueError` for what says no such time, none at all, and more than 100 years."""
    try:
        found = period(text, "")
    except UsageError:
        found = timedelta(0)
    if not timedelta(0) < found <= MOST:
        raise ValueError(f"{text!r} is not a length of time: write it like 30d, 12h or 1d12h")
    return Period(found)


def _amount(text: str, ending: str, what: str) -> int:
    said = _AMOUNT.fullmatch(text.strip())
    amount = round(float(said[1]) * _UNITS[said[2]]) if said is not None and said[3] == ending else 0
    if amount < 1:
        raise ValueError(f"{text!r} is not {what}")
    return amount


def period(text: str, name: str) -> timedelta:
    """Return a length of time such as `24h`, `90m`, `1d12h` or `0`; `UsageError` names what it was given for."""
    found = _PERIOD.fullmatch(text.replace(" ", ""))
    if found is None or not text.strip():
        raise UsageError(f"{name}: {text!r} is no length of time such as 24h, 90m or 2d")
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


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
    for amount, parse in ((Size, parse_size), (Rate, parse_rate), (Period, parse_period)):
        if kind is amount or amount in arguments:
            try:
                return parse(raw if isinstance(raw, str) else repr(raw))
            except ValueError as error:
                raise _wrong(path, f"`{at}`: {error}") from error
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
