"""Requests that the client library does not know, sent to a URL that it signs."""

import base64
import hashlib
from datetime import timedelta
from http.client import HTTPException, HTTPMessage
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import obstore

from memkeep.storage.cloud_errors import Trouble, answered

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

_VALID = timedelta(minutes=15)
_SILENCE = 60  # seconds


class SignedError(Exception):
    """The request failed; `trouble` says how."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.said)
        self.trouble = trouble


def fetch(
    store: "S3Store | GCSStore | AzureStore",
    method: Literal["GET", "HEAD", "PUT"],
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> tuple[HTTPMessage, bytes]:
    """Return the headers and the body of the answer; `SignedError` when there is none or it is no success."""
    url = obstore.sign(store, method, path, _VALID)
    # At 50 kB/s the body is sent in time; the silence counts for a piece of it, but not all libraries send pieces.
    silence = _SILENCE + len(body or b"") / 50_000
    try:
        request = Request(url, data=body, method=method, headers=headers)  # noqa: S310 - signed just now
        with urlopen(request, timeout=silence) as answer:  # noqa: S310 - the same
            return answer.headers, answer.read()
    except HTTPError as error:
        raise SignedError(answered(error.code, error.read(4096).decode(errors="replace"))) from None  # its URL is a key
    except (OSError, HTTPException) as error:
        raise SignedError(Trouble(0, "", str(getattr(error, "reason", error)))) from None


def get_range(store: "S3Store | GCSStore | AzureStore", path: str, offset: int, length: int) -> bytes:
    """Fetch a range from a server that sends it with the status of a whole object, or sends the whole object."""
    headers, body = fetch(store, "GET", path, {"Range": f"bytes={offset}-{offset + length - 1}"})
    if headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
        return body
    return body[offset : offset + length]


def put(store: "S3Store | GCSStore | AzureStore", path: str, whole: bytes, *, new: bool) -> None:
    """Put an object with an MD5 of it, which a bucket with Object Lock may ask for; the server compares it.

    A header that is no `x-amz-...` one may be sent along with a signed URL without being signed itself.
    """
    digest = base64.b64encode(hashlib.md5(whole, usedforsecurity=False).digest()).decode()
    condition = {"If-None-Match": "*"} if new else {}
    fetch(store, "PUT", path, {"Content-MD5": digest, "Content-Type": "application/octet-stream"} | condition, whole)
