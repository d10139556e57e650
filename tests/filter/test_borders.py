"""Borders found in one place and in rounds of counting: the cut of `select`, on any division."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.filter.borders import Border, Known, border, share_percent, sorted_rows
from longctx.filter.cells import Cell, added, counted, divided, locate, order_keys, scores_of
from longctx.filter.cut import percent_rank, select, summary
from longctx.filter.narrow import Line, Mode, begun, refined

steady = settings(derandomize=True, deadline=None, max_examples=40)


@dataclass(frozen=True)
class Rows:
    """Rows of a corpus: finite scores, tokens, ids and groups."""

    scores: np.ndarray
    tokens: np.ndarray
    ids: list[str]
    groups: np.ndarray

    def take(self, index: Any) -> "Rows":
        index = np.asarray(index, dtype=np.int64)
        ids = [self.ids[i] for i in index]
        return Rows(self.scores[index], self.tokens[index], ids, self.groups[index])

    def of(self, group: str) -> "Rows":
        return self.take(np.flatnonzero(self.groups == group))


def corpus(scores: Iterable[float], groups: Iterable[str] | None = None, seed: int = 0) -> Rows:
    scores = np.array(list(scores), np.float64)
    n = len(scores)
    rng = np.random.default_rng(seed)
    # Ids share long beginnings, and one is the beginning of another.
    ids = [f"corpus/file-{i % 3}/{i:05d}" for i in range(n)]
    if n > 1:
        ids[1] = ids[0] + "-b"
    named = np.array(list(groups) if groups is not None else ["g"] * n, dtype=object)
    return Rows(scores, rng.integers(0, 9, n), ids, named)


def in_rounds(parts: list[Rows], modes: dict[str, Mode], limit: int) -> tuple[Any, Any, int]:
    """Lines whose cells hold few rows, the percents, and the rounds it took."""
    lines: dict[str, Line] = {}
    percents, rounds = (1, 100), 0
    while True:
        counts: dict[str, list[pa.Table]] = {g: [] for g in modes}
        for part in parts:
            for group, found in counts.items():
                own = part.of(group)
                cells = lines[group].cells if group in lines else [Cell()]
                found.append(
                    counted(
                        order_keys(own.scores), own.tokens, pa.array(own.ids, pa.string()), cells
                    )
                )
        made = {}
        for group, found in counts.items():
            rows = added(pa.concat_tables(found), []).to_pylist()
            old = lines.get(group)
            cells = divided(old.cells if old else [Cell()], rows)
            if old is None and cells:
                made[group] = begun(cells)
            elif old is not None:
                made[group] = Line(old.docs, old.tokens, cells, old.runs)
        lines, percents = refined(made, modes, percents)
        rounds += 1
        held = [c.docs for line in lines.values() for c in line.cells]
        if sum(held) <= limit or max(held, default=0) == 1:
            return lines, percents, rounds


def known_in(parts: list[Rows], lines: dict[str, Line]) -> dict[str, Known]:
    found = {}
    for group, line in lines.items():
        held = []
        for part in parts:
            own = part.of(group)
            inside = locate(order_keys(own.scores), pa.array(own.ids, pa.string()), line.cells) >= 0
            held.append(own.take(np.flatnonzero(inside)))
        ids = pa.array([i for h in held for i in h.ids], pa.string())
        scores = np.concatenate([h.scores for h in held])
        found[group] = sorted_rows(line, scores, np.concatenate([h.tokens for h in held]), ids)
    return found


def kept(rows: Rows, modes: dict[str, Mode], parts: int = 1, limit: int | None = None) -> Any:
    """The rows that are kept (bool), and what is known of every line."""
    order = np.random.default_rng(parts).permutation(len(rows.ids))
    divided_rows = [rows.take(order[i::parts]) for i in range(parts)]
    if limit is None:
        whole = {g: rows.of(g) for g in modes}
        lines = {
            g: begun([Cell(docs=len(w.ids), tokens=int(w.tokens.sum()))])
            for g, w in whole.items()
            if w.ids
        }
        percents = (1, 100)
    else:
        lines, percents, _ = in_rounds(divided_rows, modes, limit)
    known = known_in(divided_rows, lines)
    shares = {g: k for g, k in known.items() if modes[g].kind == "shares"}
    percent = (
        share_percent(shares, int(modes[next(iter(shares))].at[0]), percents) if shares else None
    )
    mask = np.zeros(len(rows.ids), bool)
    for group, line in known.items():
        own = np.flatnonzero(rows.groups == group)
        found = border(modes[group], line, percent)
        mask[own] = found.keeps(rows.scores[own], pa.array([rows.ids[i] for i in own], pa.string()))
    return mask, known


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
FEW = st.sampled_from([0.0, -0.0, 0.5, 0.25, 1.0, -3.0, 7e-310])
SCORES = st.one_of(
    st.lists(FEW, min_size=1, max_size=40), st.lists(FLOATS, min_size=1, max_size=40)
)
RANKS = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.75, 0.9, 1.0])
DIVISIONS = st.sampled_from([(1, None), (1, 3), (2, 10), (7, 0)])


def compare(rows: Rows, mode: Mode, division: tuple[int, int | None], **options: Any) -> None:
    groups = dict.fromkeys(np.unique(rows.groups.astype(str)), mode)
    mask, _ = kept(rows, groups, *division)
    expected = select(rows.scores, rows.ids, rows.groups, tokens=rows.tokens, **options)
    assert mask.tolist() == expected.tolist()


@steady
@given(SCORES, st.floats(0.001, 1), DIVISIONS)
def test_top_is_that_of_select(scores, top, division):
    compare(corpus(scores), Mode("top", (top,)), division, top_fraction=top)


@steady
@given(SCORES, st.integers(0, 200), DIVISIONS)
def test_top_tokens_are_those_of_select(scores, budget, division):
    compare(corpus(scores), Mode("top_tokens", (budget,)), division, top_tokens=budget)


@steady
@given(SCORES, st.integers(0, 200), DIVISIONS)
def test_shares_are_those_of_select(scores, budget, division):
    rows = corpus(scores, ["a", "b", "b"] * len(scores))
    rows = Rows(rows.scores, rows.tokens, rows.ids, rows.groups[: len(scores)])
    compare(rows, Mode("shares", (budget,)), division, top_percent_for_budget=budget)


@steady
@given(SCORES, RANKS, RANKS, DIVISIONS)
def test_a_band_is_that_of_select(scores, a, b, division):
    low, high = sorted((a, b))
    compare(corpus(scores), Mode("band", (low, high)), division, band=(low, high))


@steady
@given(SCORES, st.sampled_from(["ge", "gt", "le", "lt"]), FEW, DIVISIONS)
def test_a_threshold_is_that_of_select(scores, op, at, division):
    compare(corpus(scores), Mode("threshold", (at,), op), division, threshold=(op, at))


@steady
@given(SCORES, RANKS, RANKS, DIVISIONS)
def test_quantiles_are_numpys(scores, low, high, division):
    rows = corpus(scores)
    mask, known = kept(rows, {"g": Mode("quantiles", (low, high))}, *division)
    bounds = [known["g"].quantile(q) for q in (low, high)]
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.quantile(rows.scores, [low, high])
    np.testing.assert_array_equal(bounds, expected)
    assert mask.tolist() == ((rows.scores >= bounds[0]) & (rows.scores <= bounds[1])).tolist()


@pytest.mark.parametrize("division", [(1, None), (1, 5), (3, 40)])
def test_figures_of_a_line_are_those_of_its_summary(division):
    rng = np.random.default_rng(3)
    scores = np.where(rng.random(3000) < 0.4, 0.0, rng.standard_normal(3000).astype(np.float32))
    _, known = kept(corpus(scores), {"g": Mode("top", (0.2,))}, *division)
    expected = summary(scores)
    assert known["g"].line.docs == 3000
    for q in (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100):
        assert known["g"].quantile(q / 100) == expected[f"q{q}"]


def test_a_million_rows_are_few_after_two_rounds():
    rng = np.random.default_rng(0)
    scores = rng.lognormal(size=200_000).astype(np.float32).astype(np.float64)
    parts = [corpus(scores[i::4], seed=i) for i in range(4)]
    lines, _, rounds = in_rounds(parts, {"g": Mode("top", (0.2,))}, 200_000 // 50)
    assert rounds == 2
    assert sum(c.docs for c in lines["g"].cells) <= 4000


def test_equal_scores_are_divided_by_their_ids():
    rows = corpus([0.0] * 5000)
    parts = [rows.take(range(i, 5000, 3)) for i in range(3)]
    modes = {"g": Mode("top", (0.3,))}
    lines, _, rounds = in_rounds(parts, modes, 20)
    assert rounds < 8
    assert sum(c.docs for c in lines["g"].cells) <= 20
    # The score is known although few of its rows are at hand.
    known = known_in(parts, lines)["g"]
    assert known.run(4000) == (0.0, 0, 4999)
    last = border(modes["g"], known).last_id
    assert last == sorted(rows.ids)[1499]


def test_counts_of_a_part_are_bounded():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.standard_normal(50_000))
    keys, ids = order_keys(scores), pa.array([f"{i}" for i in range(50_000)])
    cells = [Cell(int(keys[i]), int(keys[i - 999])) for i in range(49_999, 0, -1000)]
    assert len(cells) == 50
    found = counted(keys, np.ones(50_000, np.int64), ids, cells)
    assert len(found) <= 4096
    assert sum(found["docs"].to_pylist()) == 50_000


@steady
@given(st.lists(FLOATS, min_size=2, max_size=20))
def test_keys_ascend_where_scores_descend(scores):
    keys = order_keys(scores)
    order = np.argsort(keys, kind="stable")
    assert (np.diff(np.array(scores)[order]) <= 0).all()
    np.testing.assert_array_equal(scores_of(keys), np.array(scores) + 0.0)


def test_zeros_are_equal():
    assert len(set(order_keys([0.0, -0.0]).tolist())) == 1


def test_verdicts_of_a_border():
    scores, ids = np.array([3.0, 2, 2, 1, math.nan]), pa.array(["d", "b", "a", "c", "e"])
    found = {
        name: Border(**fields).keeps(scores, ids).tolist()
        for name, fields in {
            "to": {"low": 2.0, "ties": "to", "last_id": "a"},
            "all": {"low": 2.0},
            "none": {"low": 2.0, "ties": "none"},
            "high": {"high": 2.0},
            "below": {"high": 2.0, "excludes": True},
            "open": {},
        }.items()
    }
    assert found == {
        "to": [True, False, True, False, False],
        "all": [True, True, True, False, False],
        "none": [True, False, False, False, False],
        "high": [False, True, True, True, False],
        "below": [False, False, False, True, False],
        "open": [True, True, True, True, False],
    }


def test_percent_ranks_of_places_are_those_of_scores():
    scores = [5.0, 1, 1, 3]
    _, known = kept(corpus(scores), {"g": Mode("all")})
    by_place = [known["g"].percent_rank(p) for p in range(4)]
    assert by_place == sorted(percent_rank(scores).tolist(), reverse=True)


def test_a_row_that_was_not_asked_for_is_not_made_up():
    rows = corpus([0.0] * 500)
    lines, *_ = in_rounds([rows], {"g": Mode("top", (0.5,))}, 10)
    with pytest.raises(LookupError, match="place 3 "):
        known_in([rows], lines)["g"].row(3)
