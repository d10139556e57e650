"""BM25 on the engine: words counted per part, shards of documents indexed, blocks of queries asked.

Documents are taken in the order of the parts, so neither texts nor lists of words are shuffled;
what is retrieved is told by number, and how shards are cut changes no score (`bm25.py`). A worker
holds one index, the vocabulary and the words of one part; the words of all parts, as stored, are
a quarter of the size of the text.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import PART, as_binary, from_binary
from longctx.engine.steps import Stats, StepRef, read_table

if TYPE_CHECKING:
    from longctx.order.bm25 import Vocabulary

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Range = tuple[int, int]

_QUERY_BLOCK = 4096
_COUNTED = pa.schema(
    [
        ("length", pa.int64()),
        ("words", pa.large_list(pa.uint64())),
        ("counts", pa.large_list(pa.int32())),
        ("asked", pa.large_list(pa.int32())),
    ]
)


class BM25(NamedTuple):
    """How to retrieve; the names are those of the fields of `order.splice`."""

    query_tokens: int
    k1: float
    b: float
    max_df: float
    k_search: int
    shard_documents: int


def retrieve(
    context: BarrierContext, numbered: StepRef, how: BM25, fields: Iterable[str]
) -> StepRef:
    """Steps that find the best `k_search` documents of each shard for every document.

    `numbered` is the table of documents, `fields` those of the op, which each step ignores but for
    what it reads. For `merged`.
    """

    def unread(*read: str) -> set[str]:
        return set(fields) - {"op", *read}

    n = numbered.rows
    counting = partial(count_part, how.query_tokens, None)
    words = context.per_part("words", counting, ["text"], ignore=unread("query_tokens"))
    known = context.single(
        "vocabulary",
        partial(weigh_words, words, n, how.max_df, 2),
        [words],
        ignore=unread("query_tokens", "max_df"),
    )
    weighing = ("query_tokens", "max_df", "k1", "b")
    shards = _ranges(n, how.shard_documents)
    mean = context.step_stats["words"].get("occurrences", 0) / max(1, n)
    index = context.spread(
        "postings",
        partial(_index, numbered, words, known, mean, how),
        shards,
        [numbered, words, known],
        ignore=unread(*weighing),
    )
    tasks = [
        (queries, shard, i)
        for queries in _ranges(n, _QUERY_BLOCK)
        for i, shard in enumerate(shards)
    ]
    return context.spread(
        "retrieved",
        partial(_search, numbered, words, known, index, how.k_search),
        tasks,
        [numbered, words, known, index],
        ignore=unread(*weighing, "k_search"),
    )


def merged(numbered: StepRef, retrieved: StepRef, k: int) -> I32:
    """What each document retrieves from all shards, best first; int32[n, k], -1 at the end."""
    from longctx.cluster.knn import merge_lists

    lists = np.full((numbered.rows, k), -1, dtype=np.int32)
    scores = np.full(lists.shape, -np.inf, dtype=np.float32)
    for ref in retrieved.files:
        table = read_table(retrieved.run_dir, ref)
        at = table.column("number").to_numpy()
        more = from_binary(table.column("retrieved"), np.int32)
        more_scores = from_binary(table.column("scores"), np.float32)
        lists[at], scores[at] = merge_lists((lists[at], scores[at]), (more, more_scores), k)
    return lists


def numbers_by_place(numbered: StepRef) -> I64:
    """The number of each document, in the order of the parts and of the rows there; int64[n]."""
    ref = next(f for f in numbered.files if f.name.endswith(".parquet"))
    table = read_table(numbered.run_dir, ref, [PART, ROW])
    part, row = (table.column(c).to_numpy() for c in (PART, ROW))
    return np.lexsort((row, part)).astype(np.int64)


def _ranges(n: int, size: int) -> list[Range]:
    return [(i, min(i + size, n)) for i in range(0, n, size)]


def _rows(step: StepRef, rows: Range, columns: list[str]) -> pa.Table:
    """Rows of a step over parts, counted over all its files; only files that hold some are read."""
    found, at = [], 0
    for ref in step.files:
        low, high = max(rows[0] - at, 0), min(rows[1] - at, ref.rows)
        if low < high:
            found.append(read_table(step.run_dir, ref, columns).slice(low, high - low))
        at += ref.rows
    return pa.concat_tables(found).combine_chunks()


def flat(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """The values of a list column, row after row."""
    return pa.chunked_array(
        [c.flatten() for c in table.column(name).chunks], table.schema.field(name).type.value_type
    ).to_numpy()


def bounds(table: pa.Table, name: str) -> I64:
    """Where the list of each row begins and ends in `flat`; int64[rows + 1]."""
    return _offsets(pc.list_value_length(table.column(name)).to_numpy())


def _offsets(sizes: npt.ArrayLike) -> I64:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)])


def count_part(
    query_words: int, shown: Callable[[str], str] | None, part: Part, setting: Setting
) -> pa.Table:
    """The distinct words of each document of a part, their counts, and what it asks.

    With `shown` the words of what it makes of a text are counted.
    """
    from longctx.order.bm25 import count_words

    found = [_COUNTED.empty_table()]
    occurrences = 0
    for table in part.groups(["text"]):
        texts = table.column("text").to_pylist()
        if not texts:
            continue
        counted = [count_words(shown(t) if shown else t, query_words) for t in texts]
        lengths = [int(c.counts.sum(dtype=np.int64)) for c in counted]
        ends = pa.array(_offsets([len(c.words) for c in counted]))
        lists = [
            pa.LargeListArray.from_arrays(ends, pa.array(np.concatenate(values)))
            for values in zip(*counted, strict=True)
        ]
        found.append(pa.table([pa.array(lengths, pa.int64()), *lists], schema=_COUNTED))
        occurrences += sum(lengths)
    return Stats.attach(pa.concat_tables(found), {"occurrences": occurrences})


def weigh_words(
    words: StepRef, n: int, max_df: float, least_df: int, setting: Setting
) -> dict[str, Any]:
    """The vocabulary of n documents whose words were counted; see `bm25.vocabulary`."""
    from longctx.order.bm25 import document_frequencies, vocabulary

    def of_parts() -> Iterator[npt.NDArray[np.uint64]]:
        for ref in words.files:
            yield flat(read_table(words.run_dir, ref, ["words"]), "words")

    found, df = document_frequencies(of_parts())
    known = vocabulary(found, df, n, max_df, least_df)
    table = pa.table({"word": known.words, "idf": known.idf})
    figures = {"words": len(found), "words_indexed": len(known.words)}
    return {"vocabulary.parquet": Stats.attach(table, figures)}


def load_vocabulary(known: StepRef) -> "Vocabulary":
    """The vocabulary that `weigh_words` wrote."""
    from longctx.order.bm25 import Vocabulary

    table = known.read()
    return Vocabulary(*(table.column(c).to_numpy() for c in ("word", "idf")))


def _index(
    numbered: StepRef,
    words: StepRef,
    known: StepRef,
    mean_length: float,
    how: BM25,
    shard: Range,
    setting: Setting,
) -> pa.Table:
    """The postings of one shard, whose documents are in the order of their numbers."""
    from longctx.order.bm25 import build_index

    order = np.argsort(numbers_by_place(numbered)[slice(*shard)])
    table = _rows(words, shard, ["length", "words", "counts"]).take(pa.array(order))
    index = build_index(
        bounds(table, "words"),
        flat(table, "words"),
        flat(table, "counts"),
        table.column("length").to_numpy(),
        mean_length,
        load_vocabulary(known),
        how.k1,
        how.b,
    )
    word = np.repeat(np.arange(len(index.starts) - 1, dtype=np.int32), np.diff(index.starts))
    return pa.table({"word": word, "document": index.document, "weight": index.weight})


def _search(
    numbered: StepRef,
    words: StepRef,
    known: StepRef,
    index: StepRef,
    k: int,
    task: tuple[Range, Range, int],
    setting: Setting,
) -> pa.Table:
    """The best documents of one shard for each document of a block of queries, by number."""
    from longctx.order.bm25 import Index, search

    queries, shard, place = task
    numbers = numbers_by_place(numbered)
    asking, members = numbers[slice(*queries)], np.sort(numbers[slice(*shard)])
    at = np.minimum(np.searchsorted(members, asking), len(members) - 1)
    postings = read_table(index.run_dir, index.files[place])
    word, document, weight = (postings.column(c).to_numpy() for c in postings.column_names)
    vocabulary = load_vocabulary(known)
    starts = np.searchsorted(word, np.arange(len(vocabulary.words) + 1, dtype=np.int32))
    table = _rows(words, queries, ["words", "asked"])
    found, scores = search(
        Index(starts, document, weight),
        len(members),
        bounds(table, "words"),
        flat(table, "words"),
        flat(table, "asked"),
        np.where(members[at] == asking, at, -1),
        vocabulary,
        k,
    )
    lists = np.where(found >= 0, members[found], -1).astype(np.int32)
    return pa.table({"number": asking, "retrieved": as_binary(lists), "scores": as_binary(scores)})
