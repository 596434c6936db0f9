"""A vault on an SFTP server, used as it is meant to be: made, filled, proven, brought back, broken off and resumed."""

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.openssh import SshServer

import memkeep
from memkeep import clock
from memkeep.errors import StorageUnreachableError
from memkeep.model import Rung
from memkeep.storage import sftp

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("private_tmp")]

PASSWORD = {"MEMKEEP_PASSWORD": "pw"}


def test_every_verb_works_on_a_vault_on_a_server(
    ssh_server: SshServer, run_cli: Callable[..., Any], copy_store: Callable[..., Path], tmp_path: Path
) -> None:
    vault = ssh_server.url(tmp_path / "served" / "vault")
    store = copy_store("oc-memory") / "memory.db"

    def ran(*words: str | Path) -> Any:
        done = run_cli(*words, "--vault", vault, "--json", env=PASSWORD)
        assert done.code == 0, done
        return done.result

    assert ran("init")["vault"] == vault
    [first] = ran("backup", store)["snapshots"]
    assert (first["system"], first["rung"]) == ("oc-memory", "readable")
    with sqlite3.connect(store) as database:
        database.execute("UPDATE mem_cells SET content = 'changed since' WHERE id = (SELECT min(id) FROM mem_cells)")
    database.close()
    assert len(ran("diff", "latest", store)["changed"]) == 1
    assert ran("verify", "--rung", "equivalent")["rung"] == "equivalent"
    assert ran("status", store)["vault"] == vault
    ran("restore", "latest", "--to", tmp_path / "back")
    [back] = (tmp_path / "back").rglob("memory.db")
    with sqlite3.connect(f"file:{back}?mode=ro", uri=True) as database:
        said = [row[0] for row in database.execute("SELECT content FROM mem_cells ORDER BY id")]
    database.close()
    assert len(said) == first["records"]
    assert "changed since" not in said


def test_where_oc_memory_copies_to_is_the_vault_when_nothing_else_is(
    ssh_server: SshServer, run_cli: Callable[..., Any], copy_store: Callable[..., Path], home: Path, tmp_path: Path
) -> None:
    """`OC_MEMORY_BACKUP_HOST=my-server`, as oc-memory has it: a name that ssh knows."""
    login = tmp_path / "login"
    login.mkdir()
    ssh_server.sftp = f"internal-sftp -d {login}"
    ssh_server.restart()
    (home / ".ssh" / "config").write_text(
        f"Host my-server\nHostName 127.0.0.1\nPort {ssh_server.port}\nUser {ssh_server.user}\n"
    )
    env = {**PASSWORD, "OC_MEMORY_BACKUP_HOST": "my-server"}
    place = "sftp://my-server/~/backups/memkeep"
    assert f"There is no vault yet in {place}" in run_cli("status", env=env).stdout
    assert run_cli("init", "--json", env=env).result["vault"] == place
    assert (login / "backups" / "memkeep" / "config").is_file()
    store = copy_store("oc-memory") / "memory.db"
    assert run_cli("backup", store, "--json", env=env).result["snapshots"][0]["rung"] == "readable"
    assert run_cli("status", store, env=env).stdout.startswith(f"Vault {place}: 1 snapshot, encrypted")
    other = {**env, "MEMKEEP_VAULT": str(home / "other")}
    assert run_cli("init", "--json", env=other).result["vault"] == str(home / "other")
    assert run_cli("status", "--json", env=other).result["vault"] == str(home / "other")


def test_an_error_of_the_server_is_three_lines_and_one_document(
    ssh_server: SshServer, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    vault = ssh_server.url(tmp_path / "served")
    ssh_server.known_hosts.write_text("")
    done = run_cli("init", "--vault", vault, env=PASSWORD)
    assert (done.code, done.stdout, len(done.stderr.splitlines())) == (1, "", 3), done
    error = run_cli("init", "--vault", vault, "--json", env=PASSWORD).json["error"]
    assert (error["code"], error["exit"]) == ("host_key_unknown", 1)
    assert error["hint"].startswith(f"ssh -p {ssh_server.port} ")


@pytest.fixture
def vault(
    ssh_server: SshServer, new_vault: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "memkeep.library.OpenVault":
    """Return a vault on the server whose password costs little; nobody waits for a server to come back."""
    monkeypatch.setattr(clock, "pause", lambda _: None)
    url = ssh_server.url(tmp_path / "served" / "vault")
    memkeep.init_vault(url, "pw")
    return memkeep.open_vault(url, "pw")


def test_a_backup_goes_on_when_its_connection_breaks_in_the_middle(
    ssh_server: SshServer, vault: "memkeep.library.OpenVault", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "notes"
    store.mkdir()
    (store / "one.md").write_bytes(os.urandom(9 << 20).hex().encode())
    broken = []
    real = sftp._pieces

    def breaking(data: Any) -> Any:
        for piece in real(data):
            yield piece
            if len(piece) > 1 << 20 and not broken:
                broken.extend(ssh_server.sessions())
                for process in broken:
                    os.kill(process, signal.SIGKILL)

    monkeypatch.setattr(sftp, "_pieces", breaking)
    [report] = vault.backup(store).snapshots
    assert broken
    assert report.rung is Rung.READABLE
    monkeypatch.setattr(sftp, "_pieces", real)
    verified = vault.verify(rung=Rung.RESTORABLE)
    assert (verified.snapshots[0].rung, verified.all_findings) == (Rung.RESTORABLE, ())


def test_a_backup_without_its_server_fails_and_the_next_one_works(
    ssh_server: SshServer, vault: "memkeep.library.OpenVault", tmp_path: Path
) -> None:
    store = tmp_path / "notes"
    store.mkdir()
    (store / "one.md").write_text("# One\n")
    vault.backup(store)
    ssh_server.stop()
    (store / "one.md").write_text("# Two\n")
    with pytest.raises(StorageUnreachableError, match="tried 7 times"):
        vault.backup(store)
    ssh_server.start()
    vault.backup(store)
    verified = vault.verify(all=True)
    assert [one.rung for one in verified.snapshots] == [Rung.READABLE] * 2
    assert verified.all_findings == ()
