"""From single questions to chains, merged questions, and verdicts on them.

A path of LongMIT (arXiv 2409.01893) has some start questions; from each goes a chain across
documents and one inside its own. Chains are merged level by level, a level of all chains together,
and each level that is left is a candidate for a row: a judge marks it, and every clue of it must be
needed. All is made anew from documents, chains and replies, so no state is carried on.

What we changed: chains, and candidates, of the same questions as an earlier one of their path are
left out and counted. Inside a document a clue is the chunk of its question, and what must not
answer is the rest of the document: without the whole document nothing would be left to tell. Cost:
quadratic in the questions of a path for similarities, else linear. Lost: a candidate whose only
judgement failed (`judge_failed`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.synth.items import Item
from longctx.synth.longmit import (
    Link,
    Mode,
    SingleQA,
    build_chain,
    links,
    quality_score,
    start_questions,
)
from longctx.synth.longmit_calls import is_needed
from longctx.synth.longmit_path import (
    MERGE,
    NECESSITY,
    VERIFY,
    Path,
    Reply,
    Said,
    answered,
    asked,
    verdict_of,
)
from longctx.synth.longmit_rows import Merged, Scores, fold_merges, type_of

F64 = npt.NDArray[np.float64]
Kind = Literal["inter", "intra", "single"]
_DIGITS = 6
_ALIKE = 0.9
# Of similarities in [-1, 1], for bounds that are percentiles of them.
_PER_UNIT = 10_000
PERCENTILES = (60.0, 99.5)


class Chain(NamedTuple):
    """Questions of a path by their numbers, and how each came into the chain."""

    id: str
    kind: Kind
    elements: list[int]
    links: list[Link]


class Chains(NamedTuple):
    """The chains of a path, the questions that they start from, and how many were repeated."""

    starts: list[int]
    chains: list[Chain]
    repeated: int


class Candidate(NamedTuple):
    """A question of one or several hops that may become a row."""

    id: str
    used: list[SingleQA]
    links: list[Link]
    merged: Merged

    @property
    def hop(self) -> int:
        return len(self.used)


def similarities(X: npt.NDArray[np.float32]) -> F64:
    """Cosines of unit vectors float32[n, d], rounded so that no order of sums can be seen."""
    wide = X.astype(np.float64)
    found: F64 = (wide @ wide.T).round(_DIGITS)
    return found


def across(S: F64, doc: Sequence[object]) -> Counter[int]:
    """Similarities of questions of different documents in ten-thousandths, each pair once, counted.

    Counts of several paths can be added; `bounds_of` reads them.
    """
    numbers = np.unique([str(d) for d in doc], return_inverse=True)[1]
    rows, others = np.triu_indices(len(numbers), 1)
    apart = numbers[rows] != numbers[others]
    found = np.rint(S[rows[apart], others[apart]] * _PER_UNIT).astype(np.int64)
    at, counts = np.unique(found, return_counts=True)
    return Counter(dict(zip(at.tolist(), counts.tolist(), strict=True)))


def bounds_of(counts: Mapping[int, int]) -> tuple[float, float]:
    """`lo` and `hi` of links as percentiles of counted similarities, which must be some."""
    at = sorted(counts)
    total = np.cumsum([counts[one] for one in at])
    ranks = (np.ceil(p / 100 * total[-1]) for p in PERCENTILES)
    lo, hi = (at[int(np.searchsorted(total, rank))] / _PER_UNIT for rank in ranks)
    return lo, hi


def chains_of(
    path: Path,
    singles: Sequence[SingleQA],
    S: F64,
    seed: int,
    *,
    kinds: Sequence[Kind],
    mode: Mode,
    starts: int,
    max_hop: int,
    lo: float,
    hi: float,
) -> Chains:
    """Chains of at least two questions; `S` is (n, n), `mode` that of chains across documents."""
    doc = [single.doc_id for single in singles]
    first = start_questions(len(singles), seed, path.path_id, starts)
    found: dict[frozenset[int], Chain] = {}
    made = 0
    for start in first:
        for kind in ("inter", "intra"):
            if kind not in kinds:
                continue
            how: Mode = "intra" if kind == "intra" else mode
            elements = build_chain(start, S, doc, how, max_hop, lo, hi)
            if len(elements) < 2:
                continue
            made += 1
            chain = Chain(f"{path.path_id}/{kind}-{start}", kind, elements, links(elements, S, how))
            found.setdefault(frozenset(elements), chain)
    return Chains(first, list(found.values()), made - len(found))


def as_reply(chains: Chains) -> dict[str, Any]:
    """Chains as plain JSON values."""
    listed = [
        {**chain._asdict(), "links": [list(link) for link in chain.links]}
        for chain in chains.chains
    ]
    return {**chains._asdict(), "chains": listed}


def from_reply(reply: Reply) -> Chains:
    """Inverse of `as_reply`."""
    listed = [
        Chain(**{**chain, "links": [Link(*link) for link in chain["links"]]})
        for chain in reply["chains"]
    ]
    return Chains(list(reply["starts"]), listed, reply["repeated"])


def merge_step(hop: int) -> str:
    """The step that merges the question number `hop` of all chains."""
    return f"{MERGE}-{hop}"


def merge_items(
    hop: int, path: Path, singles: Sequence[SingleQA], chains: Chains, said: Said
) -> list[Item]:
    """What a level asks: every chain that is long enough and has all levels before."""
    found = []
    for chain in chains.chains:
        used = [singles[i] for i in chain.elements[:hop]]
        left = levels_of(chain, singles, said)
        if len(used) < hop or len(left) < hop - 1:
            continue
        found.append(
            asked(
                path,
                _level(chain, hop),
                "",
                question_1=left[hop - 2].question,
                answer_1=left[hop - 2].answer,
                question_2=used[-1].question,
                answer_2=used[-1].answer,
                shorts=[single.answer for single in used],
            )
        )
    return found


def levels_of(chain: Chain, singles: Sequence[SingleQA], said: Said) -> list[Merged]:
    """The questions of 1, 2, ... hops that were merged of a chain."""

    def merge(left: Merged, right: SingleQA, shorts: Sequence[str]) -> Merged | None:
        hop = len(shorts)
        reply = said.get(merge_step(hop), {}).get(_level(chain, hop))
        if reply is None:
            return None
        return Merged(*(reply[name].strip() for name in ("question", "answer", "reasoning")))

    return fold_merges([singles[i] for i in chain.elements], merge)


def _level(chain: Chain, hop: int) -> str:
    return f"{chain.id}/{hop}"


def single_candidates(path: Path, singles: Sequence[SingleQA], chains: Chains) -> list[Candidate]:
    """The start questions of a path by themselves."""
    found = []
    for start in sorted(chains.starts):
        one = singles[start]
        merged = Merged(one.question, one.answer, one.rationale)
        found.append(Candidate(f"{path.path_id}/single-{start}", [one], [Link(None, None)], merged))
    return found


def candidates_of(
    singles: Sequence[SingleQA], chains: Chains, said: Said
) -> tuple[list[Candidate], int]:
    """Merged questions, and how many were left out for others of the same single ones."""
    found: dict[frozenset[int], Candidate] = {}
    made = 0
    for chain in chains.chains:
        for hop, merged in enumerate(levels_of(chain, singles, said), 1):
            if hop == 1:
                continue
            made += 1
            used = [singles[i] for i in chain.elements[:hop]]
            one = Candidate(_level(chain, hop), used, chain.links[:hop], merged)
            found.setdefault(frozenset(chain.elements[:hop]), one)
    return list(found.values()), made - len(found)


def verify_items(path: Path, candidates: Iterable[Candidate]) -> list[Item]:
    """What the judge marks."""
    return [asked(path, one.id, "", **one.merged._asdict(), singles=one.used) for one in candidates]


def approved(
    path: Path, candidates: Sequence[Candidate], said: Said
) -> list[tuple[Candidate, Reply]]:
    """Candidates that the judge let pass, with its marks."""
    by_id = {one.id: one for one in candidates}
    return [
        (by_id[item.id], reply)
        for item, reply in answered(verify_items(path, candidates), said[VERIFY])
        if verdict_of(VERIFY, item, reply) is None
    ]


def other_texts(path: Path, candidate: Candidate, k: int) -> list[str]:
    """The clues of a candidate without that of question `k`; empty where nothing is left."""
    docs = {doc.doc_id: doc for doc in path.docs}
    mine = candidate.used[k]
    if type_of(candidate.used) == "intra":
        rest = docs[mine.doc_id].without(mine.chunk_id)
        return [rest] if rest.strip() else []
    others = dict.fromkeys(s.doc_id for s in candidate.used if s.doc_id != mine.doc_id)
    return [docs[doc_id].text for doc_id in others]


def necessity_items(path: Path, candidates: Iterable[Candidate]) -> list[Item]:
    """Each clue left out once, where something is left."""
    return [
        asked(
            path,
            f"{one.id}/{k}",
            "",
            question=one.merged.question,
            short=one.used[k].answer,
            texts=texts,
        )
        for one in candidates
        for k in range(one.hop)
        if (texts := other_texts(path, one, k))
    ]


def necessity_by_model(
    path: Path, candidate: Candidate, said: Said
) -> tuple[bool | None, str | None]:
    """Whether every clue is needed (None: nothing to tell by), or the code of its reject."""
    items = necessity_items(path, [candidate])
    replied = answered(items, said[NECESSITY])
    if any(verdict_of(NECESSITY, item, reply) is not None for item, reply in replied):
        return False, "clue_not_needed"
    if len(replied) < len(items):
        return None, "judge_failed"
    return (True, None) if items else (None, None)


def necessity_by_rule(path: Path, candidate: Candidate) -> tuple[bool | None, str | None]:
    """The same without a model: the facts of a short answer must stand in no other clue."""
    found = [
        is_needed(candidate.used[k].answer, texts)
        for k in range(candidate.hop)
        if (texts := other_texts(path, candidate, k))
    ]
    if False in found:
        return False, "clue_not_needed"
    return (True, None) if found and None not in found else (None, None)


def scores_of(reply: Reply | None, necessity: bool | None) -> Scores:
    """The scores of a row; without a judge's reply they are not known."""
    if reply is None:
        return Scores(None, None, necessity)
    return Scores(quality_score(reply), bool(reply["multihop"]), necessity)


def duplicates(X: npt.NDArray[np.float32], hops: Sequence[int]) -> list[bool]:
    """Which questions of a path are like an earlier one of as many hops: cosine of 0.9 or more.

    `X` float32[n, d] are their vectors; a question without a vector is like none.
    """
    S = similarities(X) if len(X) else np.zeros((0, 0))
    return [
        any(S[i, j] >= _ALIKE for j in range(i) if hops[j] == hops[i]) for i in range(len(hops))
    ]
