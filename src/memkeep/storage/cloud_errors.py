"""What object stores and the way to them say, read from the words of the client, as errors of a storage."""

import re
import shlex
from typing import NamedTuple

from memkeep.errors import StorageError, StorageUnreachableError
from memkeep.storage.base import ObjectMissingError

UNSENT = "Nothing was sent."
UNCHANGED = "Earlier snapshots are whole; nothing half-made is listed."
# The client says all it knows in one text: its own words, the answer's status, the answer, and how it came to that.
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>|\"reason\":\s*\"(\w+)\"")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})|\"message\":\s*\"([^\"]{1,300})\"")
_REGION = re.compile(r"<Region>([\w-]+)</Region>|expecting '([\w-]+)'")
# Without any the client asks for those of a machine in the provider's own data centre.
_NO_CREDENTIALS = re.compile(r"http://(169\.254\.169\.254|metadata\.google|metadata/)")
_BROKEN = re.compile(r"HTTP error|error sending request|body error|timed? ?out|connection", re.IGNORECASE)
# What servers say that hold objects by Object Lock and take no other checksum of them than an MD5.
_MD5_WANTED = re.compile("Content-MD5", re.IGNORECASE)
# Worth another try although the status is no 5xx: the server waits no longer, or other bytes arrived than were sent.
PASSING = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "Md5Mismatch",
    "OperationAborted",
    "RequestTimeout",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "AccountNotFound"}
_NEVER = {501, 505}


class Place(NamedTuple):
    """A URL taken apart."""

    scheme: str
    bucket: str
    prefix: str  # without slashes around it, perhaps empty

    @property
    def url(self) -> str:
        """The URL put together again."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


class Trouble(NamedTuple):
    """What went wrong: the answer's status (0 where there was none) and code, and what a person is told."""

    status: int
    code: str
    said: str
    region: str = ""  # where the bucket lies, when the answer says that it is not where it was asked for


def trouble(error: Exception) -> Trouble:
    """Read the words of an error of the client."""
    text = str(error).partition("\n\nDebug source")[0]
    if _NO_CREDENTIALS.search(text):
        return Trouble(401, "NoCredentials", "no credentials were found")
    if "redirect without LOCATION" in text:
        return Trouble(301, "PermanentRedirect", "301 the bucket lies in another region")
    if status := _STATUS.search(text):
        return answered(int(status[1]), text)
    kind = "" if _BROKEN.search(text) else "Unknown"
    said = text.rpartition(" - ")[2][:300]
    return Trouble(0, kind, said if kind else f"no answer, or one that broke off ({said})")


def answered(status: int, text: str) -> Trouble:
    """Read the answer of a server."""
    code, message, region = (_group(pattern.search(text)) for pattern in (_CODE, _MESSAGE, _REGION))
    return Trouble(status, code, " ".join(filter(None, (str(status), code, message.strip()))), region)


def wants_md5(what: Trouble) -> bool:
    """Say whether a put was refused because Object Lock needs another checksum."""
    return what.status == 400 and _MD5_WANTED.search(what.said) is not None  # noqa: PLR2004 - HTTP's number


def _group(found: re.Match[str] | None) -> str:
    return next(filter(None, found.groups()), "") if found else ""


def failure(what: Trouble, verb: str, key: str, place: Place) -> StorageError:
    """Return the error for what went wrong when `key` was to be written, read, listed or deleted."""
    if what.code in _NO_BUCKET or (what.status == 404 and verb in {"write", "list"}):  # noqa: PLR2004 - HTTP's number
        message = f"there is no bucket {place.bucket} for {place.url}"
        return StorageError(message, unchanged=UNSENT, hint=_make_bucket(place), code="bucket_missing")
    if what.status == 404:  # noqa: PLR2004 - HTTP's number
        return ObjectMissingError(f"there is no {key} in the vault")
    message = f"could not {verb} {key or 'objects'} in {place.url}: {what.said}"
    if what.region or what.code == "PermanentRedirect":
        ask = f"aws s3api get-bucket-location --bucket {place.bucket}"
        return StorageError(
            message, unchanged=UNCHANGED, hint=f"export AWS_REGION={what.region}" if what.region else ask
        )
    if what.status in {401, 403} or what.code in {"ExpiredToken", "InvalidAccessKeyId", "NoCredentials"}:
        unchanged = UNSENT if what.code == "NoCredentials" else UNCHANGED
        return StorageError(message, unchanged=unchanged, hint=_look(place), code="storage_denied")
    if what.code in PASSING or _passes(what):
        return StorageUnreachableError(message, unchanged=UNCHANGED, hint=_look(place))
    return StorageError(message, unchanged=UNCHANGED, hint=_look(place))


def locked(key: str, place: Place, until: str) -> StorageError:
    """Return the error for an object that Object Lock does not let go."""
    message = f"could not delete {key} in {place.url}: it is held by Object Lock until {until}"
    return StorageError(message, unchanged=UNCHANGED, hint=_look(place), code="storage_locked")


def _passes(what: Trouble) -> bool:
    """Say whether the same request may succeed later; 501 and 505 say that the server never knows how."""
    if what.status == 0:
        return not what.code
    return what.status in {408, 429} or (what.status // 100 == 5 and what.status not in _NEVER)  # noqa: PLR2004 - HTTP's


def _make_bucket(place: Place) -> str:
    return {
        "s3": f"aws s3 mb s3://{place.bucket}",
        "gs": f"gcloud storage buckets create gs://{place.bucket}",
        "az": f"az storage container create --name {place.bucket}",
    }[place.scheme]


def _look(place: Place) -> str:
    """Return a command of the provider's own that shows whether the credentials and the way are right."""
    return {
        "s3": f"aws s3 ls {shlex.quote(place.url + '/')}",
        "gs": f"gcloud storage ls {shlex.quote(place.url)}",
        "az": f"az storage blob list --container-name {place.bucket} --num-results 1",
    }[place.scheme]
