"""How a score is written: three digits, whatever its size. Pure."""

import math

from longctx.report.format import MISSING, compact, count


def written(value: float | None) -> str:
    """0.012345 as "0.0123", 1234 as "1,234", 12345.6 as "12.3 k", 0.00000123 as "1.23e-6"."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    if size >= 9_999.5:
        return compact(value)
    if size >= 999.5:
        return count(value)
    if size == 0 or size >= 0.00095:
        return f"{value:.3g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
