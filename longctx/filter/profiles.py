"""Rules over heuristic columns, the three profiles that order them, and the verdict.

The columns come from `longctx.filter.heuristics`; everything here is arithmetic on them, so a
threshold can move without reading a text again. Bounds are those of Gopher (arXiv 2112.11446), C4
(1910.10683) and FineWeb (2406.17557); the profiles are ours. Rules written for one page of the web
delete books when they are put to whole long documents: n-gram repetition grows with length, a
100,000-word cap hits every long novel, one "{" or "lorem ipsum" anywhere kills. So `long_doc`
judges windows of 2,000 words and drops a document when more than 30 % of them fail.

Word-length rules need words that are written apart, so they are skipped for languages that are not
(ours); the stop-word rule is skipped for languages without a list. A language that is not given
counts as written with spaces and without a list.

`code` (code and LaTeX) also raises the bounds of repeated lines and n-grams (ours): with Gopher's,
every second window of Django and nearly every one of the Stacks project fails, because brackets are
words here and code repeats itself. The raised bounds pass 96 % of the windows of both and still
catch a window that is one line or block over and over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from longctx.errors import RecipeError

Stats = Mapping[str, Any]

UNSPACED_LANGUAGES = ("zh", "ja", "th", "lo", "km", "my")
STOP_WORD_LANGUAGES = ("en",)


@dataclass(frozen=True)
class Rule:
    """Keep while low <= column <= high (both inclusive, None = open); a null column fails."""

    name: str
    column: str
    low: float | None = None
    high: float | None = None

    def passes(self, stats: Stats) -> bool:
        """Whether the row passes; raises KeyError if it lacks the column."""
        value = stats[self.column]
        if value is None:
            return False
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high)

    def with_bounds(self, bounds: Mapping[str, float]) -> "Rule":
        """The rule with the bound that `bounds` has for its name, on the side it already has."""
        if self.name not in bounds:
            return self
        bound = bounds[self.name]
        return replace(self, low=bound) if self.low is not None else replace(self, high=bound)

    def applies_to(self, language: str | None) -> bool:
        """Whether the rule makes sense in that language (a code such as "en" or "zh-Hant")."""
        code = (language or "").lower().replace("_", "-").split("-")[0]
        if self.name == "stop_words":
            return code in STOP_WORD_LANGUAGES
        if self.name in ("word_len_low", "word_len_high"):
            return code not in UNSPACED_LANGUAGES
        return True


_TOP = zip((2, 3, 4), (0.20, 0.18, 0.16), strict=True)
_DUP = zip((5, 6, 7, 8, 9, 10), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True)
REPETITION = (
    Rule("dup_para", "h_dup_para", high=0.30),
    Rule("dup_para_chars", "h_dup_para_chars", high=0.20),
    Rule("dup_line", "h_dup_line", high=0.30),
    Rule("dup_line_chars", "h_dup_line_chars", high=0.20),
    *(Rule(f"top_{n}", f"h_top_{n}", high=bound) for n, bound in _TOP),
    *(Rule(f"dup_{n}", f"h_dup_{n}", high=bound) for n, bound in _DUP),
)
LENGTH = (
    Rule("too_short", "h_n_words", low=50),
    Rule("too_long", "h_n_words", high=100_000),
)
QUALITY = (
    Rule("word_len_low", "h_mean_word_len", low=3),
    Rule("word_len_high", "h_mean_word_len", high=10),
    Rule("hash", "h_hash", high=0.1),
    Rule("ellipsis", "h_ellipsis", high=0.1),
    Rule("bullets", "h_bullets", high=0.9),
    Rule("end_ellipsis", "h_end_ellipsis", high=0.3),
    Rule("alpha", "h_alpha", low=0.8),
    Rule("stop_words", "h_stop", low=2),
)
LOREM = (Rule("lorem", "h_lorem", high=0),)
C4 = (
    Rule("brace", "h_braces", high=0),
    Rule("few_sentences", "h_sentences", low=5),
)
FINEWEB = (
    Rule("line_punct", "h_line_punct", low=0.12),
    Rule("short_lines", "h_short_lines", high=0.67),
    Rule("fw_dup_chars", "h_fw_dup_chars", high=0.1),
    Rule("newlines", "h_newlines", high=0.3),
)
_PROSE_ONLY = ("word_len_low", "word_len_high", "alpha", "stop_words")


@dataclass(frozen=True)
class Profile:
    """Rules in the order in which the first failing one gives its name to the verdict.

    `document` rules see the whole document, `window` rules each window; a document fails as
    "windows" when more than `max_fail_share` of its windows do.
    """

    name: str
    document: tuple[Rule, ...]
    window: tuple[Rule, ...] = ()
    max_fail_share: float = 0.3

    def with_bounds(self, **bounds: float) -> "Profile":
        """The profile with other bounds, by rule name, e.g. `min_bytes=1024, dup_5=0.2`.

        A rule has one bound, so its side stays. Raises `RecipeError` on a name it does not have.
        """
        known = [rule.name for rule in (*self.document, *self.window)]
        if wrong := sorted(set(bounds) - set(known)):
            raise RecipeError(
                f"profile {self.name} has no rule {', '.join(wrong)}",
                where="score.heuristics",
                remedy=f"its rules are {', '.join(known)}",
            )
        return replace(
            self,
            document=tuple(rule.with_bounds(bounds) for rule in self.document),
            window=tuple(rule.with_bounds(bounds) for rule in self.window),
        )


@dataclass(frozen=True)
class Verdict:
    """`rule` is the first failing one ("" if kept); `win_fail` that of each window or ""."""

    keep: bool
    rule: str
    win_fail: tuple[str, ...] = ()

    @property
    def win_fail_share(self) -> float:
        """Share of windows that fail, in [0, 1]; 0 without windows."""
        return sum(map(bool, self.win_fail)) / max(len(self.win_fail), 1)


_REPETITIVE_BOUNDS = {"dup_line": 0.65, "dup_line_chars": 0.60} | {
    f"dup_{n}": 0.55 - 0.01 * (n - 5) for n in range(5, 11)
}
_MIN_BYTES = Rule("min_bytes", "h_n_bytes", low=32_768)
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("short_doc", (*REPETITION, *LENGTH, *QUALITY, *LOREM, *C4, *FINEWEB)),
        Profile("long_doc", (_MIN_BYTES,), (*REPETITION, *QUALITY, *LOREM)),
        Profile(
            "code",
            (_MIN_BYTES,),
            (*REPETITION, *(rule for rule in QUALITY if rule.name not in _PROSE_ONLY)),
        ).with_bounds(**_REPETITIVE_BOUNDS),
    )
}


def judge(
    stats: Stats, windows: Sequence[Stats], profile: Profile, language: str | None = None
) -> Verdict:
    """Verdict on one document from its columns and those of its windows, without its text."""
    win_fail = tuple(_first_failure(profile.window, window, language) for window in windows)
    verdict = Verdict(True, "", win_fail if profile.window else ())
    rule = _first_failure(profile.document, stats, language)
    if not rule and verdict.win_fail_share > profile.max_fail_share:
        rule = "windows"
    return replace(verdict, keep=not rule, rule=rule)


def _first_failure(rules: Sequence[Rule], stats: Stats, language: str | None) -> str:
    return next((r.name for r in rules if r.applies_to(language) and not r.passes(stats)), "")
