"""Find keys, tokens, passwords and private keys in text.

The patterns of services are those of detect-secrets, which is kept for the purpose; beside them stand those of services
that it does not know, and the ways in which people write a password into a sentence.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.errors import UnsupportedError

if TYPE_CHECKING:
    from detect_secrets.plugins.base import RegexBasedDetector

_BLOCK = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_KNOWN = {
    "openai_or_anthropic_key": re.compile(r"\bsk-(?:[a-z]+[0-9]*-){0,3}[A-Za-z0-9_-]{20,}"),
    "google_key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}"),
    "google_token": re.compile(r"\bya29\.[0-9A-Za-z_-]{20,}"),
    "github_token": re.compile(r"\bgithub_pat_[0-9A-Za-z_]{22,}"),
    "hugging_face_token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "npm_token": re.compile(r"\bnpm_[A-Za-z0-9]{36}\b"),
    "groq_key": re.compile(r"\bgsk_[A-Za-z0-9]{40,}"),
    "tavily_key": re.compile(r"\btvly-[A-Za-z0-9-]{20,}"),
    "perplexity_key": re.compile(r"\bpplx-[A-Za-z0-9]{40,}"),
    "digitalocean_token": re.compile(r"\bdo[opr]_v1_[a-f0-9]{64}"),
    "shopify_token": re.compile(r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    "webhook_secret": re.compile(r"\bwhsec_[A-Za-z0-9+/=]{24,}"),
    "json_web_token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*)?"),
    "age_key": re.compile(r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}"),
    "bearer_token": re.compile(r"\b[Bb]earer\s+([A-Za-z0-9._~+/-]{20,}=*)"),
}
_NAMED = re.compile(
    r"""(?ix)
    (?:\b|_)(?P<name>passw(?:or[dt]|d)|passphrase|pwd|kennwort|contrase[nñ]a|mot\ de\ passe
      |(?:api|access|auth|account|private|secret|encryption)[_ -]?(?:key|token)|client[_ -]?secret|secret|token)
    ["'`]? \s* (?:=>|:=|=|:|\bis\b|\bist\b|\best\b|\bes\b)+ \s*
    (?P<quote>["'`]?) (?P<value>[^\s"'`<>{}]{6,256}) (?P=quote)
    """
)
_PIN = re.compile(r"\bPIN(?: code)?(?: is|:|=)?\s+(?P<value>\d{4,8})\b")
_PLACEHOLDER = re.compile(
    r"(?i)x{4,}|\*{3,}|\.{3}|your[_-]|example|changeme|placeholder|redacted|^(?:process|os)\.env|^\$|^https?://|^[/~]"
)
_SYMBOLS = frozenset("!@#$%^&*?~+=|")
_LEFT_OUT = frozenset({"IPPublicDetector", "JwtTokenDetector"})  # an address is no secret; tokens are found whole here
_WORTH_A_LOOK = re.compile(r"[A-Za-z0-9_+/=-]{16}|://")  # what every pattern of a service needs


class Secret(NamedTuple):
    """Where in a text a secret stands, and of what kind it is; never the secret itself."""

    kind: str  # snake_case
    start: int
    end: int


def find(text: str) -> list[Secret]:
    """Return the secrets in a text in the order of their places, none inside another.

    Raises `UnsupportedError` when the detector is not installed.
    """
    found: list[Secret] = []
    reached = 0
    for secret in sorted(set(_all(text)), key=lambda one: (one.start, -one.end, one.kind)):
        if secret.start >= reached:
            found.append(secret)
            reached = secret.end
        elif secret.end > reached:
            found[-1] = Secret(found[-1].kind, found[-1].start, secret.end)
            reached = secret.end
    return found


def redact(text: str, found: Counter[str] | None = None) -> str:
    """Return a text with each secret replaced by its mark; the same text when there is none. Kinds are counted."""
    pieces, reached = [], 0
    for secret in find(text):
        pieces += [text[reached : secret.start], mark(secret.kind)]
        reached = secret.end
        if found is not None:
            found[secret.kind] += 1
    return "".join((*pieces, text[reached:])) if pieces else text


def mark(kind: str) -> str:
    """Return what stands in the place of a secret."""
    return f"[redacted {kind}]"


def _all(text: str) -> Iterator[Secret]:
    if len(text) < 6:  # noqa: PLR2004 - shorter than any
        return
    if "PRIVATE KEY" in text:
        yield from (Secret("private_key", *match.span()) for match in _BLOCK.finditer(text))
    for match in _PIN.finditer(text):
        yield Secret("pin", *match.span("value"))
    for match in _NAMED.finditer(text):
        value = match["value"].rstrip(".,;:)]")
        if _looks_chosen(value, quoted=bool(match["quote"])):
            start = match.start("value")
            yield Secret("password" if match["name"][:1].lower() in "pkm" else "token", start, start + len(value))
    if _WORTH_A_LOOK.search(text):
        yield from _of_services(text)


def _of_services(text: str) -> Iterator[Secret]:
    """Yield what the patterns of services find; where only a short prefix is in a group the whole of it counts."""
    for kind, known in _KNOWN.items():
        for match in known.finditer(text):
            yield Secret(kind, *match.span(known.groups))
    for kind, detector in _detectors():
        for pattern in detector.denylist:
            for match in pattern.finditer(text):
                span = max((match.span(group) for group in range(1, pattern.groups + 1)), key=_length, default=(0, 0))
                yield Secret(kind, *(span if 2 * _length(span) >= _length(match.span()) else match.span()))


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def _looks_chosen(value: str, *, quoted: bool) -> bool:
    """Say whether a word after `password is` is one that somebody chose, rather than `required` or `stored`."""
    if len(value) < 6 or _PLACEHOLDER.search(value):  # noqa: PLR2004 - shorter than any
        return False
    digits, letters = any(map(str.isdigit, value)), any(map(str.isalpha, value))
    mixed = letters and value[1:].lower() != value[1:] and value.upper() != value
    return (digits and letters) or mixed or bool(_SYMBOLS & set(value)) or (quoted and " " not in value)


@cache
def _detectors() -> tuple[tuple[str, "RegexBasedDetector"], ...]:
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
        from detect_secrets.plugins.base import RegexBasedDetector
    except ImportError as error:
        raise UnsupportedError(
            "finding secrets needs the extra `audit`", hint="pip install 'memkeep[audit]'"
        ) from error
    known: list[tuple[str, Any]] = sorted(get_mapping_from_secret_type_to_class().items())
    made = [(kind, each()) for kind, each in known if each.__name__ not in _LEFT_OUT]
    return tuple((_snake(kind), one) for kind, one in made if isinstance(one, RegexBasedDetector))


def _snake(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
