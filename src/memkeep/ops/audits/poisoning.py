"""Signs that a memory was written to steer the agent: orders to it, hidden text, markup of tools and roles.

What users want of an agent is memory too (`always answer in German`), so an order counts only where it turns against
the user or against what the agent was told before; and what is hidden counts always.
"""

import re
from collections.abc import Iterable, Iterator

from memkeep.model import Severity
from memkeep.ops.audits.base import Kind, Noticed, Pass, Scene, texts_of
from memkeep.records.record import Record

name = "poisoning"
vectors = False
kinds: tuple[Kind, ...] = (
    Kind(
        name="hidden_text",
        title="records with text that a person does not see",
        severity=Severity.ERROR,
        mend="look at the record with `memkeep show`, then delete it",
    ),
    Kind(
        name="agent_instruction",
        title="records that give orders to the agent",
        severity=Severity.ERROR,
        mend="see where the record is from, and delete it unless you wrote it",
    ),
    Kind(
        name="role_markup",
        title="records with markup of roles or tool calls",
        severity=Severity.WARNING,
        mend="see where the record is from, and delete it unless you wrote it",
    ),
    Kind(
        name="fetched_command",
        title="records with a command that runs what it fetches",
        severity=Severity.INFO,
        mend="see that it is the command you mean",
    ),
    Kind(
        name="encoded_blob",
        title="records with a long encoded block",
        severity=Severity.INFO,
        mend="see what it is",
    ),
)

_NOUNS = r"(?:instructions?|prompts?|rules?|guidelines?|messages?|context|restrictions?|directives?|constraints?)"
_FORGET = r"\b(?:ignore|disregard|forget|override|bypass)\b"
_ORDERS = {
    "it tells the agent to ignore what it was told": re.compile(
        rf"{_FORGET}(?:\W+(?:all|any|every|of|the|your|these|those|my)){{0,4}}\W+"
        rf"(?:previous|prior|above|earlier|preceding|existing|system|safety|former|original)\W+(?:\w+\W+){{0,2}}?{_NOUNS}"
        rf"|{_FORGET}\W+(?:all|any|every|your)\W+(?:of\W+)?(?:your\W+|the\W+)?"
        r"(?:instructions|prompts?|guidelines|restrictions|directives)\b"
        r"|\bforget\W+everything\W+(?:you|above|before|said)\b"
        r"|\b(?:ignoriere?|vergiss|missachte)\b(?:\W+\w+){0,3}?\W+(?:vorherigen|bisherigen|obigen)\W+\w*(?:anweisung|regel)"
        r"|\bignor[ae]\w*\W+(?:todas\W+)?las\W+(?:instrucciones|reglas)\W+(?:anteriores|previas)"
        r"|\bignore[rz]?\W+(?:toutes\W+)?les\W+(?:instructions|consignes)\W+(?:précédentes|antérieures)"
        r"|игнорируй(?:те)?\W+(?:все\W+)?(?:предыдущие|прежние)\W+(?:инструкции|указания)"
        r"|忽略(?:之前|以上|先前|所有|前面).{0,6}(?:指令|提示|说明|指示)",
        re.IGNORECASE,
    ),
    "it tells the agent to keep something from the user": re.compile(
        r"\b(?:do\s+not|don'?t|never|without)\W+(?:ever\W+)?(?:tell|telling|inform|informing|notify|notifying|alert"
        r"|alerting|warn|warning)\W+(?:the\W+|your\W+)?user\b"
        r"|\b(?:do\s+not|don'?t|never|without)\W+(?:ever\W+)?(?:mention|mentioning|reveal|revealing|disclose|disclosing)"
        r"\b(?:\W+\w+){0,4}?\W+to\W+(?:the\W+|your\W+)?user\b",
        re.IGNORECASE,
    ),
    "it tells the agent to pass on secrets": re.compile(
        r"\b(?:send|post|upload|forward|exfiltrate|leak|e-?mail|transmit|append|include)\b(?:\W+\w+){0,6}?\W+"
        r"(?:passwords?|credentials?|api\W?keys?|tokens?|secrets?|private\W?keys?|conversation|chat\W?history|\.env)\b"
        r"(?:\W+\w+){0,6}?\W+(?:to|at)\W+(?:https?://|\S+@\S+)",
        re.IGNORECASE,
    ),
    "it gives the agent another identity": re.compile(
        r"\b(?:you\s+are\s+now|from\s+now\s+on,?\s+you(?:\s+are|\s+must|\s+will)|act\s+as\s+if\s+you\s+(?:are|were|have)"
        r"|pretend\s+(?:to\s+be|that\s+you))\b(?:\W+\w+){0,6}?\W+(?:jailbroken|unrestricted|unfiltered"
        r"|developer\s+mode|dan\b|no\s+(?:restrictions|rules|limits|filters)|admin(?:istrator)?\s+mode|god\s+mode)",
        re.IGNORECASE,
    ),
    "it tells the agent whom to favour, or the very words to say": re.compile(
        r"\b(?:you|the\s+(?:assistant|agent|ai|model))\s+(?:must|shall|should|will|have\s+to)\s+(?:always|only)\s+"
        r"(?:recommend|promote|suggest|endorse|favou?r|trust|forward|transfer|buy|link)\b"
        r"|^\W*(?:always|whenever\b[^\n]{1,80}?,?)\s+(?:reply|respond|answer|say|output)\b(?:\W+\w+){0,2}?\W+"
        r"(?:with\s+(?:exactly|the\s+(?:following|phrase|words?|text|link|sentence))|the\s+following|exactly\b|https?://)",
        re.IGNORECASE | re.MULTILINE,
    ),
}
_FETCHED = re.compile(
    r"\b(?:curl|wget)\b[^\n|]{1,200}\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b|\b(?:iwr|irm)\b[^\n|]{1,200}\|\s*iex\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"<\|(?:im_start|im_end|system|user|assistant|endoftext|start_header_id|eot_id)\|>|\[/?INST\]|<</?SYS>>"
    r"|(?<!\w)</?(?:system|assistant|tool_call|tool_calls|function_calls?|tool_use|tool_result|invoke|antml:\w+|system-reminder)\b[^>]*>"
    r"|^\s*(?:#{1,6}\s*)?(?:\[?system(?:\s+(?:prompt|message|override|note))?\]?|developer|assistant)\s*:\s*(?:you|ignore|the|do|never|always|new)\b"
    r'|\{\s*"(?:tool|function|name)"\s*:\s*"[\w.-]+"\s*,\s*"(?:arguments|parameters|input)"\s*:',
    re.IGNORECASE | re.MULTILINE,
)
_BLOB = re.compile(
    r"(?<![\w/+=])[A-Za-z0-9+/]{120,}={0,2}(?![\w/+=])|(?:\\x[0-9a-fA-F]{2}){24,}|(?:%[0-9a-fA-F]{2}){40,}"
)
_TAGS = re.compile("[\U000e0001\U000e0020-\U000e007f]+")
_FLAGS = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")  # England, Scotland, Wales: tags that are seen
_BIDI = re.compile("[\u202a\u202b\u202d\u202e\u2066-\u2068]")
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_ZERO_WIDTH = re.compile("[\u200b\u2060-\u2064\u180e]|[\u200c\u200d](?=[\u200b-\u200d\u2060-\u2064])")
_MANY_ZERO_WIDTH = 3
_SELECTORS = re.compile("[\U000e0100-\U000e01ef\ufe00-\ufe0f]{4,}")  # one of them is an emoji's, a row of them is data
_COMMENT = re.compile(
    r"<!--.{0,2000}?-->|<(?:span|div|p)[^>]*(?:display\s*:\s*none|font-size\s*:\s*0)[^>]*>", re.DOTALL
)


class _Pass(Pass):
    def __init__(self) -> None:
        self._found: dict[str, list[Noticed]] = {kind.name: [] for kind in kinds}

    def record(self, record: Record) -> None:
        signs: dict[str, list[str]] = {}
        for field, text in texts_of(record):
            for kind, sign in _signs(text):
                said = sign if field == "text" else f"{sign} ({field})"
                if said not in signs.setdefault(kind, []):
                    signs[kind].append(said)
        for kind, said_of in signs.items():
            why = "; ".join(said_of)
            self._found[kind].append(Noticed(kind=kind, collection=record.collection, id=record.id, why=why))

    def noticed(self) -> Iterable[Noticed]:
        return [one for found in self._found.values() for one in found]


def _signs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kinds of signs in a text, and what each is."""
    if not text.isascii():
        yield from (("hidden_text", sign) for sign in _hidden(text))
    for sign, pattern in _ORDERS.items():
        if pattern.search(text):
            yield "agent_instruction", sign
    if "|" in text and _FETCHED.search(text):
        yield "fetched_command", "it has a command that runs what it fetches"
    if any(mark in text for mark in "<[{:") and _MARKUP.search(text):
        yield "role_markup", "it has markup of roles or tool calls"
    if "<" in text and (comment := _COMMENT.search(text)) and any(p.search(comment[0]) for p in _ORDERS.values()):
        yield "hidden_text", "it has an order in a part of HTML that is not shown"
    if _BLOB.search(text):
        yield "encoded_blob", "it has a long encoded block"


def _hidden(text: str) -> Iterator[str]:
    if _TAGS.search(_FLAGS.sub("", text)):
        yield "it has Unicode tags, letters that are not shown"
    if _BIDI.search(text) and not _RTL.search(text):
        yield "it turns the direction of writing where nothing is written from the right"
    if len(_ZERO_WIDTH.findall(text)) >= _MANY_ZERO_WIDTH:
        yield "it has many letters of no width"
    if _SELECTORS.search(text):
        yield "it has rows of variation selectors, which can carry data"


def begin(scene: Scene) -> Pass:  # noqa: ARG001 - the contract's signature
    """Begin a reading."""
    return _Pass()
