"""Where S3 is and with what credentials, as the variables and files of the AWS tools say it."""

import configparser
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential, S3Store

_ELSEWHERE = (  # what the client library finds by itself
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
_INDIRECT = ("role_arn", "sso_session", "sso_start_url", "sso_account_id", "credential_process", "login_session")

Section = Mapping[str, str]


class Settings(NamedTuple):
    """What the variables and files say."""

    endpoint: str | None
    region: str
    virtual_hosts: bool
    credentials: "Callable[[], S3Credential] | None"  # None: what the client library finds by itself
    certificate: str | None

    def store(self, bucket: str, options: "ClientConfig", retries: "RetryConfig") -> "S3Store":
        """Return a client for a bucket."""
        from obstore.store import S3Store

        config: S3Config = {
            "region": self.region,
            "virtual_hosted_style_request": self.virtual_hosts,
            "checksum_algorithm": "sha256",
            "conditional_put": "etag",
            "disable_bulk_delete": True,  # the answer to a bulk request does not say who refused one of them
        }
        options["allow_http"] = (self.endpoint or "").startswith("http://")
        if self.endpoint:
            config["endpoint"] = self.endpoint
        if self.certificate:
            options["root_certificate"] = Path(self.certificate).read_bytes()
        more: dict[str, Any] = {"credential_provider": self.credentials} if self.credentials else {}
        return S3Store(bucket, config=config, client_options=options, retry_config=retries, **more)


def settings(environment: Mapping[str, str]) -> Settings:
    """Return what the environment and the files that it names say; variables win over files.

    Raises `UsageError` for a profile that is nowhere, `UnsupportedError` when a profile's credentials must be fetched
    and the extra `aws` is not installed.
    """
    given = {name: value for name, value in environment.items() if value}
    chosen = given.get("AWS_PROFILE") or given.get("AWS_DEFAULT_PROFILE")
    name = chosen or "default"
    files = _read(given, "AWS_CONFIG_FILE", "~/.aws/config")
    keys = _read(given, "AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = files.get(f"profile {name}") or (files.get("default") if name == "default" else None) or {}
    profile = {**config, **keys.get(name, {})}
    if chosen and not profile:
        raise UsageError(
            f"AWS_PROFILE names {chosen}, which no file of credentials or settings has",
            hint="aws configure list-profiles",
        )
    endpoint = (
        given.get("AWS_ENDPOINT_URL_S3")
        or given.get("AWS_ENDPOINT_URL")
        or given.get("AWS_ENDPOINT")
        or _service_endpoint(files, config)
        or config.get("endpoint_url")
    )
    style = given.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower()
    return Settings(
        endpoint=endpoint.rstrip("/") if endpoint else None,
        region=given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or profile.get("region") or "us-east-1",
        virtual_hosts=style == "true" if style else not endpoint,
        credentials=None if any(given.get(one) for one in _ELSEWHERE) else _credentials(profile, chosen),
        certificate=given.get("AWS_CA_BUNDLE") or profile.get("ca_bundle"),
    )


def _read(given: Mapping[str, str], variable: str, usual: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, default_section="")
    path = Path(given.get(variable) or usual).expanduser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read as settings of AWS tools", hint="aws configure list") from error
    return {name: dict(parser[name]) for name in parser.sections()}


def _service_endpoint(files: Mapping[str, Section], config: Section) -> str | None:
    """Return the endpoint of S3 in the section of services that a profile names: an indented list below `s3 =`."""
    lines = files.get(f"services {config.get('services', '')}", {}).get("s3", "").splitlines()
    pairs = (line.partition("=") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == "endpoint_url"), None)


def _credentials(profile: Section, chosen: str | None) -> "Callable[[], S3Credential] | None":
    if key := profile.get("aws_access_key_id"):
        found: S3Credential = {
            "access_key_id": key,
            "secret_access_key": profile.get("aws_secret_access_key", ""),
            "token": profile.get("aws_session_token"),
            "expires_at": None,
        }
        return lambda: found
    if not any(name in profile for name in _INDIRECT):
        return None
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        message = "the credentials of this AWS profile must be fetched, which needs the extra `aws`"
        raise UnsupportedError(message, hint="pip install 'memkeep[aws]'") from None
    return Boto3CredentialProvider(boto3.Session(profile_name=chosen))
