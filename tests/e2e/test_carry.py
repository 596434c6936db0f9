"""A memory is carried to another machine: as the page says, and with the tools that everybody has."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import memkeep
from memkeep.library import OpenVault
from memkeep.testing import agent

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("private_tmp")]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "move-to-a-new-machine.md"


@pytest.fixture
def packed(home: Path, new_vault: Callable[..., OpenVault], tmp_path: Path) -> Callable[..., Path]:
    """Return `packed(**how)`: the file of a small store, packed so."""
    store = agent.build(tmp_path / "memory", lance=False)
    vault = new_vault()
    vault.backup(store)

    def pack(**how: Any) -> Path:
        vault.pack("latest", home / "memory.tar.zst", **how)
        return home / "memory.tar.zst"

    return pack


@pytest.fixture
def machines(tmp_path: Path, home: Path, new_vault: Callable[..., OpenVault]) -> Callable[[str, str], str]:
    """Return `run(machine, line)`: what a shell prints there; `scp` knows the other machine."""
    new_vault("vault")
    (home / "password").write_text("pw\n")
    agent.build(home / ".openclaw" / "memory", lance=False)
    places = {"old": home, "new": tmp_path / "new"}
    places["new"].mkdir()
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {
        "memkeep": f'exec {sys.executable} -m memkeep "$@"',
        "scp": f'cp "$1" {tmp_path}/home-of-"${{2%%-machine:}}"/',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(stat.S_IRWXU)
    for name, place in places.items():
        (tmp_path / f"home-of-{name}").symlink_to(place)

    def run(machine: str, line: str) -> str:
        known = {"MEMKEEP_VAULT": str(home / "vault"), "MEMKEEP_PASSWORD_FILE": str(home / "password")}
        done = subprocess.run(
            ["sh", "-euc", line],
            cwd=places[machine],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
                **(known if machine == "old" else {}),
                "HOME": str(places[machine]),
                "PATH": f"{tools}:{os.environ['PATH']}",
                "PYTHONPATH": str(Path(memkeep.__file__).parent.parent),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    return run


def test_the_page_works_as_it_stands(
    machines: Callable[[str, str], str], debian: Callable[[str], str], home: Path, tmp_path: Path
) -> None:
    for program in ("age", "zstd"):
        debian(program)
    commands = []
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        machine = re.match("On the (old|new) machine", section)
        assert machine
        commands += [(machine[1], line) for line in re.findall(r"^\$ (.*)$", section, re.MULTILINE)]
    assert len(commands) == 12
    said = [machines(*command) for command in commands]
    assert "at 10.0 MB/s" in said[4]
    assert "All is well" in said[7]
    live, new = home / ".openclaw" / "memory", tmp_path / "new"
    for back in (new / ".openclaw" / "memory", new / "restored"):
        assert (back / "facts.db").read_bytes() == (live / "facts.db").read_bytes()


def test_a_passphrase_of_ours_opens_with_age_itself(
    packed: Callable[..., Path], debian: Callable[[str], str], home: Path
) -> None:
    debian("age")
    file = packed(passphrase="correct horse")
    script = shutil.which("script")
    assert script, "this test needs `script`, of bsdutils"
    subprocess.run(
        [script, "-qec", f"age -d -o {home}/plain.tar.zst {file}", "/dev/null"],
        input="correct horse\n",
        text=True,
        capture_output=True,
        check=True,
    )
    done = memkeep.restore_file(home / "plain.tar.zst", to=home / "back")
    assert (done.records, (home / "back" / "facts.db").exists()) == (31, True)


def test_an_ssh_key_will_do(packed: Callable[..., Path], debian: Callable[[str], str], home: Path) -> None:
    age = debian("age")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (home / "id").write_bytes(private)
    (home / "id").chmod(0o600)
    file = packed(recipients=[public.decode()])
    assert memkeep.restore_file(file, to=home / "back", identities=[home / "id"]).records == 31
    subprocess.run([age, "-d", "-i", home / "id", "-o", home / "plain.tar.zst", file], check=True)
    assert memkeep.restore_file(home / "plain.tar.zst", to=home / "again").records == 31


def test_what_age_itself_encrypted_opens_here(
    packed: Callable[..., Path], debian: Callable[[str], str], home: Path, run_cli: Callable[..., Any]
) -> None:
    debian("age")
    subprocess.run(["age-keygen", "-o", home / "key"], check=True, capture_output=True)
    subprocess.run(["age", "-e", "-i", home / "key", "-o", home / "locked", packed()], check=True)
    done = run_cli("restore", home / "locked", "--to", home / "back", "--age-identity", home / "key", "--json")
    assert (done.code, done.result["records"], done.result["rung"]) == (0, 31, "restorable")


@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_flipped_byte_of_an_encrypted_file_is_found(
    packed: Callable[..., Path], debian: Callable[[str], str], home: Path, where: float, run_cli: Callable[..., Any]
) -> None:
    debian("age")
    subprocess.run(["age-keygen", "-o", home / "key"], check=True, capture_output=True)
    public = subprocess.run(["age-keygen", "-y", home / "key"], check=True, capture_output=True, text=True).stdout
    file = packed(recipients=[public.strip()])
    data = bytearray(file.read_bytes())
    data[int(len(data) * where)] ^= 4
    file.write_bytes(data)
    done = run_cli("restore", file, "--to", home / "back", "--age-identity", home / "key")
    assert done.code in {12, 20}, done
    assert not (home / "back").exists()


def test_standard_output_takes_the_file_and_nothing_else(
    packed: Callable[..., Path], home: Path, run_cli: Callable[..., Any]
) -> None:
    file = packed()
    with (home / "piped").open("wb") as out:
        subprocess.run(
            [sys.executable, "-m", "memkeep", "pack", "latest", "-o", "-", "--vault", home / "vault"],
            env={
                **os.environ,
                "MEMKEEP_PASSWORD": "pw",
                "PYTHONPATH": str(Path(memkeep.__file__).parent.parent),
            },
            stdout=out,
            check=True,
        )
    assert (home / "piped").read_bytes() == file.read_bytes()
    both = run_cli("pack", "latest", "-o", "-", "--json")
    assert (both.code, both.json["error"]["code"]) == (2, "usage")


def test_what_is_no_packed_file_is_said_to_be_none(home: Path, run_cli: Callable[..., Any]) -> None:
    (home / "notes.txt").write_text("nothing of the kind")
    done = run_cli("restore", home / "notes.txt", "--to", home / "back", "--json")
    assert (done.code, done.json["error"]["code"]) == (20, "damaged")
    done = run_cli("verify", home / "notes.txt", "--json")
    assert (done.code, done.result["rung"], done.result["snapshot"]) == (20, "none", None)


def test_a_packed_file_goes_only_into_a_new_folder(
    packed: Callable[..., Path], home: Path, run_cli: Callable[..., Any]
) -> None:
    file = packed()
    assert run_cli("restore", file, "--in-place", "--confirm=openclaw-hybrid").code == 2
    assert run_cli("restore", file).code == 2
    assert run_cli("verify", file, "--rung", "equivalent").code == 2
    assert run_cli("verify", file).code == 0


def test_an_estimate_says_how_long_and_whether_it_fits(
    packed: Callable[..., Path], home: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    packed()
    env = {"MEMKEEP_VAULT": str(home / "vault"), "MEMKEEP_PASSWORD": "pw"}
    done = run_cli("estimate", tmp_path / "memory", "--speed", "1kB/s", "--json", env=env)
    assert (done.code, done.result["fits"], done.result["speed"]) == (0, True, 1000)
    assert done.result["seconds"] == done.result["added_bytes"] / 1000
    people = run_cli("estimate", "--snapshot", "latest", env=env)
    assert all(f"at {speed} MB/s" in people.stdout for speed in ("1.0", "10.0", "100.0"))
    assert run_cli("estimate", "--speed", "fast", env=env).code == 2
    assert run_cli("estimate", "--to", "x", env=env).code == 2
