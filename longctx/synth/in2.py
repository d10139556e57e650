"""From replies to rows of IN2 training (arXiv 2404.16811), and what all rows must look like.

What the steps of `synth.in2` have said of a document is put together here. The checks are those of
section 8 of the specification: evidence anywhere (chi-squared of depth, in places and in tokens),
lengths spread evenly (Kolmogorov-Smirnov), pieces of one text neither kept together nor in order,
types in their shares, answers supported. Linear in the rows.

What we changed: a length is compared with the interval that its source leaves, [source, longest],
for a long source cannot have a short context; token depth counts pieces without the joins.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import factorial
from typing import Any, TypedDict, cast

from longctx.synth.checks import (
    adjacent_golds,
    chi2_shares,
    chi2_uniform,
    depth_counts,
    ks_uniform,
    support,
)
from longctx.synth.draw import generator
from longctx.synth.film import SYSTEM, Segment
from longctx.synth.film_calls import LEAST_SUPPORT
from longctx.synth.film_rows import JOIN, QA, placed_row, row_problems, short_row, used_pieces
from longctx.synth.items import Item
from longctx.synth.rows import Reject, Row
from longctx.synth.tokens import TokenCounter

SOURCES, FILLERS = "sources", "fillers"
FINE, INTEGRATION, VERIFY = "fine", "integration", "verify"
_BINS = 10
_FAIL_P = 1e-6
Facts = dict[str, Any]


class Source(TypedDict):
    """How a document is cut and asked: `kind` is fine or integration, `piece` what fine asks about.

    `spans` are characters of its pieces, `n_tokens` their tokens.
    """

    type: str
    kind: str
    piece: int
    spans: list[list[int]]
    n_tokens: list[int]
    cluster: str | None


def source_of(item: Item) -> Source:
    """What the step `sources` said of a document."""
    return cast(Source, item.replies[SOURCES])


def cut(item: Item, source: Source) -> list[Segment]:
    """The pieces of a document."""
    found = enumerate(zip(source["spans"], source["n_tokens"], strict=True))
    cluster, text = source["cluster"], item.text
    return [
        Segment(f"{item.id}#{k}", item.id, cluster, k, text[a:b], n) for k, ((a, b), n) in found
    ]


def used_of(pieces: Sequence[Segment], source: Source) -> list[Segment]:
    """The pieces that stand in the context of a row of its type."""
    return used_pieces(QA("", source["type"], "", "", [source["piece"]]), pieces)


def asked_of(item: Item) -> dict[str, Any]:
    """The reply that has question and answer."""
    return dict(item.replies[item.replies[SOURCES]["kind"]])


def row_of(item: Item, counter: TokenCounter, seed: int, most: int) -> Row | Reject:
    """The row of a document that has all replies and fillers; contexts of at most `most` tokens."""
    source, filled = source_of(item), item.replies[FILLERS]
    if "code" in filled:
        return Reject(filled["code"], filled["detail"])
    pieces, qa = cut(item, source), _qa(item, source)
    if source["type"] == "short":
        return short_row(qa, item.text, pieces, counter, seed, most)
    fillers = [Segment(**piece) for piece in filled["fillers"]]
    return placed_row(qa, pieces, fillers, filled["target"], counter, seed)


def _qa(item: Item, source: Source) -> QA:
    said = asked_of(item)
    fine = source["kind"] == FINE
    asked = [source["piece"]] if fine else sorted({k - 1 for k in said["needed"]})
    question, answer = said["question"].strip(), said["answer"].strip()
    return QA(item.id, source["type"], question, answer, asked, item.lang, item.source)


def facts(item: Item, row: Row) -> Facts:
    """What the checks read of a row."""
    source, filled = source_of(item), item.replies[FILLERS]
    own = cut(item, source)
    pieces = {s.seg_id: s for s in (*own, *(Segment(**p) for p in filled["fillers"]))}
    sizes = [pieces[s["seg_id"]].n_tokens for s in row["segments"]]
    starts = [0, *accumulate(sizes)]
    used, golds = used_of(own, source), row["gold_pos"]
    order = [pieces[row["segments"][pos]["seg_id"]].k for pos in golds]
    asked = [own[k].text for k in _qa(item, source).asked]
    is_short = row["type"] == "short"
    clusters = {s.doc_id: s.cluster_id for s in pieces.values() if s.cluster_id is not None}
    problems = [] if is_short else row_problems(row, lambda i: pieces[i].text, clusters)
    # Other pieces of the document would pass as its evidence.
    problems += ["gold_count"] if len(golds) != len(used) else []
    u = generator(seed=row["seed"], system=SYSTEM, stage="depth", row_id=row["id"]).random(2)
    start = starts[golds[0]] + float(u[1]) * sizes[golds[0]]
    return {
        "type": row["type"],
        "place": golds[0],
        "n": row["n_segments"],
        "u": float(u[0]),
        "token_depth": start / starts[-1],
        "golds": golds,
        "in_order": all(a < b for a, b in pairwise(order)),
        "source_tokens": sum(s.n_tokens for s in used),
        "context_tokens": row["context_tokens"],
        "target": row["target_len"],
        "support": round(support(row["answer"], JOIN.join(asked)), 4),
        "problems": problems,
    }


def figures(
    rows: Sequence[Facts],
    types: Mapping[str, float],
    lengths: tuple[int, int],
) -> dict[str, Any]:
    """The checks by name, each with `ok` (None: too few rows to tell); empty without rows.

    `types` are weights, `lengths` the shortest and the longest context.
    """
    if not rows:
        return {}
    fine = [r for r in rows if r["type"] == FINE]
    several = [r for r in rows if r["type"] == INTEGRATION]
    found: dict[str, Any] = {
        "depth": chi2_uniform(
            depth_counts([(r["place"], r["n"]) for r in fine], [r["u"] for r in fine], _BINS)
        ),
        "token_depth": chi2_uniform(_bins([r["token_depth"] for r in fine])),
        "adjacent": adjacent_golds([(r["n"], r["golds"]) for r in several])._asdict(),
        "order": _orders(several),
        "lengths": _lengths(rows, lengths[1]),
        "support": _least([r["support"] for r in rows], LEAST_SUPPORT),
        "rows": _problems(rows),
    }
    filled = [r for r in rows if r["target"] is not None]
    if filled and lengths[1] > lengths[0]:
        found["target_len"] = ks_uniform([_share(r, lengths) for r in filled], 0.0, 1.0)
    if sum(weight > 0 for weight in types.values()) > 1:
        counts = Counter(r["type"] for r in rows)
        found["types"] = {**counts} | chi2_shares([counts[t] for t in types], list(types.values()))
    return found


def _bins(shares: Sequence[float]) -> list[int]:
    counts = Counter(min(int(share * _BINS), _BINS - 1) for share in shares)
    return [counts[b] for b in range(_BINS)]


def _share(row: Facts, lengths: tuple[int, int]) -> float:
    """Where a target lies between the least that its source allows and the longest, in 0..1."""
    least = max(lengths[0], row["source_tokens"])
    return float((row["target"] - least + 0.5) / (lengths[1] - least + 1))


def _orders(rows: Sequence[Facts]) -> dict[str, Any]:
    """How often the pieces of a text kept their order: 1/m! of m pieces, as rare events are."""
    from scipy.stats import poisson

    expected = sum(1 / factorial(len(r["golds"])) for r in rows)
    kept = sum(r["in_order"] for r in rows)
    if not rows:
        return {"kept": 0, "expected": 0.0, "p": 1.0, "ok": None}
    p = float(min(poisson.sf(kept - 1, expected), poisson.cdf(kept, expected)))
    return {"kept": kept, "expected": expected, "p": p, "ok": p >= _FAIL_P}


def _lengths(rows: Sequence[Facts], most: int) -> dict[str, Any]:
    over = sum(r["context_tokens"] > (r["target"] or most) for r in rows)
    return {**_spread([r["context_tokens"] for r in rows]), "over": over, "ok": over == 0}


def _problems(rows: Sequence[Facts]) -> dict[str, Any]:
    counts = Counter(problem for r in rows for problem in r["problems"])
    return {"problems": dict(sorted(counts.items())), "ok": not counts}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    mean = round(sum(values) / len(values), 4)
    return {"min": min(values), "mean": mean, "max": max(values)}


def _least(values: Sequence[float], bound: float) -> dict[str, Any]:
    return {**_spread(values), "bound": bound, "ok": min(values) >= bound}
