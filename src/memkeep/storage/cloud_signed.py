"""Requests that the client library does not know, sent to a URL that it signs."""

from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import obstore

from memkeep.storage.cloud_errors import Trouble

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
    store: "S3Store | GCSStore | AzureStore", method: Literal["GET", "HEAD"], path: str, headers: dict[str, str]
) -> tuple[HTTPMessage, bytes]:
    """Return the headers and the body of the answer; `SignedError` when there is none or it is no success."""
    url = obstore.sign(store, method, path, _VALID)
    try:
        with urlopen(Request(url, method=method, headers=headers), timeout=_SILENCE) as answer:  # noqa: S310 - ours
            return answer.headers, answer.read()
    except HTTPError as error:
        said = f"{error.code} {HTTPStatus(error.code).phrase}"
        raise SignedError(Trouble(error.code, "", said)) from None  # the URL in it is as good as a key for a while
    except (OSError, HTTPException) as error:
        raise SignedError(Trouble(0, "", str(getattr(error, "reason", error)))) from None


def get_range(store: "S3Store | GCSStore | AzureStore", path: str, offset: int, length: int) -> bytes:
    """Fetch a range from a server that sends it with the status of a whole object, or sends the whole object."""
    headers, body = fetch(store, "GET", path, {"Range": f"bytes={offset}-{offset + length - 1}"})
    if headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
        return body
    return body[offset : offset + length]
