from pathlib import Path
from typing import Any

import pytest

from memkeep.systems.base import OpenClaw, Places
from memkeep.systems.openclaw_json import dig, embedding, place, read, secrets, workspaces

HOME = Path("/home/some one")


def places(state_dir: Path = HOME / ".openclaw", **environ: str) -> Places:
    return Places(home=HOME, state_dir=state_dir, environ=environ)


def config(state_dir: Path = HOME / ".openclaw", **data: Any) -> OpenClaw:
    return OpenClaw(state_dir=state_dir, data=data)


def test_a_file_that_is_not_there_or_no_table_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "gone.json") is None
    (tmp_path / "list.json").write_text("[1]")
    assert read(tmp_path / "list.json") is None
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    assert read(tmp_path / "bytes.json") is None
    (tmp_path / "yes.json").write_text("{a: 1,}")
    assert read(tmp_path / "yes.json") == {"a": 1}


def test_digging_stops_where_there_is_no_table() -> None:
    assert dig({"a": {"b": 1}}, "a", "b") == 1
    assert dig({"a": [1]}, "a", "b") is None
    assert dig(None, "a") is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("/data/x", "/data/x"),
        ("~/x", "/home/some one/x"),
        ("~", "/home/some one"),
        ("~x/y", "/home/some one/.openclaw/~x/y"),
        ("${DATA}/x", "/mnt/data/x"),
        ("/a/../b/./c", "/b/c"),
        ("memory/facts.db", "/home/some one/.openclaw/memory/facts.db"),
        ("~/.openclaw/memory", "/home/some one/.openclaw/memory"),
    ],
)
def test_a_path_is_expanded_as_the_product_expands_it(said: str, meant: str) -> None:
    assert place(said, config(), places(DATA="/mnt/data")) == Path(meant)


@pytest.mark.parametrize("said", [None, 3, "", " ", "s3://bucket/x", "${MISSING}/x", ["x"]])
def test_what_is_no_local_path_is_none(said: object) -> None:
    assert place(said, config(), places()) is None


def test_in_a_copy_the_usual_place_means_the_copy() -> None:
    copy = Path("/copies/state")
    assert place("~/.openclaw/memory/x", config(copy), places()) == copy / "memory/x"
    assert place("~/elsewhere", config(copy), places()) == HOME / "elsewhere"


def test_a_moved_state_folder_in_use_may_still_name_the_usual_place(tmp_path: Path) -> None:
    home, moved = tmp_path / "home", tmp_path / "moved"
    (home / ".openclaw/there").mkdir(parents=True)
    here = Places(home=home, state_dir=moved, environ={})
    assert place("~/.openclaw/there", config(moved), here) == home / ".openclaw/there"
    assert place("~/.openclaw/gone", config(moved), here) == moved / "gone"


def test_workspaces_have_a_default_and_may_be_several() -> None:
    assert workspaces(config(), places()) == [HOME / ".openclaw/workspace"]
    said = {"defaults": {"workspace": "~/a"}, "list": [{"workspace": "~/b"}, {}, "x", {"workspace": "~/a"}]}
    assert workspaces(config(agents=said), places()) == [HOME / "a", HOME / "b"]
    assert workspaces(config(agents={"list": [{"workspace": "~/b"}]}), places()) == [
        HOME / ".openclaw/workspace",
        HOME / "b",
    ]


def test_only_what_is_said_of_the_embedder_is_returned() -> None:
    said = {"embedding": {"provider": "ollama", "model": "m", "dimensions": 8, "apiKey": "x"}}
    assert embedding(said) == {"provider": "ollama", "model": "m", "dims": 8}
    assert embedding({"embedding": {"model": None}}) == {}
    assert embedding({}) == {}


@pytest.mark.parametrize(
    "key",
    [
        *("apiKey", "api_key", "API-KEY", "OPENAI_API_KEY", "token", "botToken", "TELEGRAM_BOT_TOKEN", "password"),
        *("clientSecret", "encryptionKey", "privateKey", "access_key", "passphrase", "Authorization", "credentials"),
    ],
)
def test_a_key_that_names_a_secret_is_found(key: str) -> None:
    assert secrets({"a": {key: "value"}}) == (f"a.{key}",)


@pytest.mark.parametrize(
    "key",
    [
        *("maxTokens2", "ftsTokenizer", "tokenizer", "tokenFile", "passwordPath", "apiKeyEnv", "key", "primaryKey"),
        *("secretary", "keyboard", "author", "authMode", "sessionKeyPrefix"),
    ],
)
def test_a_key_that_only_sounds_like_one_is_not(key: str) -> None:
    assert secrets({key: "value"}) == ()


def test_only_literal_texts_are_secrets() -> None:
    said = {
        "a": {"apiKey": "${OPENAI_API_KEY}"},
        "b": {"token": {"source": "env", "provider": "default", "id": "TOKEN"}},
        "c": {"maxTokens": 5, "tokens": "4096", "token": "", "password": None},
        "d": {"Authorization": "Bearer ${TOKEN}"},
        "e": {"Authorization": "Bearer abc"},
        "f": {"tokens": ["one", "${TWO}"]},
        "g": {"credentials": {"github": "hunter2", "deep": {"x": "y"}}},
        "h.i": {"token": "x"},
    }
    assert secrets(said) == ("e.Authorization", "f.tokens.0", "g.credentials.github", "h.i.token")


def test_a_value_of_a_secrets_form_is_found_under_any_key() -> None:
    said = {"env": ["sk-proj-abcdefghijklmnop1234", "plain"], "x": "ghp_abcdefghijklmnopqrst", "y": "sk-short"}
    assert secrets(said) == ("env.0", "x")


def test_the_key_of_a_plain_value_can_be_found_again() -> None:
    assert secrets({"models": {"providers": [{"apiKey": "k"}]}}) == ("models.providers.0.apiKey",)
    assert secrets("x") == ()
