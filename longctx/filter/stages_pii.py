"""`filter.pii` on the engine: personal data and secrets counted, and masked where asked.

A sidecar with a column `text` is what all later stages read in place of the documents' own text, so
masking is one more column. What was found is never written: spans have places and kinds only.
"""

from collections import Counter
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Map, Setting
from longctx.engine.summary import Stats
from longctx.filter.pii import FINDERS, Kind, find, mask

TEXT = "text"
_SPAN = pa.struct(
    [
        pa.field("start_char", pa.int64()),
        pa.field("end_char", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("masked_start", pa.int64()),
        pa.field("masked_end", pa.int64()),
    ]
)
_COLUMNS = pa.schema(
    [
        *(pa.field(f"pii_{kind}", pa.int32()) for kind in FINDERS),
        pa.field("pii_count", pa.int32()),
        pa.field("pii_spans", pa.large_list(_SPAN)),
        pa.field("pii_status", pa.string()),
    ]
)


class FilterPII(Map):
    """Counts personal data and secrets by kind, and says where they stand.

    Kinds: private_key, jwt, aws_key, github_token, slack_token, google_key, model_key (OpenAI,
    Anthropic, Hugging Face), email, iban, card, ipv6, ipv4, phone; `kinds` names those to look for,
    by default all. Check digits are checked; examples, private networks and version numbers are not
    counted. Names and postal addresses are not looked for.

    With `mask` all later stages read the text with a `placeholder` for everything found, in which
    {KIND} becomes the kind; spans then have their place in that text, too. The op must stand before
    `score.heuristics`, which makes the tokens. The text is stored once more, and `documents/` still
    holds the original: remove it when the run is done.
    """

    op: Literal["filter.pii"]
    kinds: list[Kind] | None = Field(None, min_length=1)
    mask: bool = False
    placeholder: str = Field("<{KIND}>", max_length=64)

    summary: ClassVar[str] = "count personal data and secrets, or mask them"
    source: ClassVar[str] = "longctx; what Dolma 2402.00159 and StarCoder 2305.06161 mask"
    cost: ClassVar[str] = (
        "about 15 MB/s per core; with mask a compressed copy of the text is stored"
    )
    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = tuple(_COLUMNS.names)

    def writes_columns(self) -> tuple[str, ...]:
        return (*self.writes, *([TEXT] if self.mask else []))

    def precedes(self) -> tuple[str, ...]:
        # The sample of filter.decontaminate holds pieces of texts.
        return ("tokens", "embedding", "decon_spans") if self.mask else ()

    def fingerprint_fields(self) -> dict[str, Any]:
        fields = super().fingerprint_fields()
        return fields if self.mask else {**fields, "placeholder": None}

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        found = [self._row(text) for text in table.column(TEXT).to_pylist()]
        rows, texts = [row for row, _ in found], [text for _, text in found]
        columns = pa.Table.from_pylist(rows, schema=_COLUMNS)
        if self.mask:
            columns = columns.append_column(TEXT, pa.array(texts, pa.large_string()))
        kinds: Counter[str] = Counter(span["kind"] for row in rows for span in row["pii_spans"])
        counted = {"documents": sum(row["pii_count"] > 0 for row in rows), "found": dict(kinds)}
        return Stats.attach(columns, counted)

    def _row(self, text: str) -> tuple[dict[str, Any], str]:
        """Columns of one text, and the text as later stages are to see it."""
        kinds = self.kinds or list(FINDERS)
        try:
            spans = find(text, kinds)
        except Exception as error:
            # What a library says may quote the text, and would be kept in quarantine.
            raise RuntimeError(f"{type(error).__name__} while looking for personal data") from None
        places: list[Any] = [(None, None)] * len(spans)
        if self.mask:
            text, places = mask(text, spans, self.placeholder)
        number = Counter(span.kind for span in spans)
        row: dict[str, Any] = {f"pii_{kind}": number[kind] for kind in kinds}
        row["pii_count"] = len(spans)
        row["pii_spans"] = [
            dict(zip(_SPAN.names, (*span, *place), strict=True))
            for span, place in zip(spans, places, strict=True)
        ]
        row["pii_status"] = "ok" if text.strip() else "empty"
        return row, text
