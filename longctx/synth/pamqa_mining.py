"""Between retrievers and rows of PAM QA (arXiv 2311.09198): passages, ranks and random documents.

A document stands in a prompt as its first passage, whole sentences up to a number of tokens: so
twenty fit into a prompt, and a gold does not stick out by its length. Each part of the corpus gives
the best documents of each question among its own; the best of all are among them, and ties go to
the smaller id, so parts change nothing. Random documents are drawn without repetition from a pool.

Ours, all of it: the paper retrieves paragraphs that are there. Lost: what stands behind the first
passage of a document. Cost: the beginning of each text is tokenised once.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.synth.draw import generator
from longctx.synth.pamqa import SYSTEM
from longctx.synth.pamqa_negatives import fuse
from longctx.synth.tokens import TokenCounter
from longctx.text.sentences import sentence_spans

I64 = npt.NDArray[np.int64]

_CHARS_A_TOKEN = 16


def first_passage(text: str, counter: TokenCounter, most: int | None) -> str:
    """The first whole sentences of a text, at most `most` tokens of them; None takes all.

    A first sentence that is longer is cut at its last blank, or between two characters.
    """
    text = text.strip()
    if most is None:
        return text
    size = most * _CHARS_A_TOKEN
    while True:
        head = text[:size]
        offsets = counter.encode(head).offsets
        # The last token of a head may be half a word.
        if len(offsets) > most + 1 or len(head) == len(text):
            break
        size *= 4
    if len(offsets) <= most:
        return text
    limit = int(offsets[most])
    # Blanks behind a sentence belong to its span and to the next token.
    spans = sentence_spans(head)
    ends = [end for start, end in spans if start + len(head[start:end].rstrip()) <= limit]
    if not ends:
        ends = [len(head[:limit].rstrip().rpartition(" ")[0]) or limit]
    return head[: ends[-1]].rstrip()


def best(hits: pa.Table, k: int) -> pa.Table:
    """The k best hits of every question and retriever.

    `hits` has question, kind, score and doc_id; sorted by these, scores falling.
    """
    order = [("question", "ascending"), ("kind", "ascending"), ("score", "descending")]
    table = hits.sort_by([*order, ("doc_id", "ascending")]).combine_chunks()
    question, kind = (table.column(c).to_numpy() for c in ("question", "kind"))
    begins = np.ones(table.num_rows, dtype=np.bool_)
    begins[1:] = (question[1:] != question[:-1]) | (kind[1:] != kind[:-1])
    starts = np.flatnonzero(begins)
    rank = np.arange(table.num_rows) - np.repeat(starts, np.diff(np.append(starts, table.num_rows)))
    return table.filter(pa.array(rank < k))


def speaks(lang: str | None, wanted: str) -> bool:
    """Whether a document can stand beside a question: of its language, or of none that is known."""
    return lang is None or lang == wanted


def fused(hits: pa.Table, lang: str) -> list[int]:
    """The hits of one question, sorted as `best` leaves them, in fused order: rows of `hits`."""
    ids, langs = hits.column("doc_id").to_pylist(), hits.column("lang").to_pylist()
    rankings: dict[int, list[str]] = {}
    for doc_id, kind, spoken in zip(ids, hits.column("kind").to_pylist(), langs, strict=True):
        if speaks(spoken, lang):
            rankings.setdefault(kind, []).append(doc_id)
    row = {doc_id: i for i, doc_id in enumerate(ids)}
    return [row[doc_id] for doc_id in fuse(rankings.values())]


def pools(langs: Sequence[str | None], wanted: Sequence[str]) -> Mapping[str, I64]:
    """Places in a pool of the documents that can stand beside questions, by language."""
    return {
        lang: np.array([i for i, spoken in enumerate(langs) if speaks(spoken, lang)], np.int64)
        for lang in wanted
    }


def drawn(seed: int, row_id: str, places: I64, n: int) -> list[int]:
    """`n` of the places, or all, uniformly without repetition, in the order of their draws."""
    rng = generator(seed, SYSTEM, "pool", row_id)
    found = rng.permutation(places) if n >= len(places) else rng.choice(places, n, replace=False)
    return [int(i) for i in found]


def hash_bound(documents: int, wanted: int) -> int:
    """The largest uint64 hash of about `wanted` of so many documents; all have one below it."""
    return 2**64 - 1 if documents <= wanted else int(wanted / documents * 2**64)
