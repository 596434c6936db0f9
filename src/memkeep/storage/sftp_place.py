"""What an `sftp://` URL names.

    sftp://[user@]host[:port]/srv/vault      the folder /srv/vault
    sftp://[user@]host[:port]//srv/vault     the same, as restic writes it
    sftp://[user@]host[:port]/~/vault        the folder `vault` in the login folder; `/./vault` is the same

The host may be an alias of `~/.ssh/config`. Where restic reads one slash as "in the login folder", memkeep follows the
URLs of ssh, git, borg and curl: what follows the host is the whole path. `%20` stands for a space.
"""

import shlex
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from memkeep.errors import UsageError

_EXAMPLE = "memkeep init --vault sftp://user@host/srv/vault"


class Place(NamedTuple):
    """A folder on an SFTP server; without a user or a port those of `~/.ssh/config` count."""

    url: str
    host: str
    user: str | None
    port: int | None
    path: str  # absolute, or relative to the login folder

    def ssh(self, *words: str) -> str:
        """Return the command line that runs `ssh` to this server."""
        port = ("-p", str(self.port)) if self.port else ()
        return shlex.join(("ssh", *port, self.login, *words))

    @property
    def login(self) -> str:
        """`user@host`, or the host alone."""
        return f"{self.user}@{self.host}" if self.user else self.host


def parse(url: str) -> Place:
    """Take an `sftp://` URL apart; `UsageError` when it has a password, or lacks a host or a folder."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url} is not a URL: {error}", hint=_EXAMPLE) from error
    if parts.password is not None:
        without = url.replace(f":{parts.password}@", "@", 1)
        raise UsageError(
            f"{without} was given with a password: memkeep logs in with a key or an agent, never with a password",
            hint=f"ssh-copy-id {shlex.quote(f'{parts.username}@{host}')}",
        )
    if not host or parts.query or parts.fragment:
        raise UsageError(f"{url} is not of the form sftp://user@host:port/folder", hint=_EXAMPLE)
    host = host_of(parts)
    path = unquote(parts.path)
    if path in {"/~", "/."} or path.startswith(("/~/", "/./")):
        path = path[3:].strip("/") or "."
    elif path.strip("/"):
        path = "/" + path.strip("/")
    else:
        raise UsageError(
            f"{url} names no folder", hint=f"memkeep init --vault {shlex.quote(url.rstrip('/') + '/~/vault')}"
        )
    if host.startswith("-") or (parts.username or "").startswith("-"):  # it is shown in commands to copy
        raise UsageError(f"{url} names no host", hint=_EXAMPLE)
    return Place(url.rstrip("/"), host, unquote(parts.username) if parts.username else None, port, path)


def host_of(parts: SplitResult) -> str:
    """Return the host as it was written: `hostname` is in lower case, which aliases of `~/.ssh/config` need not be."""
    given = parts.netloc.rpartition("@")[2]
    at = given.lower().find(parts.hostname or "")
    return given[at : at + len(parts.hostname or "")]
