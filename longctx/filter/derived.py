"""Scores that are made of columns when rows are cut: the table of their names, and their formulas.

A scorer writes raw values; what compares a row with the others of its group (z-scores, ranks) is
done here, at the cut, so another weight or another norm reads no text again. A score is null where
one of its columns is. What a formula must know of its group decides what a cut costs:

- nothing ("row"): longfilter (LongFilter, ICLR 2026), delta_ppl, longppl (2410.23771), prolong
  (2405.17915), ladm (2503.02502): one column under the name of its method;
- moments or extent of its columns ("spread"), sums that parts can add: longattn (2502.16860,
  z(DS) - alpha·z(Var)) and longattn_released (the min-max of its code), gateau (2410.15633,
  alpha·z(HMG) + (1 - alpha)·z(CAS), HMG as the difference of log-perplexities, which is ours);
- all rows ("group"): the ranks of wanjuan (LongWanjuan, 2402.13583), and the norms of gateau that
  rank or take a softmax. The numbers that tell wanjuan's classes apart are ours: the paper sets
  them by looking, and publishes none.

Infinite values count as null: they say that a score could not be computed. O(n), ranks O(n log n).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.filter.cut import F64, Moments, extent, minmax, moments, percent_rank, zscore
from longctx.filter.exact import exact_sums

Columns = Mapping[str, F64]
Options = Mapping[str, Any]


class Spread(NamedTuple):
    """What is known of a column over a whole group: moments, smallest and largest value."""

    moments: Moments
    low: float
    high: float


Known = Mapping[str, Spread]


class Form(NamedTuple):
    """A formula: the columns it reads (`more` where there are such), what it must know, itself."""

    columns: tuple[str, ...]
    needs: Literal["row", "spread", "group"]
    score: Callable[[Columns, Known, Options], F64]
    more: tuple[str, ...] = ()


class Derived(NamedTuple):
    """A name that `decide` knows: its options with their defaults, and the formula they choose."""

    form: Callable[[Options], Form]
    options: Options
    per: Literal["source", "all"] = "source"


def spread_of(x: npt.ArrayLike) -> Spread:
    """What is known of a column from all its values."""
    return Spread(moments(x), *extent(x))


def derive(name: str, columns: Columns, known: Known | None = None, **options: Any) -> F64:
    """A score by its name for rows of one group, float64, NaN where it is null.

    `known` is what the whole group says of each column; without it the rows are the whole group.
    Options are those of the table. Raises KeyError for a name or a column that is not there.
    """
    entry = DERIVED[name]
    chosen = {**entry.options, **options}
    form = entry.form(chosen)
    finite = {n: _finite(columns[n]) for n in (*form.columns, *form.more) if n in columns}
    if known is None and form.needs == "spread":
        known = {n: spread_of(finite[n]) for n in form.columns}
    return form.score(finite, known or {}, chosen)


def _finite(x: npt.ArrayLike) -> F64:
    values = np.asarray(x, np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _column(name: str) -> Derived:
    form = Form((name,), "row", lambda columns, known, options: columns[name])
    return Derived(lambda options: form, {})


# LongAttn


def _longattn(columns: Columns, known: Known, options: Options) -> F64:
    ds, var = (zscore(columns[n], known[n].moments) for n in ("la_ds", "la_var"))
    return np.asarray(ds - options["alpha"] * var)


def _longattn_released(columns: Columns, known: Known, options: Options) -> F64:
    ds, var = (minmax(columns[n], known[n][1:]) for n in ("la_ds", "la_var"))
    return np.asarray(ds - options["alpha"] * var)


# GATEAU


def _gateau(options: Options) -> Form:
    """By `norm`: z or rank of HMG, which is a difference or (`z_each`) one of z-scores; softmax."""
    if options["norm"] in ("paper_softmax", "released"):
        return Form(("ga_nll_a", "ga_nll_b", "ga_cas"), "group", _gateau_softmax)
    if options["hmg"] == "z_each":
        return Form(("ga_nll_a", "ga_nll_b", "ga_cas"), "group", _gateau_each)
    needs: Literal["spread", "group"] = "spread" if options["norm"] == "z" else "group"
    return Form(("ga_hmg", "ga_cas"), needs, _gateau_difference)


def _gateau_difference(columns: Columns, known: Known, options: Options) -> F64:
    hmg, cas = columns["ga_hmg"], columns["ga_cas"]
    if options["norm"] == "rank":
        return _mixed(percent_rank(hmg), percent_rank(cas), options)
    moments_of = {n: s.moments for n, s in known.items()}
    return _mixed(zscore(hmg, moments_of["ga_hmg"]), zscore(cas, moments_of["ga_cas"]), options)


def _gateau_each(columns: Columns, known: Known, options: Options) -> F64:
    normed = percent_rank if options["norm"] == "rank" else zscore
    return _mixed(normed(hmg_of_each(columns)), normed(columns["ga_cas"]), options)


def hmg_of_each(columns: Columns) -> F64:
    """HMG with both models' log-perplexities z-scored first: z(ln PPL_A) - z(ln PPL_B)."""
    return np.asarray(zscore(columns["ga_nll_a"]) - zscore(columns["ga_nll_b"]))


def _gateau_softmax(columns: Columns, known: Known, options: Options) -> F64:
    a, b = (minmax(np.exp(columns[n])) for n in ("ga_nll_a", "ga_nll_b"))
    cas = columns["ga_cas"]
    own = _softmax(cas) if options["norm"] == "paper_softmax" else cas
    return _mixed(_softmax(a - b), own, options)


def _softmax(x: F64) -> F64:
    powers = np.exp(x - np.nanmax(x, initial=-np.inf))
    return np.asarray(powers / (exact_sums(powers).total or 1.0))


def _mixed(first: F64, second: F64, options: Options) -> F64:
    """alpha · first + (1 - alpha) · second; a part without weight may be null."""
    alpha = options["alpha"]
    if alpha in (0, 1):
        return first if alpha else second
    return np.asarray(alpha * first + (1 - alpha) * second)


# LongWanjuan

HOLISTIC, AGGREGATED, CHAOTIC = CLASSES = ("holistic", "aggregated", "chaotic")


class Wanjuan(NamedTuple):
    """Coherence C, cohesion H and complexity X as ranks in [0, 1], the class, and its weight.

    Arrays of n rows: float64 (NaN is null), the class as str or None.
    """

    C: F64
    H: F64
    X: F64
    name: npt.NDArray[np.object_]
    weight: F64


def wanjuan(columns: Columns, **options: Any) -> Wanjuan:
    """Ranks and classes of all rows of one group.

    C is the rank of the mean rank of accuracy with a long context and of its gain over a short one,
    H that of pronouns, connectives and, where a row has it, `lw_dmr`; X is the rank of the ratio of
    distinct tokens. Low is below `p_lo`, high from `p_hi` on, extreme X outside `x_lo` … `x_hi`.
    """
    chosen = {**DERIVED["wanjuan"].options, **options}
    found = {n: _finite(x) for n, x in columns.items()}
    coherence = [percent_rank(found[n]) for n in ("lw_acc_long", "lw_acc_diff")]
    cohesion = [percent_rank(found[n]) for n in ("lw_pron_rate", "lw_conn_rate")]
    H = sum(cohesion) / 2
    if "lw_dmr" in found:
        dmr = percent_rank(found["lw_dmr"])
        H = np.where(np.isnan(dmr), H, (sum(cohesion) + dmr) / 3)
    ranks = (percent_rank(sum(coherence) / 2), percent_rank(H), percent_rank(found["lw_ttr_win"]))
    names = classes_of(*ranks, chosen)
    weight = np.array([chosen["weights"].get(n, np.nan) for n in names], np.float64)
    return Wanjuan(*ranks, names, weight)


def classes_of(c: F64, h: F64, x: F64, options: Options) -> npt.NDArray[np.object_]:
    """The class of each row from its ranks C, H and X; None where one is null."""
    extreme = (x < options["x_lo"]) | (x > options["x_hi"])
    low = (c < options["p_lo"]) & (h < options["p_lo"]) & extreme
    high = (c >= options["p_hi"]) & (h >= options["p_hi"]) & ~extreme
    names = np.select([low, high], [CHAOTIC, HOLISTIC], AGGREGATED).astype(object)
    names[np.isnan(c) | np.isnan(h) | np.isnan(x)] = None
    return names


_WANJUAN = Form(
    ("lw_acc_long", "lw_acc_diff", "lw_pron_rate", "lw_conn_rate", "lw_ttr_win"),
    "group",
    lambda columns, known, options: wanjuan(columns, **options).C,
    ("lw_dmr",),
)
_ATTENTION = ("la_ds", "la_var")

DERIVED: dict[str, Derived] = {
    "longfilter": _column("lf_score"),
    "delta_ppl": _column("dnll_mean"),
    "longppl": _column("lp_key_share"),
    "prolong": _column("pl_lds_per_pair"),
    "ladm": _column("ld_cds"),
    "longattn": Derived(lambda options: Form(_ATTENTION, "spread", _longattn), {"alpha": 0.5}),
    "longattn_released": Derived(
        lambda options: Form(_ATTENTION, "spread", _longattn_released), {"alpha": 0.5}
    ),
    "wanjuan": Derived(
        lambda options: _WANJUAN,
        {
            "classes": (HOLISTIC, AGGREGATED),
            "weights": {HOLISTIC: 1.0, AGGREGATED: 2.0, CHAOTIC: 0.0},
            "p_lo": 0.05,
            "p_hi": 0.10,
            "x_lo": 0.02,
            "x_hi": 0.98,
        },
    ),
    "gateau": Derived(_gateau, {"alpha": 0.8, "norm": "z", "hmg": "log_difference"}, "all"),
}
