"""Find personal data in text: mail addresses, phone numbers, bank accounts and cards, check digits counted."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_PHONE = re.compile(r"(?<![\w+.])(?<!\d )(?:\+|00)[1-9][\d ()./-]{6,20}\d(?![\w-])")
_NATIONAL = re.compile(r"(?<![\w+.-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
_E164 = range(8, 16)  # digits of an international number
_ISSUERS = ("2", "3", "4", "5", "6")  # first digits of payment cards


class Personal(NamedTuple):
    """Where in a text personal data stands, and of what kind it is; never the data itself."""

    kind: str  # email, phone, iban, card
    start: int
    end: int


def find(text: str) -> list[Personal]:
    """Return the personal data in a text in the order of their places, none inside another."""
    found: list[Personal] = []
    for one in sorted(_all(text), key=lambda each: (each.start, -each.end)):
        if not found or one.start >= found[-1].end:
            found.append(one)
    return found


def _all(text: str) -> Iterator[Personal]:
    if "@" in text:
        yield from (Personal("email", *match.span()) for match in _EMAIL.finditer(text))
    if sum(map(str.isdigit, text)) < _E164.start:
        return
    for match in _IBAN.finditer(text):
        if _is_iban(match[0].replace(" ", "")):
            yield Personal("iban", *match.span())
    for match in _CARD.finditer(text):
        if _is_card("".join(filter(str.isdigit, match[0]))):
            yield Personal("card", *match.span())
    for pattern in (_PHONE, _NATIONAL):
        for match in pattern.finditer(text):
            if sum(map(str.isdigit, match[0])) in _E164:
                yield Personal("phone", *match.span())


def _is_iban(account: str) -> bool:
    """Say whether the check digits of ISO 13616 hold."""
    return 15 <= len(account) <= 34 and int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1  # noqa: PLR2004


def _is_card(digits: str) -> bool:
    """Say whether Luhn's check digit holds; one number in ten that is no card's has it too, so the issuer counts."""
    if not 13 <= len(digits) <= 19 or not digits.startswith(_ISSUERS) or len(set(digits)) == 1:  # noqa: PLR2004
        return False
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(divmod(number, 10)[0] + number % 10 for number in doubled) % 10 == 0
