"""Memories that name a file or a host that is not there."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from memkeep.model import Severity
from memkeep.ops.audits.base import Kind, Noticed, Pass, Scene, is_current
from memkeep.records.record import Record

_PATH = re.compile(
    r"(?<![\w/.:~$*<}-])"
    r"((?:~|/(?:home|Users|root|etc|opt|srv|mnt|media|usr|data|workspace|var/(?:lib|www|log|data)))/[\w@+.-][\w@+./-]*)"
)
_HOST = re.compile(r"\b(?:https?|ssh|ftps?|postgres(?:ql)?|redis|mongodb|mysql|amqp)://(?:[^\s/@]*@)?([A-Za-z0-9.-]+)")
_EXAMPLES = ("example.com", "example.org", "example.net", "localhost", ".invalid", ".test", ".example")
_ASKED_AT_ONCE = 8

name = "places"
vectors = False
kinds: tuple[Kind, ...] = (
    Kind(
        name="dead_path",
        title="memories that name a file or folder that is not here",
        severity=Severity.INFO,
        mend="correct them, or delete them if they are of this machine",
    ),
    Kind(
        name="dead_host",
        title="memories that name a host that no longer has an address",
        severity=Severity.INFO,
        mend="correct them or delete them",
    ),
)


class _Pass(Pass):
    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._found: list[Noticed] = []
        self._hosts = defaultdict[str, list[Record]](list)
        self._known: dict[str, bool] = {}

    def record(self, record: Record) -> None:
        if not is_current(record):
            return
        if self._scene.here and "/" in record.text:
            gone = [path for path in dict.fromkeys(_paths(record.text)) if not self._is_there(path)]
            if gone:
                why = f"{gone[0]} is not on this machine" + (f", nor {len(gone) - 1} more" if len(gone) > 1 else "")
                self._say("dead_path", record, why)
        if "://" in record.text:
            for host in {match.lower().rstrip(".") for match in _HOST.findall(record.text)}:
                if "." in host and not host.endswith(_EXAMPLES):
                    bare = Record(id=record.id, text="", collection=record.collection)
                    self._hosts[host].append(bare)

    def noticed(self) -> Iterable[Noticed]:
        if self._scene.ask_hosts:
            for host in _dead(sorted(self._hosts)):
                for record in self._hosts[host]:
                    self._say("dead_host", record, f"{host} has no address")
        return self._found

    def unchecked(self) -> Iterable[str]:
        if not self._scene.here:
            yield "whether the files that memories name are there: only for a store on this machine"
        if self._hosts and not self._scene.ask_hosts:
            number = f"{len(self._hosts):,} named host{'s have' if len(self._hosts) > 1 else ' has'}"
            yield f"whether {number} an address: nothing is asked of the network without --hosts"

    def _is_there(self, path: str) -> bool:
        if path not in self._known:
            try:
                at = Path(path).expanduser()
                self._known[path] = at.is_symlink() or at.exists()
            except (OSError, RuntimeError, ValueError):  # no right to look, no such user
                self._known[path] = True
        return self._known[path]

    def _say(self, kind: str, record: Record, why: str) -> None:
        self._found.append(Noticed(kind=kind, collection=record.collection, id=record.id, why=why))


def _paths(text: str) -> list[str]:
    return [path.rstrip("./-") for path in _PATH.findall(text)]


def _dead(hosts: list[str]) -> list[str]:
    """Return the hosts that name resolution says do not exist; one that could not be asked is not among them."""
    import socket
    from concurrent.futures import ThreadPoolExecutor

    def is_dead(host: str) -> bool:
        try:
            socket.getaddrinfo(host, None)
        except socket.gaierror as error:
            return error.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
        except (OSError, UnicodeError):
            return False
        return False

    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return [host for host, dead in zip(hosts, pool.map(is_dead, hosts), strict=True) if dead]


def begin(scene: Scene) -> Pass:
    """Begin a reading."""
    return _Pass(scene)
