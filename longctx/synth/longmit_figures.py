"""What LongMIT's rows (arXiv 2409.01893) must look like, all together.

The checks of section 6 of the specification, from a few numbers a row: clues anywhere
(chi-squared, by documents and by tokens), links inside their bounds and on one path, limits of
tokens as they were drawn (Kolmogorov-Smirnov), answers that stand with their clues and not without
them; and the rates that a run is judged by, with the share that each is to reach.

What we changed: a drawn limit that clues and path exceed stands for all smaller ones, of which one
is drawn for the test. A question counts as a duplicate beside another of its path with as many
hops, or the same question anywhere: levels of a chain are alike by design. Linear in the rows, but
for one reading of each context (`left_out`). Lost: duplicates in other words on two paths.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from longctx.synth.checks import (
    chi2_uniform,
    contains_answer,
    depth_counts,
    ks_uniform,
    norm_answer,
    support,
)
from longctx.synth.draw import generator
from longctx.synth.longmit import LEAST_QUALITY, SYSTEM, quality_score
from longctx.synth.longmit_calls import LEAST_SUPPORT
from longctx.synth.longmit_path import Reply
from longctx.synth.longmit_rows import LEAST_LIMIT, Context, parse_response
from longctx.synth.rows import Row

Facts = dict[str, Any]

TARGET = 0.85  # of the rates
LEAST_SHARE = 0.9  # of rows, for checks that some sound rows may fail
_BINS = 10
_DIGITS = 6


def facts(
    row: Row, context: Context, path: Sequence[str], bounds: tuple[float, float], room: int
) -> Facts:
    """The numbers of one row that the checks read.

    `path` are the ids of its documents, `bounds` those of a link, `room` the most that a limit of
    tokens can be.
    """
    clues = context.clue_pos
    u = generator(row["seed"], SYSTEM, "figures", row["id"]).random(2 * len(clues) + 1).tolist()
    sizes = [placed.doc.n_tokens for placed in context.docs]
    starts = [0, *accumulate(sizes)]
    texts = {doc["doc_id"]: doc["text"] for doc in row["docs"]}
    own = {link["doc_id"] for link in row["chain"]}
    fixed = sum(placed.doc.n_tokens for placed in context.docs if placed.role != "random")
    return {
        "row": True,
        "path": row["path_id"],
        "type": row["type"],
        "hop": row["hop"],
        "sims": [link["sim"] for link in row["chain"] if link["sim"] is not None],
        "bounds": list(bounds),
        "one_path": own <= set(path),
        "n": len(sizes),
        "places": clues,
        "u": u[: len(clues)],
        "token_depths": [
            round((starts[at] + w * sizes[at]) / starts[-1], _DIGITS)
            for at, w in zip(clues, u[len(clues) : -1], strict=True)
        ],
        "limit": limit_share(context.token_limit, fixed, room, u[-1]),
        "context_tokens": starts[-1],
        "n_tokens": row["n_tokens"],
        "necessity": row["scores"]["necessity"],
        "support": min(support(link["a"], texts[link["doc_id"]]) for link in row["chain"]),
        "left_out": left_out(row),
        "question": norm_answer(row["question"]),
        "problems": row_problems(row, starts[-1]),
    }


def judged(reply: Reply, necessity: bool | None, passed: bool) -> Facts:
    """What the verifiers said of a candidate; only one that `passed` is asked for necessity."""
    return {
        "row": False,
        "quality": quality_score(reply),
        "good": quality_score(reply) > LEAST_QUALITY,
        "multihop": bool(reply["multihop"]),
        "necessity": necessity,
        "passed": passed,
    }


def limit_share(limit: int, fixed: int, room: int, u: float) -> float:
    """Where a limit lies in [4,096, room], in 0..1; u in [0, 1) picks one of what it stands for.

    A limit of `fixed` tokens (clues and path) stands for all that were drawn below.
    """
    drawn = limit - LEAST_LIMIT
    below, width = (0.0, drawn + 1.0) if limit == fixed else (float(drawn), 1.0)
    return round((below + u * width) / (room - LEAST_LIMIT + 1), _DIGITS)


def left_out(row: Row) -> bool:
    """Whether, without the clues, a short answer that is needed stands in no other document."""
    clues = set(row["clue_docs"])
    others = [doc["text"] for doc in row["docs"] if doc["doc_id"] not in clues]
    return any(not any(contains_answer(link["a"], t) for t in others) for link in row["chain"])


def row_problems(row: Row, context_tokens: int) -> list[str]:
    """What does not hold of a row by itself."""
    ids = [doc["doc_id"] for doc in row["docs"]]
    used = [link["doc_id"] for link in row["chain"]]
    distinct = {"single": 1, "intra": 1, "inter": row["hop"]}[row["type"]]
    said = parse_response(row["response"], row["lang"])
    whole = row["answer"] if row["hop"] == 1 else (row["reasoning"], row["answer"])
    holding = {
        "repeated_document": len(set(ids)) == len(ids),
        "clue_place": [ids[at] for at in row["clue_pos"]] == row["clue_docs"],
        "clue_documents": set(used) == set(row["clue_docs"]) and len(set(used)) == distinct,
        "hops": len(used) == row["hop"],
        "role": {d["doc_id"] for d in row["docs"] if d["role"] == "clue"} == set(row["clue_docs"]),
        "limit": context_tokens <= row["token_limit"],
        "round_trip": (row["response"] if row["hop"] == 1 else said) == whole,
    }
    return [name for name, holds in holding.items() if not holds]


def figures(rows: Sequence[Mapping[str, Any]], most: int) -> dict[str, Any]:
    """The checks by name, each with `ok` (None: too few rows to tell); empty without any.

    `most` is the bound of a whole row in tokens.
    """
    made = [r for r in rows if r["row"]]
    marked = [r for r in rows if not r["row"]]
    found = _rates(made, marked) if rows else {}
    return {**found, **_of_rows(made, most)} if made else found


def _rates(made: Sequence[Mapping[str, Any]], marked: Sequence[Mapping[str, Any]]) -> Facts:
    asked = [r["necessity"] for r in marked if r["passed"]]
    needed = [found for found in asked if found is not None]
    return {
        "multihop": _rate([r["multihop"] for r in marked]),
        "quality_passed": _rate([r["good"] for r in marked]),
        "necessary": {**_rate(needed), "unknown": len(asked) - len(needed)},
        "non_duplicate": _rate(_distinct(made)),
    }


def _distinct(made: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether each question is like none before it."""
    seen: set[str] = set()
    found = []
    for row in made:
        found.append(not row["duplicate"] and row["question"] not in seen)
        seen.add(row["question"])
    return found


def _rate(holds: Sequence[bool]) -> Facts:
    share = sum(holds) / len(holds) if holds else None
    ok = None if share is None else share >= TARGET
    return {"share": None if share is None else round(share, 4), "n": len(holds)} | {
        "target": TARGET,
        "ok": ok,
    }


def _of_rows(made: Sequence[Mapping[str, Any]], most: int) -> Facts:
    places = [(at, r["n"]) for r in made for at in r["places"]]
    spread = [u for r in made for u in r["u"]]
    depths = [d for r in made for d in r["token_depths"]]
    problems = Counter(problem for r in made for problem in r["problems"])
    tokens = [r["n_tokens"] for r in made]
    return {
        "hops": _hops(made),
        "links": _links(made),
        "clue_places": chi2_uniform(depth_counts(places, spread, _BINS)),
        "clue_depth": chi2_uniform(depth_counts([(0, 1)] * len(depths), depths, _BINS)),
        "token_limit": ks_uniform([r["limit"] for r in made], 0.0, 1.0),
        "contexts": _share([r["filled"] for r in made]),
        "row_tokens": {**_spread(tokens), "most": most, "ok": max(tokens) <= most},
        "support": _share([r["support"] >= LEAST_SUPPORT for r in made]),
        "leave_clues_out": _share([r["left_out"] for r in made]),
        "sound_rows": {"problems": dict(sorted(problems.items())), "ok": not problems},
    }


def _hops(made: Sequence[Mapping[str, Any]]) -> Facts:
    """How many rows there are of each kind and number of hops."""
    counts = Counter(f"{r['type']}-{r['hop']}" for r in made)
    sound = all((r["hop"] == 1) == (r["type"] == "single") and 1 <= r["hop"] <= 4 for r in made)
    return {"counts": dict(sorted(counts.items())), "ok": sound}


def _links(made: Sequence[Mapping[str, Any]]) -> Facts:
    """Whether questions that are linked are alike enough, not too much, and on one path."""
    listed = [(sim, r["bounds"]) for r in made for sim in r["sims"]]
    outside = sum(not lo <= sim <= hi for sim, (lo, hi) in listed)
    apart = sum(not r["one_path"] for r in made)
    found = {"links": len(listed), "outside": outside, "apart": apart}
    sims = _spread([sim for sim, _ in listed]) if listed else {}
    return {**found, **sims, "ok": outside == apart == 0 if listed else None}


def _share(holds: Sequence[bool]) -> Facts:
    share = sum(holds) / len(holds)
    return {"share": round(share, 4), "bound": LEAST_SHARE, "ok": share >= LEAST_SHARE}


def _spread(values: Sequence[float]) -> Facts:
    mean = round(sum(values) / len(values), 4)
    return {"min": min(values), "mean": mean, "max": max(values)}
