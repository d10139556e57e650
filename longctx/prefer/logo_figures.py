"""What LOGO's rows (arXiv 2410.18533) must look like, all together.

From a few numbers a row: indices of the window that training rows reach against what uniform
offsets give, offsets by Kolmogorov-Smirnov, equally many chunks behind all three answers, answers
of comparable length, sound training rows. Ours; the paper reports none. A length that differs on
average is a cue that a trainer learns instead of the text. Positions are drawn again from the rows'
ids, linear in their tokens. Lost: what is said in the answers, which the triple's own checks saw.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longctx.prefer import logo_train
from longctx.prefer.logo import SYSTEM
from longctx.prefer.logo_calls import SIDES
from longctx.prefer.logo_positions import I64, Mode, coverage, expected_coverage, slots
from longctx.prefer.logo_train import Window
from longctx.prefer.pairs import histogram
from longctx.synth.checks import ks_uniform
from longctx.synth.draw import generator
from longctx.synth.rows import Row
from longctx.synth.words import count_words

Facts = dict[str, Any]

LEAST_ROWS = 50
_BELOW_EXPECTED = 0.02
_LENGTH_CUE = 1.25  # of mean words, chosen to rejected
_SHARE_ERRORS = 5.0
_RATIOS = (0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0)
_GAPS = (2.0, 3.0, 4.0, 6.0, 8.0)


def facts(row: Row) -> Facts:
    """The numbers of one row that the figures read."""
    tokens, window = row["tokens"], Window(**row["window"])
    made = logo_train.train_rows(row)
    return {
        "id": row["id"],
        "seed": row["seed"],
        "prefix": len(tokens["prefix"]),
        "lens": logo_train.lengths(tokens),
        "modes": row["modes"],
        "chunks": [len(row[f"{side}_chunks"]) for side in SIDES],
        "words": [count_words(row[side]) for side in ("chosen", "rejected", "rejected_2")],
        "gap": round(float(row["gap"]), 4),
        "problems": sorted({p for train in made for p in logo_train.sound(train, window)}),
        "has_gold": row["gold"] is not None,
    }


def figures(rows: Sequence[Mapping[str, Any]], window: Window) -> dict[str, Any]:
    """The checks by name, with `ok` (None: too few rows to tell) but for bare figures."""
    if not rows:
        return {}
    problems = Counter(p for r in rows for p in r["problems"])
    unequal = sum(len(set(r["chunks"])) > 1 for r in rows)
    return {
        "position_coverage": position_coverage(rows, window),
        "offsets": offsets(rows, window),
        "modes": modes(rows, window),
        "equal_chunks": {"unequal": unequal, "ok": unequal == 0},
        "answer_lengths": answer_lengths(rows),
        "relevance_gap": {"histogram": histogram([r["gap"] for r in rows], _GAPS)},
        "gold": {"with": sum(r["has_gold"] for r in rows), "rows": len(rows)},
        **agreement(rows),
        "sound_rows": {"problems": dict(sorted(problems.items())), "ok": not problems},
    }


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How named entities and content words rank the chunks alike, where entities are counted."""
    known = [r["agreement"] for r in rows if r.get("agreement") is not None]
    if not known:
        return {}
    mean = round(float(np.mean(known)), 4)
    return {"evaluators": {"tau_b": mean, "rows": len(known)}}


def _draws(
    rows: Sequence[Mapping[str, Any]], window: Window
) -> list[tuple[Mapping[str, Any], Mode, I64, list[I64]]]:
    """Of every training row its facts, mode, context indices and those of its chunks."""
    found = []
    for row in rows:
        for k in range(len(row["modes"])):
            args = (row["lens"], row["prefix"], row["id"], k, row["seed"], window)
            mode, places = logo_train.draw(*args)
            found.append((row, mode, places.context, places.chunks))
    return found


def position_coverage(rows: Sequence[Mapping[str, Any]], window: Window) -> dict[str, Any]:
    """Share of the window's indices that the rows reach, and what chunks in one piece would."""
    S = max(r["prefix"] for r in rows)
    drawn = _draws(rows, window)
    share = coverage([context for _, _, context, _ in drawn], S, window.Q, window.K)
    expected = expected_coverage([row["lens"] for row, *_ in drawn], S, window.Q, window.K)
    enough = len(drawn) >= LEAST_ROWS
    return {
        "rows": len(drawn),
        "share": round(share, 6),
        "expected": round(expected, 6),
        "ok": share >= expected - _BELOW_EXPECTED if enough else None,
    }


def offsets(rows: Sequence[Mapping[str, Any]], window: Window) -> dict[str, Any]:
    """Whether chunks of `continuous` rows stand anywhere in their slots, uniformly."""
    shares: list[float] = []
    for row, mode, _, chunks in _draws(rows, window):
        if mode != "continuous":
            continue
        borders = slots(len(row["lens"]), row["prefix"], window.Q, window.K)
        room = np.diff(borders) - row["lens"] + 1
        moved = [int(chunk[0]) for chunk in chunks] - borders[:-1]
        u = generator(row["seed"], SYSTEM, "figures", row["id"]).random(len(room))
        shares += ((moved + u) / room).tolist()
    if len(shares) < LEAST_ROWS:
        return {"n": len(shares), "ok": None}
    return dict(ks_uniform(shares, 0.0, 1.0))


def modes(rows: Sequence[Mapping[str, Any]], window: Window) -> dict[str, Any]:
    """Share of sparse training rows, within five standard errors of what is wanted."""
    drawn = [mode for row in rows for mode in row["modes"]]
    wanted = window.sparse_share if window.mode != "sparse" else 1.0
    share, n = drawn.count("sparse") / len(drawn), len(drawn)
    error = (wanted * (1 - wanted) / n) ** 0.5
    near = abs(share - wanted) <= _SHARE_ERRORS * error + 1e-9
    counts = dict(sorted(Counter(drawn).items()))
    return {"rows": counts, "wanted": wanted, "ok": near if n >= LEAST_ROWS else None}


def answer_lengths(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean words of the three answers; not ok where the chosen ones are much longer or shorter."""
    words = np.asarray([r["words"] for r in rows], dtype=np.float64)
    means = words.mean(axis=0)
    ratio = float(means[0] / max(means[1:].mean(), 1e-9))
    near = 1 / _LENGTH_CUE <= ratio <= _LENGTH_CUE
    each = (words[:, :1] / np.maximum(words[:, 1:], 1)).ravel().tolist()
    return {
        **{side: round(float(mean), 2) for side, mean in zip(SIDES, means, strict=True)},
        "ratio": round(ratio, 4),
        "histogram": histogram(each, _RATIOS),
        "ok": near if len(rows) >= LEAST_ROWS else None,
    }
