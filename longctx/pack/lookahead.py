"""How far the window packer looks ahead, and by which rule: chosen by measuring (ours).

Looking ahead fills windows and pulls documents out of their order. What that costs depends on the
data: with 100 documents a window nothing, with six documents of weakly clustered text a quarter of
the coherence. Planning needs no tokens and takes a second for 20,000 documents, so the packer plans
the whole order with each rule and look-ahead and measures the plans. The worth of a plan is its
fill times its token-weighted coherence; plans that are less than 98 % as full as windows can be do
not count (unless none is fuller). Coherence beyond that of the order itself is no merit, and
`weighed` must be worth .01 more than `first`: an order that follows something else than the
vectors, a random one above all, is packed as it is.

Token-weighted coherence / fill at 8,192 tokens along the path; concat cuts 14 % of the documents
that fit a window, the others none:

                        hier 20,000     flat 20,000     wiki2
    concat              .696 / .9998    .488 / .9998    .405 / .9994
    first, 64           .651 / .9956    .446 / .9956    .313 / .9954
    first, 512          .649 / .9977    .443 / .9974    .314 / .9974
    weighed, 64         .679 / .9950    .465 / .9956    .345 / .9944
    weighed, 512        .677 / .9971    .464 / .9971    .391 / .9944
    chosen              weighed, 64     weighed, 64     weighed, 512
    (weighed, 1,024     .679 / .9974    .464 / .9971    .409 / .9915, at twice the time)

What is lost: `weighed` looks for its like up to 512 pieces ahead, so a window holds fewer direct
neighbours of the tour; where they matter for another reason (files of one repository), set the rule
`first`. Without vectors only fill can be measured: the shortest look-ahead at which windows are
99 % as full as they can be, by the rule `first`. Costs one plan for each candidate: O(documents x
512 x d) operations; 4 d bytes a document for the vectors.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from longctx.pack.concat import pack_concat
from longctx.pack.frame import I32, I64, Plan
from longctx.pack.plan import plan_windows
from longctx.pack.similarity import F32, coherence

AUTO = "auto"
LOOK_AHEADS = (64, 512)
RULES = ("first", "weighed")
LEAST_FILL = 0.98
LEAST_FILL_BLIND = 0.99
LEAST_GAIN = 0.01


@dataclass(frozen=True)
class Candidate:
    """A rule and a look-ahead, and what the plan with them is worth.

    `fill` is the share of the window positions that hold a token, `fullness` the fewest windows
    possible over those planned, `coherence` token-weighted, None without vectors.
    """

    rule: str
    look_ahead: int
    windows: int
    fill: float
    fullness: float
    coherence: float | None


def plan_look_ahead(
    lengths: I64,
    tour: I32,
    length: int,
    *,
    rule: str = AUTO,
    look_ahead: int | str = AUTO,
    vectors: F32 | None = None,
    **options: Any,
) -> tuple[Plan, dict[str, Any]]:
    """The best plan among the candidates that `rule` and `look_ahead` leave open, and why.

    Documents, lengths and `options` as for `pack_window`. The second value holds the candidate
    chosen, all that were tried, and the coherence of the order itself (concat) with the share of
    it that was kept: plain values. With a rule and a look-ahead given there is one candidate.
    """
    blind = ("first",) if vectors is None else RULES
    rules = blind if rule == AUTO else (rule,)
    looks = LOOK_AHEADS if look_ahead == AUTO else (int(look_ahead),)
    order = None
    if vectors is not None:
        shared = {k: options[k] for k in ("cross_tours", "long_documents") if k in options}
        order = coherence(pack_concat(lengths, tour, length, **shared).placement, vectors) or 0.0
    tried: list[Candidate] = []
    best: Plan | None = None
    for name, look in product(rules, looks):
        plan = plan_windows(
            *("window", lengths, tour, length),
            **(options | {"rule": name, "look_ahead": look, "vectors": vectors}),
        )
        tried.append(_measure(plan, name, look, length, vectors))
        if choose(tried, order) is tried[-1]:
            best = plan
    assert best is not None
    chosen = choose(tried, order)
    kept = chosen.coherence / order if order and chosen.coherence is not None else None
    report = {
        **asdict(chosen),
        "coherence_of_order": order,
        "coherence_kept": kept,
        "tried": [asdict(c) for c in tried],
    }
    return best, report


def choose(tried: Iterable[Candidate], order: float | None) -> Candidate:
    """The candidate to keep: see the module's docstring. Earlier ones win ties.

    `order` is the coherence of the order itself, None without vectors.
    """
    candidates = list(tried)
    least = LEAST_FILL_BLIND if order is None else LEAST_FILL
    full = [c for c in candidates if c.fullness >= least]
    if not full:
        return max(candidates, key=lambda c: c.fullness)
    if order is None:
        return full[0]
    worth = {c: c.fill * min(c.coherence or 0.0, order) for c in full}
    best = max(full, key=worth.__getitem__)
    plain = [c for c in full if c.rule == "first"]
    nearest = max(plain, key=worth.__getitem__, default=best)
    return best if worth[best] - worth[nearest] >= LEAST_GAIN else nearest


def _measure(plan: Plan, rule: str, look: int, length: int, vectors: F32 | None) -> Candidate:
    placement = plan.placement
    windows = int(placement.window[-1]) + 1 if len(placement.window) else 0
    fewest = -(-placement.tokens // length)
    found = None if vectors is None else coherence(placement, vectors) or 0.0
    fill = placement.tokens / (windows * length) if windows else 1.0
    return Candidate(rule, look, windows, fill, fewest / windows if windows else 1.0, found)
