import pytest

from memkeep.records import personal, secrets

PLAIN = [
    "User prefers dark mode; the password is required at login",
    "API key: stored in 1Password",
    "token: 4096 is the limit",
    "Password: see vault",
    "uses a JWT token for auth; the token is refreshed every 15 minutes",
    "secret: ${MY_SECRET}",
    "password=os.environ['X']",
    "The secret is patience",
    "commit 8f8a691d7c1e2b3a4f5061728394a5b6c7d8e9f0 fixed it",
    "id 7d9e6679-7425-40de-944b-e07fc1f90ae7",
    "see https://example.org/a/b?c=d and /home/anna/notes/2026-11-21.md",
]
SECRET = {
    "The password is hunter2": "hunter2",
    "api_key = 'abcdefghijk'": "abcdefghijk",
    "key AKIAIOSFODNN7EXAMPLZ here": "AKIAIOSFODNN7EXAMPLZ",
    "use sk-ant-api03-abcdefghijklmnopqrstuvwx-1234": "sk-ant-api03-abcdefghijklmnopqrstuvwx-1234",
    "postgres://u:s3cr3t@host/db": "s3cr3t",
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- ok": "abc",
    f"ghp_{'a1' * 18}": "a1a1",
    f"github_pat_{'a1' * 18}": "a1a1",
    "PIN is 4821": "4821",
    "Passwort ist Geheim!23": "Geheim!23",
    "DB_PASSWORD=Tr0ub4dor&3": "Tr0ub4dor&3",
    "Authorization: Bearer abcdefghijklmnopqrst.1": "abcdefghijklmnopqrst.1",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{'sig' * 12}": "sigsig",
}


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_memories_hold_no_secret(text: str) -> None:
    assert secrets.redact(text) == text


@pytest.mark.parametrize(("text", "value"), SECRET.items())
def test_a_secret_is_found_and_nothing_of_it_is_left(text: str, value: str) -> None:
    assert secrets.find(text)
    assert value not in secrets.redact(text)
    assert "[redacted " in secrets.redact(text)


def test_the_text_around_a_secret_stays() -> None:
    assert secrets.redact("Anna: the password is hunter2, twice: hunter2 no") == (
        "Anna: the password is [redacted password], twice: hunter2 no"
    )


def test_a_key_block_without_an_end_goes_to_the_end_of_the_text() -> None:
    assert secrets.redact("a -----BEGIN PRIVATE KEY-----\nMII") == "a [redacted private_key]"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mail anna.b+c@example.co.uk", "email"),
        ("call +49 30 1234567", "phone"),
        ("call (555) 123-4567", "phone"),
        ("pay to DE89 3704 0044 0532 0130 00", "iban"),
        ("card 4111 1111 1111 1111", "card"),
    ],
)
def test_personal_data_is_found_by_kind(text: str, kind: str) -> None:
    assert [one.kind for one in personal.find(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "pay to DE88 3704 0044 0532 0130 00",  # wrong check digits
        "card 4111 1111 1111 1112",
        "at 2026-11-21 19:36:16 version 10.20.30",
        "id 1763754976123456789",
        "user@host and @anna",
        "1.234.567.890 bytes",
        "0000 0000 0000 0000",
    ],
)
def test_numbers_and_handles_are_not_personal_data(text: str) -> None:
    assert personal.find(text) == []
