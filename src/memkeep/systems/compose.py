"""What a compose file says of services: their environment, the ports they publish, where their volumes are mounted.

Read as Docker Compose reads it, as far as that is needed to find a server: `${NAME}`, `${NAME:-default}`, `$$`, both
spellings of ports, volumes and environments (https://docs.docker.com/reference/compose-file/). `.env` files are read
for this and never kept.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memkeep.model import Value

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_LOOPBACK = "127.0.0.1"
_ANY = frozenset({"", "0.0.0.0", "::", "localhost"})  # noqa: S104 - what is published on all addresses is on loopback
_REFERENCE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)(?:(:?[-?+])((?:[^{}]|\$\{[^{}]*\})*))?\})")
_PORT = re.compile(r"(?:(?P<host>\[[^\]]*\]|[^:]*):)??(?:(?P<published>[\d-]*):)?(?P<target>[\d-]+)(?:/\w+)?")


class Service(Value):
    """One service."""

    name: str
    image: str = ""
    build: str = ""  # the context
    environment: dict[str, str] = {}  # env_file and environment
    published: dict[int, tuple[str, int]] = {}  # container's port -> host and port here; port 0: not known
    mounts: tuple[tuple[str, str], ...] = ()  # source ("" for none) and path in the container


class Compose(Value):
    """One compose file."""

    file: Path
    services: dict[str, Service]


def read(folder: Path, environ: Mapping[str, str]) -> Compose | None:
    """Return what the compose file in a folder says; None when there is none, or it can't be read."""
    import yaml

    for name in FILES:
        try:
            said = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        if isinstance(said, dict) and isinstance(said.get("services"), dict):
            known = {**dotenv(folder / ".env"), **environ}
            found = _filled(said["services"], known)
            services = {
                str(each): _service(str(each), values, folder, known)
                for each, values in found.items()
                if isinstance(values, dict)
            }
            return Compose(file=folder / name, services=services)
    return None


def dotenv(file: Path) -> dict[str, str]:
    """Return what an `.env` file sets; nothing when it can't be read."""
    from dotenv import dotenv_values

    try:
        return {name: value or "" for name, value in dotenv_values(file).items()} if file.is_file() else {}
    except (OSError, UnicodeDecodeError):
        return {}


def reached(compose: Compose | None, host: str, port: int) -> tuple[str, int] | None:
    """Return where from this machine a host and port lie that a service knows; None when they are not published."""
    service = compose.services.get(host) if compose is not None else None
    if service is not None:
        return service.published.get(port)
    return (_LOOPBACK, port) if host in {"localhost", "host.docker.internal"} else (host, port)


def _filled(said: Any, known: Mapping[str, str]) -> Any:
    """Put the values of variables into all texts."""
    if isinstance(said, dict):
        return {key: _filled(value, known) for key, value in said.items()}
    if isinstance(said, list):
        return [_filled(value, known) for value in said]
    return _text(said, known) if isinstance(said, str) else said


def _text(said: str, known: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        dollar, bare, braced, how, other = found.groups()
        if dollar:
            return "$"
        now = known.get(bare or braced)
        there = now is not None and (bool(now) or not (how or "").startswith(":"))
        if how and how.endswith("+"):
            return _text(other, known) if there else ""
        return now or "" if there or not how or how.endswith("?") else _text(other, known)

    return _REFERENCE.sub(value, said)


def _service(name: str, said: dict[str, Any], folder: Path, known: Mapping[str, str]) -> Service:
    build = said.get("build")
    context = build.get("context") if isinstance(build, dict) else build
    environment: dict[str, str] = {}
    for file in _listed(said.get("env_file")):
        where = file.get("path") if isinstance(file, dict) else file
        environment |= dotenv(folder / str(where))
    environment |= dict(_pairs(said.get("environment"), known))
    ports = [pair for each in _listed(said.get("ports")) for pair in _ports(each)]
    published = {target: (host, port) for target, host, port in reversed(ports)}
    if said.get("network_mode") == "host":
        published = {port: (_LOOPBACK, port) for port in (5432, 6333)} | published
    return Service(
        name=name,
        image=str(said.get("image") or ""),
        build=str(context or ""),
        environment=environment,
        published=published,
        mounts=tuple(mount for each in _listed(said.get("volumes")) if (mount := _mount(each))),
    )


def _listed(said: Any) -> list[Any]:
    return said if isinstance(said, list) else [] if said is None else [said]


def _pairs(said: Any, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield an environment, a mapping or a list; a name without a value has that of whoever starts it."""
    pairs = said.items() if isinstance(said, dict) else [str(each).partition("=")[::2] for each in _listed(said)]
    bare = {str(each) for each in _listed(said) if "=" not in str(each)} if not isinstance(said, dict) else set()
    for name, value in pairs:
        if name in bare or value is None:
            if name in known:
                yield name, known[name]
        else:
            yield str(name), str(value)


def _ports(said: Any) -> Iterator[tuple[int, str, int]]:
    """Yield the container's port, and the host and port that it is published as."""
    if isinstance(said, dict):
        targets, published, host = str(said.get("target", "")), str(said.get("published", "")), said.get("host_ip", "")
    else:
        found = _PORT.fullmatch(str(said))
        if found is None:
            return
        targets, published, host = found["target"], found["published"] or "", (found["host"] or "").strip("[]")
    inside, outside = _range(targets), _range(published)
    here = _LOOPBACK if host in _ANY else f"[{host}]" if ":" in host else host
    for number, target in enumerate(inside):
        yield target, here, outside[number] if len(outside) == len(inside) else 0


def _range(said: str) -> list[int]:
    first, _, last = said.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        return []
    return list(range(int(first), min(int(last or first), int(first) + 1000) + 1))


def _mount(said: Any) -> tuple[str, str] | None:
    if isinstance(said, dict):
        return (str(said.get("source", "")), str(said["target"])) if said.get("target") else None
    pieces = str(said).split(":")
    return ("", pieces[0]) if len(pieces) == 1 else (pieces[0], pieces[1])
