"""`score.heuristics` on the engine: scores are columns, decisions are a later cut (`decide`).

The text is read and tokenised once, here; the ids are kept beside the documents for `pack`.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Map, Setting
from longctx.text.columns import TOKENS

_INTEGERS = (
    "h_n_bytes",
    "h_n_chars",
    "h_n_words",
    "h_n_tok",
    "h_stop",
    "h_max_word",
    "h_braces",
    "h_sentences",
)
_SHARES = (
    "h_mean_word_len",
    "h_hash",
    "h_ellipsis",
    "h_bullets",
    "h_end_ellipsis",
    "h_alpha",
    "h_dup_para",
    "h_dup_para_chars",
    "h_dup_line",
    "h_dup_line_chars",
    *(f"h_top_{n}" for n in (2, 3, 4)),
    *(f"h_dup_{n}" for n in (5, 6, 7, 8, 9, 10)),
    "h_line_punct",
    "h_short_lines",
    "h_fw_dup_chars",
    "h_newlines",
)
STATS = [
    *(pa.field(n, pa.int64()) for n in _INTEGERS),
    *(pa.field(n, pa.float32()) for n in _SHARES),
    pa.field("h_lorem", pa.bool_()),
]
_WINDOW = pa.struct(
    [
        pa.field("win_id", pa.int32()),
        pa.field("start_char", pa.int64()),
        pa.field("end_char", pa.int64()),
        *STATS,
    ]
)
_SCORES = pa.schema(
    [
        pa.field("n_chars", pa.int64()),
        pa.field("n_words", pa.int64()),
        *STATS,
        pa.field("h_windows", pa.large_list(_WINDOW)),
    ]
)


class ScoreHeuristics(Map):
    """Lengths in characters, words and tokens, and the Gopher, C4 and FineWeb measures.

    Nothing is removed: `decide` cuts. With `windows` the measures are also taken for windows of
    2,000 words, because whole-document rules punish length. Token ids are kept in `tokens`.
    """

    op: Literal["score.heuristics"]
    windows: bool = True
    window_words: int = Field(2000, ge=10)

    summary: ClassVar[str] = "lengths and quality measures, as columns"
    source: ClassVar[str] = "Gopher 2112.11446, C4 1910.10683, FineWeb 2406.17557"
    cost: ClassVar[str] = (
        "about 6 MB/s per core with windows; a worker holds up to six times its largest document; "
        "tokens kept at 4 bytes each"
    )
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = (*_SCORES.names, "tokens", "n_tokens")

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        from longctx.text.columns import token_columns
        from longctx.text.tokenize import load_tokenizer
        from longctx.text.utf8 import strings

        texts = table.column("text")
        scores = pa.Table.from_pylist(list(self._scores(texts)), schema=_SCORES)
        tokens = token_columns(load_tokenizer(setting.tokenizer), strings(texts))
        return scores.append_column(
            pa.field("tokens", TOKENS), tokens.column("tokens")
        ).append_column("n_tokens", tokens.column("n_tokens"))

    def _scores(self, texts: pa.ChunkedArray) -> Iterator[dict[str, Any]]:
        from longctx.filter.heuristics import doc_and_window_stats, doc_stats
        from longctx.text.utf8 import utf8_rows

        for data in utf8_rows(texts):
            stats, windows = (
                doc_and_window_stats(data, self.window_words)
                if self.windows
                else (doc_stats(data), None)
            )
            lengths = {"n_chars": stats["h_n_chars"], "n_words": stats["h_n_words"]}
            yield {**lengths, **stats, "h_windows": windows}
