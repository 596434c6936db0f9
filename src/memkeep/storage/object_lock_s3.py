"""Retention of objects in S3, by the provider's own library: the one that sends them can't sign what this takes."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from typing import Any

from memkeep.errors import StorageError, UnsupportedError, UsageError
from memkeep.storage import aws
from memkeep.storage.cloud import parse
from memkeep.storage.cloud_errors import Place, Trouble, failure
from memkeep.storage.object_lock import AT_ONCE, Retention

_CONNECT, _SILENCE = 10, 60  # seconds
_NO_LOCK = {"ObjectLockConfigurationNotFoundError", "InvalidRequest"}


class S3Locks:
    """Retention of the objects under a prefix of a bucket; nothing is asked of it, or imported, before it is needed."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        if not url.startswith("s3://"):
            raise UsageError(
                f"`object_lock` in the settings is for s3:// places, and {url} is none",
                hint="memkeep init --vault s3://BUCKET/PREFIX",
                code="object_lock",
            )
        self._place = parse(url)
        self._settings = aws.settings(environment)
        self._client: Any = None
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Return which S3 it is, empty for the one of AWS."""
        return self._settings.endpoint or ""

    def check(self) -> None:
        """Ask whether the bucket has Object Lock; who may not know that learns it from the first object."""
        try:
            s3 = self._s3()
            with self._explained("read", "the bucket's Object Lock"):
                s3.get_object_lock_configuration(Bucket=self._place.bucket)
        except StorageError as error:
            if error.code != "storage_denied":
                raise

    def get(self, key: str) -> Retention | None:
        """Ask for the retention of an object."""
        s3 = self._s3()
        with self._explained("read", key):
            said = s3.head_object(Bucket=self._place.bucket, Key=self._path(key))
        mode, until = said.get("ObjectLockMode"), said.get("ObjectLockRetainUntilDate")
        return Retention(mode, until.astimezone(UTC)) if mode and until else None

    def set(self, key: str, retention: Retention) -> None:
        """Set the retention of an object."""
        s3 = self._s3()
        with self._explained("hold", key):
            s3.put_object_retention(
                Bucket=self._place.bucket,
                Key=self._path(key),
                Retention={"Mode": retention.mode, "RetainUntilDate": retention.until},
            )

    def _path(self, key: str) -> str:
        return f"{self._place.prefix}/{key}" if self._place.prefix else key

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            message = "`object_lock` in the settings needs the extra `aws`"
            raise UnsupportedError(message, hint="pip install 'memkeep[aws]'") from None
        options = Config(
            connect_timeout=_CONNECT,
            read_timeout=_SILENCE,
            max_pool_connections=AT_ONCE,
            retries={"total_max_attempts": 1},  # a wrapper knows better what may be tried again
            s3={"addressing_style": "virtual" if self._settings.virtual_hosts else "path"},
        )
        return boto3.Session().client(
            "s3",
            endpoint_url=self._settings.endpoint,
            region_name=self._settings.region,
            verify=self._settings.certificate,
            config=options,
        )

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        """Raise what the server or the way to it says as an error of the storage."""
        from botocore import exceptions

        try:
            yield
        except exceptions.ClientError as error:
            said = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = said.get("Code", "")
            if code in _NO_LOCK and (verb == "read" or "Lock" in said.get("Message", "")):
                raise _missing(self._place) from error
            words = " ".join(str(word) for word in (status, code, said.get("Message", "")) if word)
            raise failure(Trouble(status, code, words), verb, key, self._place) from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise failure(Trouble(401, "NoCredentials", str(error)), verb, key, self._place) from error
        except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
            raise failure(Trouble(0, "", str(error)), verb, key, self._place) from error
        except exceptions.BotoCoreError as error:
            raise failure(Trouble(0, "Unknown", str(error)), verb, key, self._place) from error


def _missing(place: Place) -> StorageError:
    message = f"the bucket {place.bucket} has no Object Lock, which `object_lock` in the settings asks for"
    versions = f"aws s3api put-bucket-versioning --bucket {place.bucket} --versioning-configuration Status=Enabled"
    lock = f"aws s3api put-object-lock-configuration --bucket {place.bucket}"
    return StorageError(
        message,
        unchanged="Nothing was listed that is not held.",
        hint=f"{versions} && {lock} --object-lock-configuration ObjectLockEnabled=Enabled",
        code="object_lock_missing",
    )
