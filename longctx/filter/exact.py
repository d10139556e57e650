"""Sums of floating-point numbers without rounding, so that no cut depends on how rows are divided.

A z-score needs a mean and a variance of a whole group. Sums in float64 differ in the last bits with
the order of the rows and the division into parts, and a document at a border would come and go with
them. Here every number is a whole number times a power of two, whole numbers of one power are added
as integers, and one division at the end rounds: the same bits for any division. One pass over the
values, about 0.2 s a million; what is kept are two integers for each power of two that occurs.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_BITS = 53  # of a float64's whole number
_HALF = 27
_WORD = 32  # bits that can be added 2^31 times in an int64


@dataclass(frozen=True)
class ExactSums:
    """Count, sum and sum of squares of some numbers: `first` and `second` map e to s in Σ s·2^e."""

    n: int = 0
    first: Mapping[int, int] = field(default_factory=dict)
    second: Mapping[int, int] = field(default_factory=dict)

    def __add__(self, other: "ExactSums") -> "ExactSums":
        """The sums of two disjoint sets together."""
        return ExactSums(
            self.n + other.n, _added(self.first, other.first), _added(self.second, other.second)
        )

    @property
    def mean(self) -> float:
        """The mean, rounded once; 0 without numbers."""
        return _rounded(_total(self.first) / self.n) if self.n else 0.0

    @property
    def m2(self) -> float:
        """The sum of squared deviations from the exact mean, rounded once; 0 without numbers."""
        if not self.n:
            return 0.0
        return _rounded(_total(self.second) - _total(self.first) ** 2 / self.n)

    @property
    def total(self) -> float:
        """The sum, rounded once."""
        return _rounded(_total(self.first))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; integers may be longer than 64 bits."""
        powers = {name: {str(e): s for e, s in sorted(p.items())} for name, p in self._powers()}
        return {"n": self.n, **powers}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "ExactSums":
        """Inverse of `to_json`."""
        first, second = ({int(e): s for e, s in value[n].items()} for n in ("first", "second"))
        return ExactSums(value["n"], first, second)

    def _powers(self) -> tuple[tuple[str, Mapping[int, int]], ...]:
        return ("first", self.first), ("second", self.second)


def exact_sums(x: npt.ArrayLike) -> ExactSums:
    """Sums of the values that are finite; at most 2^31 of them."""
    values = np.asarray(x, np.float64).ravel()
    values = values[np.isfinite(values)]
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, _BITS).astype(np.int64)
    power = exponent.astype(np.int64) - _BITS
    order = np.argsort(power, kind="stable")
    whole, power = whole[order], power[order]
    powers, starts = np.unique(power, return_index=True)
    first: Counter[int] = Counter()
    second: Counter[int] = Counter()
    for e, s in _sums(powers, starts, ((0, whole),)):
        first[e] += s
    size = np.abs(whole)
    high, low = size >> _HALF, size & (2**_HALF - 1)
    products = ((2 * _HALF, high * high), (_HALF, 2 * high * low), (0, low * low))
    for e, s in _sums(2 * powers, starts, products):
        second[e] += s
    return ExactSums(len(values), dict(first), dict(second))


def _sums(
    powers: I64, starts: I64, terms: tuple[tuple[int, I64], ...]
) -> Iterator[tuple[int, int]]:
    """Power and sum of each run of rows and each term, a term being rows times 2^shift.

    Rows are added in two halves, because whole ones would overflow.
    """
    if not len(powers):
        return
    for shift, rows in terms:
        low = np.add.reduceat(rows & (2**_WORD - 1), starts).tolist()
        high = np.add.reduceat(rows >> _WORD, starts).tolist()
        for power, below, above in zip(powers.tolist(), low, high, strict=True):
            yield power + shift, (above << _WORD) + below


def _added(a: Mapping[int, int], b: Mapping[int, int]) -> dict[int, int]:
    return {e: a.get(e, 0) + b.get(e, 0) for e in a.keys() | b.keys()}


def _rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _total(powers: Mapping[int, int]) -> Fraction:
    if not powers:
        return Fraction(0)
    least = min(powers)
    return Fraction(sum(s << (e - least) for e, s in powers.items())) * Fraction(2) ** least
