"""Rows of the systems: an envelope that all share, and the columns that each adds.

Rendered turns (`messages`) are made from the stored parts, never the other way round. `context`,
`instruction` and `response` stand apart, so that a selection of rows never has to split a rendered
text by its headings. A row that cannot be made is a `Reject` with a code that is counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from longctx.llm.types import Message
from longctx.synth.tokens import TokenCounter

Row = dict[str, Any]


class Reject(NamedTuple):
    """Why no row came of an input: a code that is counted, and what was found."""

    code: str
    detail: str = ""


class Made(NamedTuple):
    """A row, and what was done to get it that a report counts (by name)."""

    row: Row
    counts: dict[str, int]


def _struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct(list(fields.items()))


_TEXT, _NUMBER, _FLAG, _SHARE = pa.string(), pa.int32(), pa.bool_(), pa.float32()
_NUMBERS, _TEXTS = pa.list_(_NUMBER), pa.list_(_TEXT)

ENVELOPE = pa.schema(
    {
        "id": _TEXT,
        "system": _TEXT,
        "lang": _TEXT,
        "messages": pa.list_(_struct(role=_TEXT, content=_TEXT)),
        "context": _TEXT,
        "instruction": _TEXT,
        "response": _TEXT,
        "n_tokens": _NUMBER,
        "source": _TEXT,
        "seed": pa.int64(),
        "prompt_version": _TEXT,
    }.items()
)


def columns(**own: pa.DataType) -> pa.Schema:
    """The schema of a system's rows: the envelope, then its own columns."""
    return pa.schema([*ENVELOPE, *own.items()])


PAMQA = columns(
    question=_TEXT,
    docs=pa.list_(_struct(idx=_NUMBER, doc_id=_TEXT, title=_TEXT, text=_TEXT, role=_TEXT)),
    gold_idx=_NUMBERS,
    answerable=_FLAG,
    prompt=_TEXT,
    response_parts=_struct(restate=_TEXT, indices=_NUMBERS, answer=_TEXT),
    n_hard=_NUMBER,
    n_random=_NUMBER,
)

FILM = columns(
    type=_TEXT,
    question=_TEXT,
    answer=_TEXT,
    segments=pa.list_(_struct(pos=_NUMBER, doc_id=_TEXT, seg_id=_TEXT, role=_TEXT)),
    gold_pos=_NUMBERS,
    needed_pos=_NUMBERS,
    n_segments=_NUMBER,
    context_tokens=_NUMBER,
    target_len=_NUMBER,
    source_doc_id=_TEXT,
)

# One 128-token piece of a document, which FILM's contexts are made of.
SEGMENTS = pa.schema(
    {
        "seg_id": _TEXT,
        "doc_id": _TEXT,
        "cluster_id": _TEXT,
        "k": _NUMBER,
        "text": _TEXT,
        "n_tokens": _NUMBER,
    }.items()
)

CHATQA2 = columns(
    document_id=_TEXT,
    question=_TEXT,
    answers=_TEXTS,
    summary_start_char=_NUMBER,
    summary_end_char=_NUMBER,
    inserted_start_char=_NUMBER,
    inserted_end_char=_NUMBER,
    depth=_SHARE,
    context_tokens=_NUMBER,
    target_len=_NUMBER,
    mode=_TEXT,
    split=_TEXT,
)

LONGALIGN = columns(
    dataset=_TEXT,
    length=_NUMBER,
    task_type=_TEXT,
    questions=_TEXTS,
    chosen=_NUMBER,
    doc_id=_TEXT,
)

# Packs of tokenised rows; with `batch_packs` set also `batch_id`, and weights that are final.
PACKS = pa.schema(
    {
        "pack_id": _TEXT,
        "input_ids": _NUMBERS,
        "labels": _NUMBERS,
        "loss_weight": pa.list_(_SHARE),
        "cu_seqlens": _NUMBERS,
        "position_ids": _NUMBERS,
        "seq_ids": _TEXTS,
        "n_target_seqs": _NUMBER,
    }.items()
)

LONGALPACA = columns(
    alpaca=_struct(instruction=_TEXT, input=_TEXT, output=_TEXT),
    file=_TEXT,
    category=_TEXT,
    kind=_TEXT,
)

LONGMIT = columns(
    hop=_NUMBER,
    type=_TEXT,
    question=_TEXT,
    answer=_TEXT,
    reasoning=_TEXT,
    chain=pa.list_(
        _struct(
            doc_id=_TEXT,
            chunk_id=_NUMBER,
            q=_TEXT,
            a=_TEXT,
            rationale=_TEXT,
            linked_to=_NUMBER,
            sim=_SHARE,
        )
    ),
    clue_docs=_TEXTS,
    docs=pa.list_(_struct(doc_id=_TEXT, text=_TEXT, role=_TEXT)),
    clue_pos=_NUMBERS,
    scores=_struct(quality=_SHARE, multihop=_FLAG, necessity=_FLAG),
    token_limit=_NUMBER,
    path_id=_TEXT,
)

LONGWRITER = columns(
    prompt=_TEXT,
    plan=pa.list_(_struct(k=_NUMBER, main_point=_TEXT, words=_NUMBER)),
    paragraphs=_TEXTS,
    paragraph_lengths=_NUMBERS,
    length=_NUMBER,
    required=_struct(x=_NUMBER, lo=_NUMBER, hi=_NUMBER, relation=_TEXT, unit=_TEXT),
    length_source=_TEXT,
    s_l=_SHARE,
    s_q=_SHARE,
    dims=_struct(
        relevance=_NUMBER,
        accuracy=_NUMBER,
        coherence=_NUMBER,
        clarity=_NUMBER,
        breadth_depth=_NUMBER,
        reading=_NUMBER,
    ),
    counter=_TEXT,
    n_calls=_NUMBER,
    loss_weighting=_TEXT,
)


def table_of(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of a system's schema, in ascending order of their ids.

    Maps are lists of pairs, which JSON gives back as lists of lists.
    Raises ValueError where a row has other columns than the schema.
    """
    listed = sorted(rows, key=lambda row: row["id"])
    for row in listed:
        if odd := set(row) ^ set(schema.names):
            raise ValueError(f"row {row['id']!r} has or lacks, against its schema: {sorted(odd)}")
    maps = [field.name for field in schema if pa.types.is_map(field.type)]
    paired = [
        {**row, **{n: [tuple(pair) for pair in row[n]] for n in maps if row[n] is not None}}
        for row in listed
    ]
    return pa.Table.from_pylist(paired, schema=schema)


def envelope(
    *,
    id: str,
    system: str,
    lang: str,
    messages: Sequence[Message],
    instruction: str,
    counter: TokenCounter,
    source: str,
    seed: int,
    prompt_version: str,
    context: str = "",
) -> Row:
    """The columns that all systems share; the last turn is the response.

    `n_tokens` is the sum over all turns, without the tokens that a chat template adds.
    """
    return {
        "id": id,
        "system": system,
        "lang": lang,
        "messages": [dict(message) for message in messages],
        "context": context,
        "instruction": instruction,
        "response": messages[-1]["content"],
        "n_tokens": turns_tokens(messages, counter),
        "source": source,
        "seed": seed,
        "prompt_version": prompt_version,
    }


def turns_tokens(messages: Sequence[Message], counter: TokenCounter) -> int:
    """Number of tokens of all turns."""
    return sum(counter.count(message["content"]) for message in messages)
