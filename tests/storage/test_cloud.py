"""Object stores, against two real servers on loopback, one that lies, and one that breaks."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from memkeep.errors import StorageError, StorageUnreachableError, UnsupportedError, UsageError
from memkeep.storage import cloud
from memkeep.storage.base import Capabilities, ObjectExistsError, Stat, Storage
from memkeep.storage.places import storage_at
from memkeep.storage.retry import RetryingStorage
from memkeep.testing import servers
from memkeep.testing.servers import Server
from memkeep.testing.storage_contract import KEY, StorageContract


@pytest.mark.contract
class TestS3(StorageContract):
    @pytest.fixture
    def storage(self, moto: Server) -> Storage:
        return storage_at(f"{moto.bucket()}/some/prefix")


@pytest.mark.contract
class TestS3ThatReplaces(StorageContract):
    @pytest.fixture
    def storage(self, rclone: Server) -> Storage:
        return storage_at(rclone.bucket())


def requests(server: Server, bucket: str) -> list[str]:
    """Return `METHOD /path` of what moto was asked about a bucket."""
    said = re.findall(r"([A-Z]+ /\S*) HTTP/1", server.log.read_text(errors="replace"))
    return [one for one in said if f"/{bucket.removeprefix('s3://')}" in one][1:]  # without the making of it


# -- what a put costs and promises --------------------------------------------------------------------------------


def test_a_server_is_asked_once_whether_it_keeps_what_is_there(moto: Server) -> None:
    bucket = moto.bucket()
    first = storage_at(bucket)
    assert not first.capabilities.exclusive
    first.put_new("a", [b"x"])
    assert first.capabilities.exclusive
    name = bucket.removeprefix("s3://")
    assert requests(moto, bucket) == [f"PUT /{name}/tmp/probe"] * 2 + [f"PUT /{name}/a"]
    later = storage_at(bucket)
    for key in ("b", "c"):
        later.put_new(key, [b"x"])
    assert requests(moto, bucket)[3:] == [f"PUT /{name}/tmp/probe", f"PUT /{name}/b", f"PUT /{name}/c"]
    assert sorted(stat.key for stat in later.list("")) == ["a", "b", "c"]


def test_reading_asks_nothing_else(moto: Server) -> None:
    bucket = moto.bucket()
    storage_at(bucket).put_new("data/a", [b"0123456789"])
    before = len(requests(moto, bucket))
    storage = storage_at(bucket)
    assert storage.get("data/a") == b"0123456789"
    assert storage.get_range("data/a", 2, 3) == b"234"
    assert list(storage.list("data/")) == [Stat("data/a", 10)]
    assert [one.split()[0] for one in requests(moto, bucket)[before:]] == ["GET"] * 3


def test_a_server_that_replaces_is_found_out_and_the_key_asked_for_first(rclone: Server) -> None:
    bucket = rclone.bucket()
    storage = storage_at(bucket)
    storage.put_new(KEY, [b"first"])
    assert not storage.capabilities.exclusive
    with pytest.raises(ObjectExistsError):
        storage_at(bucket).put_new(KEY, [b"second"])
    assert storage.get(KEY) == b"first"


def test_amazon_google_and_azure_are_known_to_keep_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for url in ("s3://bucket", "gs://bucket", "az://container"):
        assert storage_at(url).capabilities == Capabilities(exclusive=True, fresh=False, near=False)


def test_a_checksum_is_sent_for_the_server_to_compare(liar: "Liar") -> None:
    storage = cloud.connect("s3://bucket")
    storage._exclusive = True
    storage.put_new("a", [b"x"])
    assert liar.headers["x-amz-checksum-sha256"] == "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="
    assert liar.headers["if-none-match"] == "*"


def test_two_writers_of_one_key_leave_one_whole_object(moto: Server, rclone: Server) -> None:
    for server in (moto, rclone):
        bucket = server.bucket()
        environment = server.environment
        # Both servers answer 500 at times when a key is put twice at once.
        writers = [RetryingStorage(cloud.CloudStorage(cloud.parse(bucket), environment), lambda: 0.0) for _ in range(2)]
        barrier = threading.Barrier(2)

        def put(number: int, writers: list[Any] = writers, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                writers[number].put_new(KEY, [bytes([number]) * (1 << 20)])
            except ObjectExistsError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            won = list(pool.map(put, range(2)))
        assert any(won)
        assert sum(won) == 1 or not writers[0].capabilities.exclusive
        assert writers[0].get(KEY) in {bytes([number]) * (1 << 20) for number in range(2) if won[number]}


# -- listing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["moto", "rclone"])
def test_a_listing_goes_on_over_pages(name: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(name)
    storage = storage_at(server.bucket() + "/deep")
    keys = {f"data/{number % 5:02x}/{number}" for number in range(server.page + server.page // 10)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: storage.put_new(key, [b"x"]), keys))
    assert {stat.key for stat in storage.list("data/")} == keys
    assert len(list(storage.list("data/03/"))) == len(keys) // 5


def test_what_is_no_object_of_the_vault_is_not_listed(moto: Server) -> None:
    bucket = moto.bucket()
    storage = storage_at(f"{bucket}/vault")
    storage.put_new("data/ab/object", [b"x"])
    for stranger in ("vault2/data/x", "vault/tmp/y", "vault/.hidden", "vault/data/a b", "vault/data/ü", "config"):
        client(moto).put_object(Bucket=bucket.removeprefix("s3://"), Key=stranger, Body=b"")
    assert [stat.key for stat in storage.list("")] == ["data/ab/object"]
    assert [stat.key for stat in storage.list("data/")] == ["data/ab/object"]


def test_a_prefix_may_have_spaces_and_letters_of_all_kinds(moto: Server) -> None:
    storage = storage_at(f"{moto.bucket()}/Zoë's vaults/année=2026//x/".replace("'", ""))
    storage.put_new(KEY, [b"x"])
    assert [stat.key for stat in storage.list("data/")] == [KEY]
    assert storage.get(KEY) == b"x"
    assert storage.url.endswith("/Zoës vaults/année=2026/x")


# -- what can go wrong --------------------------------------------------------------------------------------------


def every_call(storage: Storage) -> dict[str, Callable[[], object]]:
    return {
        "write": lambda: storage.put_new(KEY, [b"x"]),
        "read": lambda: storage.get(KEY),
        "range": lambda: storage.get_range(KEY, 0, 1),
        "stat": lambda: storage.stat(KEY),
        "list": lambda: list(storage.list("data/")),
        "delete": lambda: storage.delete(KEY),
    }


def test_a_wrong_signature_is_denied_and_the_secret_not_told(rclone: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = rclone.bucket()
    storage_at(bucket).put_new(KEY, [b"x"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another+secret")
    for call in every_call(storage_at(bucket)).values():
        with pytest.raises(StorageError) as error:
            call()
        assert (error.value.code, error.value.hint) == ("storage_denied", f"aws s3 ls {bucket}/")
        said = error.value.message + str(error.value.__cause__)
        assert bucket in error.value.message
        assert "another+secret" not in said


@pytest.mark.parametrize("name", ["moto", "rclone"])
def test_a_bucket_that_is_not_there_is_named(name: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(name)
    storage = storage_at("s3://nowhere-to-be-found/vault")
    for call in ("write", "read", "list"):
        with pytest.raises(StorageError, match="there is no bucket nowhere-to-be-found") as error:
            every_call(storage)[call]()
        assert (error.value.code, error.value.hint) == ("bucket_missing", "aws s3 mb s3://nowhere-to-be-found")


def test_a_wrong_endpoint_is_worth_another_try(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.reserve_port() as nobody:
        for endpoint in (f"http://127.0.0.1:{nobody.getsockname()[1]}", "http://nowhere.invalid"):
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            for call in every_call(storage_at("s3://bucket/vault")).values():
                with pytest.raises(StorageUnreachableError, match="s3://bucket/vault"):
                    call()


@pytest.mark.parametrize("kind", [servers.moto, servers.rclone])
def test_a_server_that_dies_in_the_middle_of_a_put_or_a_list_is_unreachable(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kind() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage = storage_at(server.bucket())
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: storage.put_new(f"data/{number}", [b"x"]), range(server.page + 1)))
            listing = storage.list("data/")
            next(listing)
            server.freeze()
            putting = pool.submit(storage.put_new, "large", [bytes(32 << 20)])
            server.kill()
            with pytest.raises(StorageUnreachableError, match="large"):
                putting.result(30)
            with pytest.raises(StorageUnreachableError, match="could not list data/"):
                list(listing)


class Liar:
    """A server whose answer is scripted: a status with a code, or something worse."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.cut = self.close = self.hang = False
        self.asked = 0
        self.headers: dict[str, str] = {}
        self.heads: dict[str, str] | None = None  # what it says to HEAD, then always with status 200
        self.done = threading.Event()
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                liar.asked += 1
                liar.headers = dict(self.headers)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if liar.hang:
                    liar.done.wait(30)
                if liar.close or liar.hang:
                    self.close_connection = True
                    return
                heads = liar.heads if self.command == "HEAD" else None
                self.send_response(liar.status if heads is None else 200)
                for name, value in (heads or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(liar.body) + (100 if liar.cut else 0)))
                self.send_header("ETag", '"tag"')
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(liar.body)
                self.close_connection = liar.cut

            do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815 - the names that the library calls

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign] - clients that gave up are no news
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def says(self, status: int, code: str, more: str = "", message: str = "It said so") -> None:
        self.status = status
        self.body = f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>".encode()


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    made = Liar()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name, value in servers.s3_environment(made.url).items():
        monkeypatch.setenv(name, value)
    yield made
    made.done.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (408, "", "storage_unreachable"),
        (429, "TooManyRequests", "storage_unreachable"),
        (500, "InternalError", "storage_unreachable"),
        (503, "SlowDown", "storage_unreachable"),
        (504, "", "storage_unreachable"),
        (400, "RequestTimeout", "storage_unreachable"),
        (400, "BadDigest", "storage_unreachable"),
        (409, "ConditionalRequestConflict", "storage_unreachable"),
        (400, "InvalidRequest", "storage"),
        (400, "ExpiredToken", "storage_denied"),
        (401, "", "storage_denied"),
        (403, "AccessDenied", "storage_denied"),
    ],
)
def test_what_a_server_says_decides_what_is_done_about_it(liar: Liar, status: int, code: str, expected: str) -> None:
    liar.says(status, code)
    for verb, call in every_call(storage_at("s3://bucket/vault")).items():
        liar.asked = 0
        with pytest.raises(StorageError) as error:
            call()
        told = error.value.code
        hidden = verb in {"stat", "delete"}  # an answer to HEAD has no body, so no code
        if not hidden or code in {"", "AccessDenied"} or status >= 429:
            assert told == expected, verb
        assert liar.asked == 1, "a storage does not retry"
        assert str(status) in error.value.message


def test_a_bucket_elsewhere_says_where(liar: Liar) -> None:
    liar.says(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>")
    with pytest.raises(StorageError) as error:
        storage_at("s3://bucket").get("config")
    assert error.value.hint == "export AWS_REGION=eu-west-1"
    liar.says(301, "PermanentRedirect")
    with pytest.raises(StorageError, match="another region") as error:
        storage_at("s3://bucket").get("config")
    assert error.value.hint == "aws s3api get-bucket-location --bucket bucket"


def test_a_server_that_does_not_know_conditions_is_asked_for_the_key_first(liar: Liar) -> None:
    liar.says(501, "NotImplemented")
    storage = storage_at("s3://bucket")
    with pytest.raises(StorageError):
        storage.put_new(KEY, [b"x"])
    assert not storage.capabilities.exclusive
    liar.says(200, "")
    with pytest.raises(ObjectExistsError):
        storage.put_new(KEY, [b"x"])


@pytest.mark.parametrize("how", ["cut", "close", "hang"])
def test_an_answer_that_breaks_off_or_never_comes_is_worth_another_try(
    liar: Liar, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "_PATIENCE", ((1 << 62, "200ms"),))
    setattr(liar, how, True)
    for verb, call in every_call(storage_at("s3://bucket")).items():
        if how == "cut" and verb not in {"read", "list"}:
            continue  # there is no body to break off, or it is not needed
        with pytest.raises(StorageUnreachableError):
            call()


def test_a_range_from_a_server_that_knows_none_is_cut_out_of_the_whole(liar: Liar) -> None:
    liar.body = b"0123456789"
    storage = storage_at("s3://bucket")
    assert storage.get_range(KEY, 2, 3) == b"234"
    assert storage.get_range(KEY, 8, 9) == b"89"
    assert storage.get_range(KEY, 10, 9) == b""
    liar.says(503, "SlowDown")
    with pytest.raises(StorageUnreachableError):
        storage.get_range(KEY, 2, 3)


def client(server: Server) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=server.environment["AWS_ENDPOINT_URL"])


# -- Object Lock --------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(moto: Server) -> str:
    """Return a bucket that holds every object for 30 days."""
    boto = client(moto)
    boto.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    boto.put_object_lock_configuration(
        Bucket="locked",
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}},
        },
    )
    return "s3://locked"


def test_a_bucket_that_holds_objects_takes_new_ones_and_keeps_what_is_deleted(moto: Server, locked: str) -> None:
    storage = storage_at(f"{locked}/vault")
    storage.put_new(KEY, [b"x"])
    with pytest.raises(ObjectExistsError):
        storage.put_new(KEY, [b"y"])
    assert storage.get(KEY) == b"x"
    storage.delete(KEY)  # such a bucket has versions: this hides the object
    assert [stat.key for stat in storage.list("")] == []
    boto = client(moto)
    version = boto.list_object_versions(Bucket="locked", Prefix=f"vault/{KEY}")["Versions"][0]["VersionId"]
    with pytest.raises(Exception, match="AccessDenied"):
        boto.delete_object(Bucket="locked", Key=f"vault/{KEY}", VersionId=version)
    boto.delete_object(Bucket="locked", Key=f"vault/{KEY}", VersionId=marker_of(boto, f"vault/{KEY}"))
    assert storage.get(KEY) == b"x"


def marker_of(boto: Any, path: str) -> str:
    found: str = boto.list_object_versions(Bucket="locked", Prefix=path)["DeleteMarkers"][0]["VersionId"]
    return found


@pytest.mark.parametrize(
    ("told", "message", "expected"),
    [
        ({"x-amz-object-lock-retain-until-date": "2031-05-01T00:00:00Z"}, "No", "until 2031-05-01T00:00:00Z"),
        ({"x-amz-object-lock-legal-hold": "ON"}, "No", "until its legal hold is taken away"),
        ({}, "Access Denied because object protected by object lock.", "until a day that the server does not tell"),
        ({}, "No", ""),
    ],
)
def test_what_object_lock_holds_is_told_from_what_is_denied(
    liar: "Liar", told: dict[str, str], message: str, expected: str
) -> None:
    liar.says(403, "AccessDenied", message=message)
    liar.heads = told
    with pytest.raises(StorageError, match=rf"could not delete {KEY} .*{expected}") as error:
        storage_at("s3://bucket").delete(KEY)
    assert error.value.code == ("storage_locked" if expected else "storage_denied")


# -- URLs and settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAEXAMPLE:wJalrXUtnFEMI@bucket/prefix",
        "s3://AKIAEXAMPLE:wJalrX/UtnFEMI@bucket/prefix",
        "s3://wJalrXUtnFEMI@bucket",
        "az://container?sv=2026&sig=wJalrXUtnFEMI",
        "gs://bucket/prefix?token=wJalrXUtnFEMI",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as error:
        storage_at(url)
    assert error.value.code == "secret_in_url"
    assert "wJalrX" not in f"{error.value.message}{error.value.unchanged}{error.value.hint}"


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://b", "s3://bucket/../x", "s3://bucket/a/./b", "s3://buc ket"])
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="names no bucket"):
        storage_at(url)


def test_a_profile_gives_keys_region_and_endpoint(rclone: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = rclone.bucket()
    for name in rclone.environment:
        monkeypatch.delenv(name)
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").write_text(
        f"[default]\naws_access_key_id = WRONG\naws_secret_access_key = WRONG\n"
        f"[backup]\naws_access_key_id = {servers.KEY}\naws_secret_access_key = {servers.SECRET}\n"
    )
    endpoint = rclone.environment["AWS_ENDPOINT_URL"]
    for how in (
        f"endpoint_url = {endpoint}\n",
        f"services = mine\n[services mine]\ns3 =\n  endpoint_url = {endpoint}\n",
    ):
        (home / ".aws" / "config").write_text(
            f"[default]\nregion = nowhere\n[profile backup]\nregion = us-east-1\n{how}"
        )
        monkeypatch.setenv("AWS_PROFILE", "backup")
        assert list(storage_at(bucket).list("")) == []
        monkeypatch.setenv("AWS_PROFILE", "default")
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StorageError) as error:
            list(storage_at(bucket).list(""))
        assert error.value.code == "storage_denied"
        monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UsageError, match="names nobody"):
        storage_at(bucket)


def test_a_profile_whose_keys_are_fetched_needs_an_extra(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text("[profile sso]\nsso_session = work\n")
    monkeypatch.setenv("AWS_PROFILE", "sso")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(UnsupportedError, match="needs the extra `aws`") as error:
        storage_at("s3://bucket")
    assert error.value.hint == "pip install 'memkeep[aws]'"


def test_a_profile_may_fetch_its_keys_from_a_process(
    rclone: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = rclone.bucket()
    keys = f'{{"Version": 1, "AccessKeyId": "{servers.KEY}", "SecretAccessKey": "{servers.SECRET}"}}'
    (home / "keys").write_text(keys)
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text(f"[profile vend]\ncredential_process = cat {home}/keys\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "vend")
    assert list(storage_at(bucket).list("")) == []
