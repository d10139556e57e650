"""`decide` on the engine: which documents go on, from the columns of earlier stages.

Bounds and profiles judge a row alone: one pass over the columns that they name. A rule of `keep`
compares rows, and what it takes from the whole set is small (`stages_cut.py`); every part then
judges its own rows. Nothing here reads a text, so another threshold computes no score again.
"""

from functools import lru_cache, partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import numbers
from longctx.filter.derived import DERIVED
from longctx.filter.rules import Bounds, Keep, check_keep
from longctx.filter.stages import STATS
from longctx.registry import did_you_mean

Rules = dict[str, Bounds]
ProfileName = Literal["none", "long_doc", "short_doc", "code"]
CLASS_COLUMNS = ("lw_C", "lw_H", "lw_X", "lw_class", "lw_weight")
NOTHING_BROUGHT = pa.schema([(ROW, pa.int32())])


class Decide(Barrier):
    """Drops rows by thresholds on columns of earlier stages; moving one recomputes no score.

    `rules` give columns inclusive bounds, as in `{n_tokens: {min: 64, max: 100000}}`, for all
    sources; `per_source` replaces them column by column for a source. `profile` (and
    `profiles` by source) applies the heuristic rules of `score.heuristics`; `bounds` moves their
    limits by rule name. Rows whose column is null are dropped unless `nulls: keep`.

    `keep` then compares the rows that are left, by a column or a derived score (longfilter,
    delta_ppl, longppl, prolong, ladm, longattn, longattn_released, gateau, wanjuan), inside their
    source or with `per: all` together: `{longfilter: {top: 0.2}}`. A rule has one of `top`,
    `top_tokens`, `min_quantile` and `max_quantile`, `band`, `threshold`, `budget_tokens`; its
    `per_source` changes fields for a source. Equal scores are kept in the order of their ids. With
    several scores a row must pass all, or `any` (`combine`).

    Derived scores are written as `cut_NAME`. Those that rank rows (wanjuan, some norms of gateau)
    need all rows in one process, which takes at most `one_place_up_to`.
    """

    op: Literal["decide"]
    rules: Rules = Field(default_factory=dict)
    per_source: dict[str, Rules] = Field(default_factory=dict)
    profile: ProfileName = "none"
    profiles: dict[str, ProfileName] = Field(default_factory=dict)
    bounds: dict[str, float] = Field(default_factory=dict)
    keep: dict[str, Keep] = Field(default_factory=dict)
    combine: Literal["all", "any"] = "all"
    nulls: Literal["drop", "keep"] = "drop"
    one_place_up_to: int = Field(5_000_000, ge=1)

    summary: ClassVar[str] = "drop rows by thresholds, keep the best by scores"
    source: ClassVar[str] = (
        "longctx; profiles: Gopher, C4, FineWeb; budget by shares: LADM 2503.02502"
    )
    cost: ClassVar[str] = (
        "reads only the columns it names; `keep`: three more passes over some 50 bytes a document"
    )
    neutral: ClassVar[frozenset[str]] = frozenset({"one_place_up_to"})
    writes: ClassVar[tuple[str, ...]] = (DROP_REASON,)
    removes: ClassVar[bool] = True

    @model_validator(mode="after")
    def _has_rules(self) -> "Decide":
        if not (self.rules or self.per_source or self._profile_names() or self.keep):
            raise ValueError("give at least one of rules, per_source, profile, profiles, keep")
        check_keep(self.keep)
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
        scores = {c for name in self.keep for c in self.score_columns(name)}
        tokens = {"n_tokens"} if any(k.needs_tokens() for k in self.keep.values()) else set()
        return tuple(sorted({*self.judged_columns(), *scores, *tokens}))

    def judged_columns(self) -> set[str]:
        """Columns that a row is judged by alone."""
        columns = {c for rules in (self.rules, *self.per_source.values()) for c in rules}
        if self._profile_names():
            columns |= {"h_windows", "language", *(f.name for f in STATS)}
        return columns

    def score_columns(self, name: str, more: bool = False) -> list[str]:
        """Columns that a score is made of; with `more` those that it can do without, too."""
        if name not in DERIVED:
            return [name]
        rule = self.keep[name]
        found: set[str] = set()
        for source in ("", *rule.per_source):
            form = DERIVED[name].form(rule.of(source).options(name))
            found |= {*form.columns, *(form.more if more else ())}
        return sorted(found)

    def writes_columns(self) -> tuple[str, ...]:
        made = [
            c
            for name in self.keep
            if name in DERIVED
            for c in (CLASS_COLUMNS if name == "wanjuan" else (f"cut_{name}",))
        ]
        return (*made, DROP_REASON)

    def alternatives(self, column: str) -> tuple[str, ...]:
        return tuple(DERIVED) if column in self.keep else ()

    def run(self, context: BarrierContext) -> None:
        if self.keep:
            from longctx.filter.stages_cut import cut

            cut(self, context)
            return
        rule = partial(_judged, self)
        columns = self.reads_columns()
        context.sidecar("", [], rule, NOTHING_BROUGHT, self.writes, columns=columns, removes=True)

    def judge(self, table: pa.Table) -> Any:
        """Why each row goes that is judged alone: object[n] of str or None."""
        reasons = np.full(table.num_rows, None, dtype=object)
        sources = np.array(table.column("source").to_pylist(), dtype=object)
        for source in sorted(set(sources)):
            rows = np.flatnonzero(sources == source)
            for column, bounds in {**self.rules, **self.per_source.get(source, {})}.items():
                self._bound(table, column, bounds, rows, reasons)
        if self._profile_names():
            self._profile(table, sources, reasons)
        return reasons

    def _bound(self, table: pa.Table, column: str, bounds: Bounds, rows: Any, reasons: Any) -> None:
        values = numbers(table.column(column), column, "decide")[rows]
        missing = np.isnan(values)
        failed: list[tuple[Any, str]] = []
        if bounds.min is not None:
            failed.append((values < bounds.min, f"{column} < {bounds.min:g}"))
        if bounds.max is not None:
            failed.append((values > bounds.max, f"{column} > {bounds.max:g}"))
        if self.nulls == "drop":
            failed.append((missing, f"{column} is null"))
        for mask, reason in failed:
            hit = rows[mask]
            hit = hit[[reasons[i] is None for i in hit]] if len(hit) else hit
            reasons[hit] = reason

    def _profile(self, table: pa.Table, sources: Any, reasons: Any) -> None:
        from longctx.filter.profiles import judge

        columns = ["h_windows", "language", *(f.name for f in STATS)]
        for i, row in enumerate(table.select(columns).to_pylist()):
            name = self.profiles.get(sources[i], self.profile)
            if reasons[i] is None and name != "none":
                profile = _profile_of(name, tuple(sorted(self.bounds.items())))
                verdict = judge(row, row["h_windows"] or [], profile, row["language"])
                reasons[i] = None if verdict.keep else verdict.rule


def _judged(op: Decide, base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    return pa.table({DROP_REASON: pa.array(op.judge(base).tolist(), pa.string())})


@lru_cache(maxsize=64)
def _profile_of(name: str, bounds: tuple[tuple[str, float], ...]) -> Any:
    """A profile with the bounds that it has; bounds of other profiles do not concern it."""
    from longctx.filter.profiles import PROFILES

    profile = PROFILES[name]
    own = {rule.name for rule in (*profile.document, *profile.window)}
    return profile.with_bounds(**{k: v for k, v in bounds if k in own})
