from pathlib import Path

import pytest

from memkeep.config import (
    Config,
    Retention,
    VaultSettings,
    config_path,
    load,
    parse_rate,
    parse_size,
    settle,
    vault_settings,
)
from memkeep.errors import UsageError
from memkeep.model import Role


def written(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "my settings.toml"
    path.write_text(text, encoding="utf-8")
    return {"MEMKEEP_CONFIG": str(path)}


def failure(tmp_path: Path, text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(written(tmp_path, text))
    assert "my settings.toml" in caught.value.message
    assert "my settings.toml" in caught.value.hint
    return caught.value


def test_without_a_file_all_settings_are_at_their_defaults(home: Path) -> None:
    assert load({"HOME": str(home)}) == Config()


def test_the_file_lies_in_the_platforms_config_folder(home: Path) -> None:
    assert config_path({}) == home / ".config" / "memkeep" / "config.toml"
    assert config_path({"MEMKEEP_CONFIG": "~/x.toml"}) == home / "x.toml"


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml, which is not there"):
        load({"MEMKEEP_CONFIG": str(tmp_path / "nowhere.toml")})


def test_every_setting_is_read(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            """
            vault = "home"
            [vaults.home]
            url = "~/vault"
            password_file = "~/.pw"
            [vaults.away]
            url = "s3://bucket/x"
            password_command = "pass show vault"
            [stores.work]
            path = "~/agent"
            system = "custom"
            exclude = ["*.log"]
            [[stores.work.parts]]
            name = "memory.db"
            table = "notes"
            collection = "mine"
            role = "derived"
            primary = false
            id = "key"
            text = "body"
            category = "kind"
            scope = "who"
            source = "src"
            tags = "labels"
            importance = "weight"
            created_at = "ts"
            updated_at = "changed"
            vector = ["emb", "emb2"]
            [[stores.work.parts]]
            name = "other.db"
            vector = "emb"
            [retention]
            policy = "gfs"
            keep_last = 1
            keep_hourly = 2
            keep_daily = 3
            keep_weekly = 4
            keep_monthly = 5
            keep_yearly = 6
            keep_within = "30d"
            keep_tag = ["release"]
            """,
        )
    )
    assert config.vault == "home"
    assert config.vaults["away"] == VaultSettings(url="s3://bucket/x", password_command="pass show vault")
    assert config.vaults["home"].password_file == "~/.pw"
    work = config.stores["work"]
    assert (work.path, work.system, work.exclude) == ("~/agent", "custom", ("*.log",))
    part, other = work.parts
    assert (part.table, part.collection, part.role, part.primary) == ("notes", "mine", Role.DERIVED, False)
    assert (part.id, part.text, part.category, part.scope, part.source) == ("key", "body", "kind", "who", "src")
    assert (part.tags, part.importance, part.created_at, part.updated_at) == ("labels", "weight", "ts", "changed")
    assert part.vector == ("emb", "emb2")
    assert other.vector == "emb"
    assert config.retention == Retention(
        policy="gfs",
        keep_last=1,
        keep_hourly=2,
        keep_daily=3,
        keep_weekly=4,
        keep_monthly=5,
        keep_yearly=6,
        keep_within="30d",
        keep_tag=("release",),
    )
    assert config.file == str(tmp_path / "my settings.toml")


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("vualt = 'x'", "vualt", "`vault`"),
        ("[vaults.home]\nurl = 'x'\npasword_file = 'y'", "pasword_file", "`password_file`"),
        ("[stores.a]\npaht = 'x'", "paht", "`path`"),
        ("[stores.a]\npath = 'x'\n[[stores.a.parts]]\nname = 'm'\ntabel = 't'", "tabel", "`table`"),
        ("[retention]\nkeep_dayly = 3", "keep_dayly", "`keep_daily`"),
        ("file = 'x'", "file", "`vault`"),
    ],
)
def test_an_unknown_key_names_the_file_the_key_and_the_nearest_one(
    tmp_path: Path, text: str, key: str, near: str
) -> None:
    error = failure(tmp_path, text)
    assert f"`{key}`" in error.message
    assert near in error.message
    assert (error.code, error.exit) == ("config_unknown_key", 2)


def test_an_unknown_key_says_in_which_table_it_stands(tmp_path: Path) -> None:
    message = failure(tmp_path, "[vaults.home]\nurl = 'x'\nzzz = 1").message
    assert "[vaults.home]" in message
    assert "known are `url`, `password_file`, `password_command`" in message


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("vault = 3", "`vault`"),
        ("vaults = 'x'", "`vaults`"),
        ("[vaults]\nhome = 'x'", "`vaults.home`"),
        ("[vaults.home]\nurl = ['x']", "`vaults.home.url`"),
        ("[vaults.home]\npassword_file = 'x'", "`vaults.home` needs the key `url`"),
        ("[stores.a]\npath = 'x'\nexclude = 'y'", "`stores.a.exclude`"),
        ("[stores.a]\npath = 'x'\n[[stores.a.parts]]\nname = 1", "`stores.a.parts[0].name`"),
        ("[stores.a]\npath = 'x'\n[[stores.a.parts]]\nname = 'a'\nrole = 'king'", "`stores.a.parts[0].role`"),
        ("[retention]\nkeep_last = 'all'", "`retention.keep_last`"),
        ("[retention]\nkeep_last = true", "`retention.keep_last`"),
        ("[retention]\nkeep_tag = [1]", "`retention.keep_tag[0]`"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_by_its_whole_key(tmp_path: Path, text: str, at: str) -> None:
    error = failure(tmp_path, text)
    assert at in error.message
    assert error.exit == 2


def test_a_file_that_is_no_toml_says_where(tmp_path: Path) -> None:
    assert "line 2" in failure(tmp_path, "vault = 'x'\nvault 'y'").message


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    environ = written(tmp_path, "")
    Path(environ["MEMKEEP_CONFIG"]).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        load(environ)


def test_a_flag_wins_over_the_environment_and_that_over_the_file() -> None:
    assert settle("flag", "env", "file", "default") == "flag"
    assert settle(None, "env", "file", "default") == "env"
    assert settle(None, None, "file", "default") == "file"
    assert settle(None, None, None, "default") == "default"


def test_an_empty_text_is_not_given_but_false_and_zero_are() -> None:
    assert settle("", "", "file", "default") == "file"
    assert settle(0, 5, None, 9) == 0
    assert settle(False, True, None, True) is False


def test_a_vault_is_found_by_its_name_and_by_its_place(home: Path) -> None:
    mine = VaultSettings(url="~/vault", password_file="x")
    away = VaultSettings(url="s3://b/x", password_command="y")
    config = Config(vaults={"home": mine, "away": away})
    assert vault_settings(config, "home") == mine
    assert vault_settings(config, str(home / "vault")) == mine
    assert vault_settings(config, "s3://b/x") == away
    assert vault_settings(config, "elsewhere") == VaultSettings(url="elsewhere")


def test_how_this_machine_uses_a_vault_is_read(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            """
            [vaults.away]
            url = "s3://bucket/x"
            append_only = true
            upload_limit = "2MB/s"
            download_limit = "1.5 MiB/s"
            cache_size = "500kB"
            cache = false
            """,
        )
    )
    away = config.vaults["away"]
    assert (away.append_only, away.cache) == (True, False)
    assert (away.upload_limit, away.download_limit, away.cache_size) == (2_000_000, 3 << 19, 500_000)
    assert VaultSettings(url="x").cache_size == parse_size("2GB")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("500kB", 500_000), ("2 MB", 2_000_000), ("1GiB", 1 << 30), ("0.5 TiB", 1 << 39)],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_size(text) == parse_rate(f"{text}/s") == size
    for wrong in (f"{text}/s", "2", "2G", "2 mb", "-1MB", "0MB", "0.0kB", "1e3MB", "2MB/h", "", "MB"):
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(wrong)
    for wrong in (text, "16Mbit/s", "2MBps", "2MB/ss", "0MB/s"):
        with pytest.raises(ValueError, match="is not a speed"):
            parse_rate(wrong)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('upload_limit = "2MB"', "`vaults.away.upload_limit`: '2MB' is not a speed: write it like 500kB/s"),
        ("download_limit = 2000", "`vaults.away.download_limit`: '2000' is not a speed"),
        ('cache_size = "big"', "`vaults.away.cache_size`: 'big' is not a size: write it like 500kB"),
        ("cache_size = true", "`vaults.away.cache_size`: 'True' is not a size"),
        ('cache = "no"', "`vaults.away.cache`: expected `bool`"),
        ("append_only = 1", "`vaults.away.append_only`: expected `bool`"),
    ],
)
def test_a_wrong_amount_is_told_with_its_key(tmp_path: Path, setting: str, says: str) -> None:
    assert says in failure(tmp_path, f'[vaults.away]\nurl = "s3://b"\n{setting}').message
