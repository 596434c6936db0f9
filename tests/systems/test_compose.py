"""What a compose file says, in all the spellings that Docker Compose takes."""

from pathlib import Path

import pytest

from memkeep.systems import compose


def _read(folder: Path, text: str, **environ: str) -> compose.Compose:
    (folder / "docker-compose.yml").write_text(text)
    found = compose.read(folder, environ)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("port", "published"),
    [
        ('"6333:6333"', ("127.0.0.1", 6333)),
        ('"7000:6333"', ("127.0.0.1", 7000)),
        ('"7000:6333/tcp"', ("127.0.0.1", 7000)),
        ('"127.0.0.1:7000:6333"', ("127.0.0.1", 7000)),
        ('"0.0.0.0:7000:6333"', ("127.0.0.1", 7000)),
        ('"[::1]:7000:6333"', ("[::1]", 7000)),
        ('"10.0.0.7:7000:6333"', ("10.0.0.7", 7000)),
        ('"7000-7004:6330-6334"', ("127.0.0.1", 7003)),
        ("6333", ("127.0.0.1", 0)),
        ('"${PORT:-7001}:6333"', ("127.0.0.1", 7001)),
        ('"${SET}:6333"', ("127.0.0.1", 7002)),
        ("{target: 6333, published: 7000}", ("127.0.0.1", 7000)),
        ('{target: 6333, published: "7000", host_ip: 10.0.0.7}', ("10.0.0.7", 7000)),
        ('"7000:6334"', None),
        ('"nonsense"', None),
    ],
)
def test_a_port_is_found_where_it_is_published(port: str, published: object, tmp_path: Path) -> None:
    found = _read(tmp_path, f"services: {{store: {{image: qdrant/qdrant, ports: [{port}]}}}}", SET="7002")
    assert compose.reached(found, "store", 6333) == published


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "one"),
        ("$A-$$A", "one-$A"),
        ("${A:-two}", "one"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY-two}", ""),
        ("${NONE-two}", "two"),
        ("${NONE:-${A}}", "one"),
        ("${NONE:?must be set}", ""),
        ("${A:+two}", "two"),
        ("${NONE:+two}", ""),
        ("${NEAR}", "from .env"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, value: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NEAR='from .env'\nA=not this one\n")
    found = _read(tmp_path, f"services: {{s: {{image: '{text}'}}}}", A="one", EMPTY="")
    assert found.services["s"].image == value


def test_the_environment_of_a_service_wins_over_its_files(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / ".env").write_text('A=file\nB=file\nC="with # sign"\n')
    for said in ('["A=said", "D", "E"]', "{A: said, D: null, E: null}"):
        found = _read(tmp_path, f"services: {{s: {{env_file: api/.env, environment: {said}}}}}", D="mine")
        assert found.services["s"].environment == {"A": "said", "B": "file", "C": "with # sign", "D": "mine"}
    found = _read(tmp_path, "services: {s: {env_file: [{path: api/.env, required: false}, gone.env]}}")
    assert found.services["s"].environment["A"] == "file"


def test_volumes_are_read_in_both_spellings(tmp_path: Path) -> None:
    said = "[named:/a, ./here:/b:ro, /only, {type: volume, source: named, target: /c}, {type: tmpfs}]"
    found = _read(tmp_path, f"services: {{s: {{volumes: {said}}}}}")
    assert found.services["s"].mounts == (("named", "/a"), ("./here", "/b"), ("", "/only"), ("named", "/c"))


def test_a_service_on_the_hosts_network_is_where_it_listens(tmp_path: Path) -> None:
    found = _read(tmp_path, "services: {s: {network_mode: host}}")
    assert compose.reached(found, "s", 6333) == ("127.0.0.1", 6333)
    assert compose.reached(found, "elsewhere.example", 6333) == ("elsewhere.example", 6333)
    assert compose.reached(None, "host.docker.internal", 6333) == ("127.0.0.1", 6333)


@pytest.mark.parametrize("text", ["", "a: [", "services: 7", "- 1", "services: {s: !override {image: a}}", "\0"])
def test_what_is_no_compose_file_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    assert compose.read(tmp_path, {}) is None


def test_a_compose_file_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: !!python/object/apply:os.system ['touch pwned']\n")
    assert compose.read(tmp_path, {}) is None
    assert not (tmp_path / "pwned").exists()
