"""How amounts are said: bytes, spans of time, numbers of things."""


def size(count: int) -> str:
    """Return bytes for people: `999 B`, `4.2 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:  # noqa: PLR2004 - beyond it three digits would round to four
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Return a time span for people: `0.3 s`, `2 min 5 s`."""
    if seconds < 59.95:  # noqa: PLR2004 - beyond it one decimal would round to 60
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def count(many: int | None, noun: str, plural: str = "") -> str:
    """Return a number of things: `1 record`, `50,000 records`; `?` where it is not known."""
    word = noun if many == 1 else plural or noun + "s"
    return f"{number(many)} {word}"


def number(value: int | None) -> str:
    """Return a number for a column; `?` where it is not known."""
    return "?" if value is None else f"{value:,}"
