"""Read JSON as people write it: JSON5, the form of `openclaw.json` (comments, trailing commas, bare keys, 'quotes').

The text is cut into tokens by one pattern, each token is spelled as strict JSON, and the standard reader does the
rest; so a file that is strict JSON costs no more than that, and a relaxed one of 20 kB about two milliseconds.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(
    r"""(?P<blank>[\s\ufeff]+|//[^\n\r\u2028\u2029]*|/\*.*?\*/)
    |(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|Infinity|NaN|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w$]))
    |(?P<word>[^\W\d][\w$]*|\$[\w$]*)
    |(?P<mark>[{}\[\]:,])""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(\r\n|.))", re.DOTALL)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_CONTINUED = {"\n", "\r", "\r\n", "\u2028", "\u2029"}


def loads(text: str) -> Any:
    """Return the value that strict or relaxed JSON stands for; raises `ValueError` when it is neither."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    except RecursionError:
        raise ValueError("nested too deeply") from None
    try:
        return json.loads(" ".join(_strict(list(_tokens(text)))))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            line = text.count("\n", 0, at) + 1
            raise ValueError(f"line {line}: {text[at : at + 12]!r} is not JSON")
        if found.lastgroup != "blank":
            yield found.lastgroup, found.group()
        at = found.end()


def _strict(tokens: list[tuple[str, str]]) -> Iterator[str]:
    following = [said for _, said in tokens[1:]] + [""]
    for (kind, said), after in zip(tokens, following, strict=False):
        if kind == "text":
            yield json.dumps(_unquoted(said[1:-1]))
        elif kind == "number" and after != ":":
            yield _number(said)
        elif kind in ("word", "number"):
            yield said if after != ":" else json.dumps(said)
        elif said != "," or after not in ("}", "]"):
            yield said


def _unquoted(body: str) -> str:
    """Return what the inside of a quoted text stands for; a pair of surrogates becomes its character."""

    def meant(found: re.Match[str]) -> str:
        two, four, other = found.groups()
        if two or four:
            return chr(int(two or four, 16))
        return "" if other in _CONTINUED else _LETTERS.get(other, other)

    said = _ESCAPE.sub(meant, body)
    return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _number(said: str) -> str:
    sign, digits = ("-" if said[0] == "-" else ""), said.lstrip("+-")
    if digits[:2] in ("0x", "0X"):
        return f"{sign}{int(digits, 16)}"
    if digits in ("Infinity", "NaN"):
        return sign + digits if digits == "Infinity" else digits
    whole, dot, rest = digits.partition(".")
    if not dot:
        return said.lstrip("+")
    return f"{sign}{whole or 0}.{rest if rest[:1].isdigit() else '0' + rest}"
