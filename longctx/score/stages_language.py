"""`score.language` on the engine: languages of documents and of their windows, as columns."""

from collections import Counter
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Map, Setting
from longctx.engine.summary import Stats

LANGUAGE = "language"
_WINDOW = pa.struct(
    [
        pa.field("start_char", pa.int64()),
        pa.field("end_char", pa.int64()),
        pa.field("lang", pa.string()),
        pa.field("confidence", pa.float32()),
    ]
)
_COLUMNS = pa.schema(
    [
        pa.field("lang", pa.string()),
        pa.field("lang_confidence", pa.float32()),
        pa.field("lang_windows", pa.large_list(_WINDOW)),
        pa.field("lang_mixed_share", pa.float32()),
        pa.field("lang_status", pa.string()),
    ]
)


class ScoreLanguage(Map):
    """Identifies the language of every document and of its windows of `window_chars` characters.

    `lang` is the language of most windows (ISO 639-1), `lang_mixed_share` the share of characters
    whose window is in another one. Code, tables, numbers and very short texts have no language, and
    neither has a window whose language is less sure than `min_confidence`: `lang` is null and
    `lang_status` says why.

    With `fill_language` documents that came without a `language` get the one found, and `embed`,
    `decide` and the orders, which read that column, know it; what the input says is never changed.
    """

    op: Literal["score.language"]
    window_chars: int = Field(2000, ge=100)
    min_confidence: float = Field(0.5, ge=0, le=1)
    fill_language: bool = False

    summary: ClassVar[str] = "language of documents and windows, as columns"
    source: ClassVar[str] = "langid.py (Lui and Baldwin, ACL 2012); model of py3langid 0.4"
    cost: ClassVar[str] = "about 8 MB/s per core; 120 MB for the model in every worker"
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = tuple(_COLUMNS.names)

    def reads_columns(self) -> tuple[str, ...]:
        return (*self.reads, *([LANGUAGE] if self.fill_language else []))

    def writes_columns(self) -> tuple[str, ...]:
        return (*self.writes, *([LANGUAGE] if self.fill_language else []))

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        from longctx.score.language import languages, packaged_model

        model = packaged_model()
        rows: list[dict[str, Any]] = []
        for text in table.column("text").to_pylist():
            found = languages(text, model, self.window_chars, self.min_confidence)
            windows = [
                {"start_char": w.start, "end_char": w.end, "lang": w.language, "confidence": w.sure}
                for w in found.windows
            ]
            rows.append(
                {
                    "lang": found.language,
                    "lang_confidence": found.confidence,
                    "lang_windows": windows,
                    "lang_mixed_share": found.mixed_share,
                    "lang_status": found.status,
                }
            )
        columns = pa.Table.from_pylist(rows, schema=_COLUMNS)
        if self.fill_language:
            known = table.column(LANGUAGE).to_pylist()
            filled = [a or r["lang"] for a, r in zip(known, rows, strict=True)]
            columns = columns.append_column(LANGUAGE, pa.array(filled, pa.string()))
        counted = Counter(r["lang"] or f"none: {r['lang_status']}" for r in rows)
        return Stats.attach(columns, {"languages": dict(sorted(counted.items()))})
