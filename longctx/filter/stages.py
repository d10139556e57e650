"""`score.heuristics` and `decide` on the engine: scores are columns, decisions are a later cut.

The text is read and tokenised once, here; the ids are kept beside the documents for `pack`.
"""

from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from longctx.engine.op import DROP_REASON, Map, Setting
from longctx.errors import RunError
from longctx.registry import did_you_mean
from longctx.text.columns import TOKENS

_INTEGERS = (
    "h_n_bytes",
    "h_n_chars",
    "h_n_words",
    "h_n_tok",
    "h_stop",
    "h_max_word",
    "h_braces",
    "h_sentences",
)
_SHARES = (
    "h_mean_word_len",
    "h_hash",
    "h_ellipsis",
    "h_bullets",
    "h_end_ellipsis",
    "h_alpha",
    "h_dup_para",
    "h_dup_para_chars",
    "h_dup_line",
    "h_dup_line_chars",
    *(f"h_top_{n}" for n in (2, 3, 4)),
    *(f"h_dup_{n}" for n in (5, 6, 7, 8, 9, 10)),
    "h_line_punct",
    "h_short_lines",
    "h_fw_dup_chars",
    "h_newlines",
)
_STATS = [
    *(pa.field(n, pa.int64()) for n in _INTEGERS),
    *(pa.field(n, pa.float32()) for n in _SHARES),
    pa.field("h_lorem", pa.bool_()),
]
_WINDOW = pa.struct(
    [
        pa.field("win_id", pa.int32()),
        pa.field("start_char", pa.int64()),
        pa.field("end_char", pa.int64()),
        *_STATS,
    ]
)
_SCORES = pa.schema(
    [
        pa.field("n_chars", pa.int64()),
        pa.field("n_words", pa.int64()),
        *_STATS,
        pa.field("h_windows", pa.large_list(_WINDOW)),
    ]
)


class ScoreHeuristics(Map):
    """Lengths in characters, words and tokens, and the Gopher, C4 and FineWeb measures.

    Nothing is removed: `decide` cuts. With `windows` the measures are also taken for windows of
    2,000 words, because whole-document rules punish length. Token ids are kept in `tokens`.
    """

    op: Literal["score.heuristics"]
    windows: bool = True
    window_words: int = Field(2000, ge=10)

    summary: ClassVar[str] = "lengths and quality measures, as columns"
    source: ClassVar[str] = "Gopher 2112.11446, C4 1910.10683, FineWeb 2406.17557"
    cost: ClassVar[str] = "about 3 MB/s per core with windows; tokens kept at 4 bytes each"
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = (*_SCORES.names, "tokens", "n_tokens")

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        from longctx.filter.heuristics import doc_and_window_stats, doc_stats
        from longctx.text.columns import token_columns
        from longctx.text.tokenize import load_tokenizer

        texts = table.column("text").to_pylist()
        rows: list[dict[str, Any]] = []
        for text in texts:
            if self.windows:
                stats, windows = doc_and_window_stats(text, self.window_words)
            else:
                stats, windows = doc_stats(text), None
            lengths = {"n_chars": stats["h_n_chars"], "n_words": stats["h_n_words"]}
            rows.append({**lengths, **stats, "h_windows": windows})
        scores = pa.Table.from_pylist(rows, schema=_SCORES)
        tokens = token_columns(load_tokenizer(setting.tokenizer), texts)
        return scores.append_column(
            pa.field("tokens", TOKENS), tokens.column("tokens")
        ).append_column("n_tokens", tokens.column("n_tokens"))


class Bounds(BaseModel):
    """Inclusive limits of one column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some(self) -> "Bounds":
        if self.min is None and self.max is None:
            raise ValueError("give `min`, `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


Rules = dict[str, Bounds]
ProfileName = Literal["none", "long_doc", "short_doc", "code"]


class Decide(Map):
    """Drops rows by thresholds on columns of earlier stages; moving one recomputes no score.

    `rules` give columns inclusive bounds, as in `{n_tokens: {min: 64, max: 100000}}`, for all
    sources; `per_source` replaces them column by column for a source. `profile` (and
    `profiles` by source) applies the heuristic rules of `score.heuristics`; `bounds` moves their
    limits by rule name. Rows whose column is null are dropped unless `nulls: keep`.
    """

    op: Literal["decide"]
    rules: Rules = Field(default_factory=dict)
    per_source: dict[str, Rules] = Field(default_factory=dict)
    profile: ProfileName = "none"
    profiles: dict[str, ProfileName] = Field(default_factory=dict)
    bounds: dict[str, float] = Field(default_factory=dict)
    nulls: Literal["drop", "keep"] = "drop"

    summary: ClassVar[str] = "drop rows by thresholds on columns, per source"
    source: ClassVar[str] = "longctx; the profiles follow Gopher, C4 and FineWeb"
    cost: ClassVar[str] = "reads only the columns it names"
    writes: ClassVar[tuple[str, ...]] = (DROP_REASON,)
    removes: ClassVar[bool] = True

    @model_validator(mode="after")
    def _has_rules(self) -> "Decide":
        if not (self.rules or self.per_source or self._profile_names()):
            raise ValueError("give at least one of rules, per_source, profile, profiles")
        return self

    @model_validator(mode="after")
    def _bounds_name_rules(self) -> "Decide":
        if self.bounds:
            from longctx.filter.profiles import PROFILES

            profiles = [PROFILES[name] for name in sorted(self._profile_names())]
            known = {r.name for p in profiles for r in (*p.document, *p.window)}
            for name in sorted(set(self.bounds) - known):
                listed = ", ".join(sorted(known)) or "none, for lack of a profile"
                raise ValueError(
                    f"bounds names no rule `{name}`{did_you_mean(name, known)}; rules: {listed}"
                )
        return self

    def _profile_names(self) -> set[str]:
        return {str(p) for p in (self.profile, *self.profiles.values()) if p != "none"}

    def reads_columns(self) -> tuple[str, ...]:
        columns = {c for rules in (self.rules, *self.per_source.values()) for c in rules}
        if self._profile_names():
            columns |= {"h_windows", "language", *(f.name for f in _STATS)}
        return tuple(sorted(columns))

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        reasons = np.full(table.num_rows, None, dtype=object)
        sources = np.array(table.column("source").to_pylist(), dtype=object)
        for source in sorted(set(sources)):
            rows = np.flatnonzero(sources == source)
            for column, bounds in {**self.rules, **self.per_source.get(source, {})}.items():
                self._bound(table, column, bounds, rows, reasons)
        if self._profile_names():
            self._judge(table, sources, reasons)
        return pa.table({DROP_REASON: pa.array(reasons.tolist(), pa.string())})

    def _bound(self, table: pa.Table, column: str, bounds: Bounds, rows: Any, reasons: Any) -> None:
        values = table.column(column).take(pa.array(rows))
        kind = values.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()):
            raise RunError(
                f"the column `{column}` is {kind}, which has no bounds",
                where="decide",
                remedy="name a column of numbers, such as n_tokens",
            )
        missing = pc.is_null(values, nan_is_null=True).to_numpy()
        numbers = values.cast(pa.float64(), safe=False).fill_null(0).to_numpy()
        failed: list[tuple[Any, str]] = []
        if bounds.min is not None:
            failed.append((~missing & (numbers < bounds.min), f"{column} < {bounds.min:g}"))
        if bounds.max is not None:
            failed.append((~missing & (numbers > bounds.max), f"{column} > {bounds.max:g}"))
        if self.nulls == "drop":
            failed.append((missing, f"{column} is null"))
        for mask, reason in failed:
            hit = rows[mask]
            hit = hit[[reasons[i] is None for i in hit]] if len(hit) else hit
            reasons[hit] = reason

    def _judge(self, table: pa.Table, sources: Any, reasons: Any) -> None:
        from longctx.filter.profiles import judge

        columns = ["h_windows", "language", *(f.name for f in _STATS)]
        for i, row in enumerate(table.select(columns).to_pylist()):
            name = self.profiles.get(sources[i], self.profile)
            if reasons[i] is None and name != "none":
                profile = _profile(name, tuple(sorted(self.bounds.items())))
                verdict = judge(row, row["h_windows"] or [], profile, row["language"])
                reasons[i] = None if verdict.keep else verdict.rule


@lru_cache(maxsize=64)
def _profile(name: str, bounds: tuple[tuple[str, float], ...]) -> Any:
    """A profile with the bounds that it has; bounds of other profiles do not concern it."""
    from longctx.filter.profiles import PROFILES

    profile = PROFILES[name]
    own = {rule.name for rule in (*profile.document, *profile.window)}
    return profile.with_bounds(**{k: v for k, v in bounds if k in own})
