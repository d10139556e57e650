"""Arrow schemas of everything that crosses a room's door.

Text is `large_string` everywhere: 2 GiB offsets are the first thing that long documents break.
"""

import pyarrow as pa

SCHEMA_VERSION = 1

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("license", pa.string()),
        pa.field("meta", pa.string()),
    ]
)

QUARANTINE = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("location", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.large_string()),
        pa.field("payload", pa.large_binary()),
    ]
)

SEGMENT = pa.struct(
    [
        pa.field("doc_id", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
        pa.field("doc_start", pa.int64()),
        pa.field("source", pa.string()),
        pa.field("license", pa.string()),
    ]
)

# Spans of one document, in its own tokens, that stand in tours beside or instead of the document.
SPANS_TYPE = pa.list_(
    pa.struct(
        [
            pa.field("tour_id", pa.string()),
            pa.field("rank", pa.int64()),
            pa.field("start", pa.int64()),
            pa.field("end", pa.int64()),
        ]
    )
)

WINDOW_STATS = pa.struct(
    [
        pa.field("fill", pa.float32()),
        pa.field("n_docs", pa.int32()),
        pa.field("n_sources", pa.int32()),
        pa.field("n_tours", pa.int32()),
        pa.field("coherence", pa.float32()),
        pa.field("adjacent", pa.float32()),
    ]
)

WINDOWS = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("segments", pa.list_(SEGMENT), nullable=False),
        pa.field("tour_id", pa.string()),
        pa.field("next_token", pa.int32()),
        pa.field("stats", WINDOW_STATS),
    ]
)

# Which pass over the order a window belongs to; only in windows of recipes with a mixture.
PASS = pa.field("pass", pa.int32(), nullable=False)


def embedding_type(dim: int) -> pa.DataType:
    """Type of an embedding column: a fixed-size list of `dim` float32 values, unit norm."""
    return pa.list_(pa.float32(), dim)
