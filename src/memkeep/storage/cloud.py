"""Object stores: `s3://bucket/prefix` (and whatever speaks S3), `gs://bucket/prefix`, `az://container/prefix`.

Credentials and endpoints come from the usual variables and files of each provider, never from the URL.
"""

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from os import environ
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from memkeep.errors import StorageError, UsageError
from memkeep.storage import aws, cloud_signed
from memkeep.storage.base import Capabilities, ObjectExistsError, ObjectMissingError, Stat, check_key, is_key
from memkeep.storage.cloud_errors import PASSING, Place, Trouble, failure, locked, trouble, wants_md5

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ClientConfig, RetryConfig

Store = S3Store | GCSStore | AzureStore

_URL = re.compile(r"(s3|gs|az)://([A-Za-z0-9][A-Za-z0-9._-]{1,254})(?:/+(.*?))?/*")
_PIECE = re.compile(r"(?!\.{1,2}(/|$))[\w .=+-]+")
_PROBE = "tmp/probe"
_CONNECT = "10s"
# Nothing is read while an object is sent, so that its size says how long a silence is borne: 50 kB/s are enough.
_PATIENCE = ((1 << 20, "60s"), (32 << 20, "660s"), (1 << 62, "6000s"))
_NOT_PARTIAL = "Received non-partial response when range requested"
_UNTOLD = "a day that the server does not tell"
_PAST_END = "Wanted range starting at"
_NO_RETRIES: "RetryConfig" = {"max_retries": 0}  # a wrapper knows better what may be tried again


def connect(url: str) -> "CloudStorage":
    """Return the storage at a URL; nothing is asked of it yet.

    Raises `UsageError` for a URL that it can't take, with credentials in it say, and `UnsupportedError` when the
    credentials are of a kind that needs an extra.
    """
    return CloudStorage(parse(url), environ)


def parse(url: str) -> Place:
    """Take a URL apart; `UsageError` (which shows nothing that may be a secret) for any that names no place."""
    scheme = url.partition("://")[0]
    rest = url.partition("://")[2]
    example = f"memkeep init --vault {scheme}://BUCKET/PREFIX"
    if re.search("[@:]", rest.partition("/")[0]) or "?" in rest:
        message = f"in {scheme}:// URLs there is no key, password or option: those belong into the environment"
        raise UsageError(message, hint=example, code="secret_in_url")
    found = _URL.fullmatch(url)
    prefix = re.sub("/+", "/", found[3] or "") if found else ""
    if not found or (prefix and not all(map(_PIECE.fullmatch, prefix.split("/")))):
        raise UsageError(
            f"{url} names no bucket and prefix that can be: a bucket has two plain characters or more", hint=example
        )
    return Place(found[1], found[2], prefix)


class CloudStorage:
    """Objects under a prefix of a bucket.

    A put is one request (up to 5 GB) that never replaces, where the server honours `If-None-Match`. Whether an
    S3-compatible one does is found out before the first put, with an object under `tmp/`; where it does not, the key
    is asked for first. S3 gets a SHA-256 with each object, which the server compares.
    """

    folder = None

    def __init__(self, place: Place, environment: Mapping[str, str]) -> None:
        self.url = place.url
        self._place = place
        self._environment = environment
        self._settings = aws.settings(environment) if place.scheme == "s3" else None
        self._stores: dict[str, Store] = {}
        self._md5 = False  # the server wants an MD5 with each object
        self._ranges = True  # the server answers a request for a range as HTTP says
        # Of whoever else speaks S3 it is not known whether they know `If-None-Match`.
        self._exclusive = None if self._settings is not None and self._settings.endpoint else True
        self._lock = threading.Lock()
        self._store(0)  # settings that can't be right are told at once

    @property
    def capabilities(self) -> Capabilities:
        """Puts count as exclusive only once it is known that the server makes them so."""
        return Capabilities(exclusive=self._exclusive is True, fresh=False, near=False)

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object with one request (two where the server replaces what is there)."""
        check_key(key)
        whole = b"".join(data)
        if self._creates():
            self._put(key, whole, mode="create")
        else:
            try:
                self.stat(key)
            except ObjectMissingError:
                self._put(key, whole, mode="overwrite")
            else:
                raise _taken(key)
        return len(whole)

    def get(self, key: str) -> bytes:
        """Fetch a whole object."""
        check_key(key)
        with self._explained("read", key):
            return obstore.get(self._store(0), self._path(key)).bytes().to_bytes()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Fetch a piece of an object."""
        check_key(key)
        if length <= 0:
            self.stat(key)
            return b""
        if self._ranges:
            try:
                found = obstore.get_range(self._store(0), self._path(key), start=offset, length=length)
                return found.to_bytes()
            except (BaseError, OSError) as error:
                if trouble(error).status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or _PAST_END in str(error):
                    return b""
                if _NOT_PARTIAL not in str(error):
                    raise failure(trouble(error), "read", key, self._place) from error
            self._ranges = False
        try:
            return cloud_signed.get_range(self._store(0), self._path(key), offset, length)
        except cloud_signed.SignedError as error:
            if error.trouble.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return b""
            raise failure(error.trouble, "read", key, self._place) from error

    def stat(self, key: str) -> Stat:
        """Ask how large an object is."""
        check_key(key)
        with self._explained("read", key):
            return Stat(key, obstore.head(self._store(0), self._path(key))["size"])

    def list(self, prefix: str) -> Iterator[Stat]:
        """List a folder, a thousand objects a request; those that begin otherwise or are no keys are left out."""
        folder = prefix.rpartition("/")[0]
        if folder and not is_key(folder):
            return
        start = f"{self._place.prefix}/" if self._place.prefix else ""
        with self._explained("list", prefix):
            for page in obstore.list(self._store(0), prefix=(start + folder).rstrip("/") or None):
                for found in page:
                    key = found["path"].removeprefix(start)
                    if key.startswith(prefix) and is_key(key):
                        yield Stat(key, found["size"])

    def delete(self, key: str) -> None:
        """Remove an object, after asking whether it is there: object stores remove what is not there too."""
        self.stat(key)
        try:
            obstore.delete(self._store(0), self._path(key))
        except (BaseError, OSError) as error:
            what = trouble(error)
            if self._place.scheme == "s3" and what.status == HTTPStatus.FORBIDDEN and (until := self._held(key, what)):
                raise locked(key, self._place, until) from error
            raise failure(what, "delete", key, self._place) from error

    def _held(self, key: str, what: Trouble) -> str:
        """Return until when Object Lock holds an object, empty when it does not, or not that this user may know."""
        told = "object lock" in what.said.lower()
        try:
            headers, _ = cloud_signed.fetch(self._store(0), "HEAD", self._path(key), {})
        except cloud_signed.SignedError:
            return _UNTOLD if told else ""
        until: str = headers.get("x-amz-object-lock-retain-until-date", "")
        if headers.get("x-amz-object-lock-legal-hold") == "ON":
            return "its legal hold is taken away"
        return until or (_UNTOLD if told else "")

    def _creates(self) -> bool:
        """Say whether the server refuses a put that would replace; ask it at the first call.

        One request where it does, once an earlier run has left the object there; else two.
        """
        with self._lock:
            if self._exclusive is None:
                self._exclusive = self._probe()
            return self._exclusive

    def _probe(self) -> bool:
        note = b"Put here twice, to learn whether this server keeps what is there."
        try:
            for _ in range(2):
                self._put(_PROBE, note, mode="create")
        except ObjectExistsError:
            return True
        except StorageError as error:
            cause = error.__cause__
            said = cause.trouble if isinstance(cause, cloud_signed.SignedError) else None
            said = trouble(cause) if isinstance(cause, BaseError) else said
            if said is None or said.status != HTTPStatus.NOT_IMPLEMENTED:
                raise
        return False

    def _put(self, key: str, whole: bytes, *, mode: "PutMode") -> None:
        if not self._md5:
            try:
                with self._explained("write", key):
                    obstore.put(self._store(len(whole)), self._path(key), whole, mode=mode, use_multipart=False)
                    return
            except StorageError as error:
                if not (isinstance(error.__cause__, BaseError) and wants_md5(trouble(error.__cause__))):
                    raise
            self._md5 = True
        try:
            cloud_signed.put(self._store(0), self._path(key), whole, new=mode == "create")
        except cloud_signed.SignedError as error:
            if error.trouble.status == HTTPStatus.PRECONDITION_FAILED:
                raise _taken(key) from error
            raise failure(error.trouble, "write", key, self._place) from error

    def _path(self, key: str) -> str:
        return f"{self._place.prefix}/{key}" if self._place.prefix else key

    def _store(self, size: int) -> Store:
        """Return a client that waits long enough for an object of that size to be sent."""
        patience = next(wait for most, wait in _PATIENCE if size <= most)
        if patience not in self._stores:
            self._stores[patience] = self._open(patience)
        return self._stores[patience]

    def _open(self, patience: str) -> Store:
        options: ClientConfig = {"connect_timeout": _CONNECT, "read_timeout": patience, "timeout": "1d"}
        try:
            if self._settings is not None:
                return self._settings.store(self._place.bucket, options, _NO_RETRIES)
            names = ("GOOGLE_BASE_URL",) if self._place.scheme == "gs" else ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
            options["allow_http"] = any(self._environment.get(name, "").startswith("http://") for name in names)
            kind = GCSStore if self._place.scheme == "gs" else AzureStore
            return kind(self._place.bucket, client_options=options, retry_config=_NO_RETRIES)
        except (BaseError, ValueError) as error:
            message = f"{self.url} can't be reached with these settings: {trouble(error).said}"
            raise UsageError(message, hint="env | grep -o '^[A-Z]*_[A-Z_]*'") from error

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        """Raise what the server or the way to it says as an error of the storage."""
        try:
            yield
        except AlreadyExistsError as error:
            what = trouble(error)
            # The client takes any 409 for it; of two puts at once one may be told to try again, before either is done.
            taken = verb == "write" and what.code not in PASSING
            raise (_taken(key) if taken else failure(what, verb, key, self._place)) from error
        except (BaseError, OSError, ValueError) as error:
            raise failure(trouble(error), verb, key, self._place) from error


def _taken(key: str) -> ObjectExistsError:
    return ObjectExistsError(f"{key} is there already")
