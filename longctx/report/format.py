"""Numbers, shares, times and names as people read them; shared by the page and the terminal.

Everything returned is plain text: printable in a log, and not yet escaped for HTML.
"""

import math
import re
from typing import TypeGuard

MISSING = "-"

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_STEPS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BYTES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def printable(text: str) -> str:
    """`text` with control characters, bidirectional overrides and lone surrogates as "?".

    They would move the cursor of a terminal, reorder a line, or fail to encode as UTF-8.
    Tabs and newlines stay.
    """
    return _UNPRINTABLE.sub("?", text)


def one_line(text: str, limit: int) -> str:
    """`text` on one line, white space collapsed, cut to `limit` characters with an ellipsis."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."


def count(value: float | None) -> str:
    """1234567 as "1,234,567"; null or not finite as "-"."""
    return f"{round(value):,}" if _known(value) else MISSING


def compact(value: float | None) -> str:
    """Exact below ten thousand, else three digits and a unit: 12345678 as "12.3 M"."""
    return _scaled(value, _STEPS, 10_000)


def rounded(value: float) -> str:
    """A round number on an axis, without idle zeros: 20000 as "20 k", 2500000 as "2.5 M"."""
    number, _, unit = compact(value).partition(" ")
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{number} {unit}".rstrip()


def size(value: float | None) -> str:
    """Bytes in decimal units: 1234567890 as "1.23 GB"."""
    small = _known(value) and abs(value) < 999.5
    return f"{value:.0f} B" if small else _scaled(value, _BYTES, 0)


def tokens(value: float | None) -> str:
    """12345678 as "12.3 M tokens"."""
    return MISSING if not _known(value) else f"{compact(value)} token{_s(value)}"


def plural(value: int, noun: str) -> str:
    """1 as "1 window", 1234 as "1,234 windows"; the plural is `noun` with an s."""
    return f"{count(value)} {noun}{_s(value)}"


def percent(share: float | None) -> str:
    """A share in 0..1 with one decimal; never rounds something to nothing or to all.

    0.1234 as "12.3 %", 0.9998 as "99.98 %", 0.0001 as "<0.1 %".
    """
    if not _known(share):
        return MISSING
    if 0 < share < 0.0005:
        return "<0.1 %"
    if 0.99995 <= share < 1:
        return ">99.99 %"
    digits = 0 if share in (0, 1) else 2 if 0.9995 <= share < 1 else 1
    return f"{share * 100:.{digits}f} %"


def decimal(value: float | None) -> str:
    """A cosine, a mean: 0.4567 as "0.457", 5.23 as "5.23", 123.4 as "123"."""
    if not _known(value):
        return MISSING
    if value == 0:
        return "0"
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def ratio(part: float, whole: float) -> float | None:
    """part / whole, or null where it has no meaning (whole not above 0, or either not finite)."""
    return part / whole if whole > 0 and _known(part / whole) else None


def times(factor: float) -> str:
    """5.217 as "5.2 times"."""
    return f"{factor:.1f} times" if factor < 100 else f"{count(factor)} times"


def duration(seconds: float | None) -> str:
    """200 as "3 min 20 s"; two units at most, below ten seconds one decimal."""
    if not _known(seconds):
        return MISSING
    if 0 < seconds < 0.05:
        return "<0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds) if seconds < 3600 else round(seconds / 60) * 60
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, last = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (last, "s"))
    first = next(i for i, (value, _) in enumerate(parts) if value)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value)


def binary(value: float) -> str:
    """A token length as the field writes it: 131072 as "128k", 1048576 as "1M", 512 as "512".

    Lengths that are no multiple of 1024 stay decimal: 50000 as "50.0 k".
    """
    for step, unit in ((1 << 20, "M"), (1 << 10, "k")):
        if value >= step and value % step == 0:
            return f"{value / step:g}{unit}"
    return compact(value)


def _scaled(value: float | None, steps: tuple[tuple[float, str], ...], exact_below: float) -> str:
    if not _known(value):
        return MISSING
    if abs(value) < exact_below:
        return count(value)
    # The unit is chosen after rounding to three digits, so 999,999 is "1.00 M", not "1000 k".
    shown = float(f"{value:.3g}")
    step, unit = next((s for s in steps if abs(shown) >= s[0]), steps[-1])
    scaled = shown / step
    digits = 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
    return f"{scaled:.{digits}f} {unit}"


def _s(value: float | None) -> str:
    return "" if value == 1 else "s"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
