"""What a system makes rows of: chosen documents, how they are chosen, and the units of work.

Quotas by language and bins of lengths, as LongAlign's even lengths want them (section 3 of the
specification); systems that take any document have one bin. Inside a bin documents come in the
order of their seeded hashes, so parts, workers and other documents change nothing, and what a bin
lacks is reported, not filled from others. Every part may give its own first ones alone: the first
of all are among them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from longctx.synth.checks import allocate
from longctx.synth.draw import hash_order

Bin = tuple[str, int]
_SUBTAG = re.compile(r"[-_]")


@dataclass(frozen=True)
class Item:
    """A chosen document with what the stages so far have said of it, by their step.

    `bin` is the number of the bin that it was chosen for.
    """

    id: str
    lang: str
    source: str
    n_tokens: int
    text: str
    replies: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    bin: int = 0


@dataclass(frozen=True)
class Quotas:
    """How many documents of which languages and lengths: bins of `bin_tokens` in [least, most]."""

    total: int
    least: int
    most: int
    bin_tokens: int
    shares: Mapping[str, float]

    @property
    def bins(self) -> int:
        """Bins of lengths; the last one may be cut short by `most`."""
        return -(-(self.most + 1 - self.least) // self.bin_tokens)

    def wanted(self) -> dict[Bin, int]:
        """Documents of each bin, by largest remainders."""
        of_lang = allocate(self.total, list(self.shares.values()))
        return {
            (lang, at): n
            for lang, share in zip(self.shares, of_lang, strict=True)
            for at, n in enumerate(allocate(share, [1.0] * self.bins))
        }

    def bin_of(self, lang: str | None, n_tokens: int | None) -> Bin | None:
        """The bin of a document; None for one that no bin takes."""
        if lang not in self.shares or n_tokens is None or not self.least <= n_tokens <= self.most:
            return None
        return str(lang), (n_tokens - self.least) // self.bin_tokens

    def bounds(self, at: int) -> tuple[int, int]:
        """Fewest and most tokens of a document of bin `at`."""
        lo = self.least + at * self.bin_tokens
        return lo, min(lo + self.bin_tokens - 1, self.most)

    def mean_tokens(self) -> float:
        """Tokens of a document on average, where lengths are even inside the bins; 0 for none."""
        wanted = self.wanted()
        tokens = sum(n * sum(self.bounds(at)) / 2 for (_, at), n in wanted.items())
        return tokens / self.total if self.total else 0.0

    def report(
        self, available: Mapping[str, int], reached: Mapping[str, int]
    ) -> list[dict[str, Any]]:
        """What each bin was to give, had and gave, for bins that were to give anything.

        `available` and `reached` are counted by `bin_name`.
        """
        found = []
        for (lang, at), n in self.wanted().items():
            lo, hi = self.bounds(at)
            name = bin_name((lang, at))
            counts = {"available": available.get(name, 0), "reached": reached.get(name, 0)}
            if n:
                found.append({"lang": lang, "least": lo, "most": hi, "wanted": n, **counts})
        return found


def bin_name(found: Bin) -> str:
    """A bin as a key of counters."""
    return f"{found[0]}:{found[1]}"


def first_of_bins(
    found: Mapping[Bin, Iterable[str]], quotas: Quotas, seed: int, system: str
) -> dict[Bin, list[str]]:
    """Of each bin as many ids as it is to give, the first in the order of their hashes."""
    wanted = quotas.wanted()
    return {b: hash_order(ids, seed, system, "select")[: wanted[b]] for b, ids in found.items()}


def language_of(tag: str | None, default: str | None) -> str | None:
    """The language of a document from its tag ("zh-Hant" is zh); `default` where it has none."""
    return _SUBTAG.split(tag.strip().lower())[0] if tag and tag.strip() else default


def units_of(rows: Sequence[Mapping[str, Any]], size: int) -> list[list[tuple[int, list[Any]]]]:
    """Chosen rows in the order of the corpus, `size` to a unit, grouped by the part they are in."""
    placed = sorted(rows, key=lambda r: (r["part"], r["row"]))
    units: list[list[tuple[int, list[Any]]]] = []
    for start in range(0, len(placed), size):
        groups: dict[int, list[Any]] = {}
        for row in placed[start : start + size]:
            groups.setdefault(row["part"], []).append(row)
        units.append(list(groups.items()))
    return units
