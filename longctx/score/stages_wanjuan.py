"""`score.wanjuan` on the engine: coherence with a model, cohesion and complexity without one."""

from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Setting
from longctx.errors import RunError
from longctx.score.stages_model import ScoringModel, answer

_STATUS = "lw_status"
_COHERENCE = (
    *(f"lw_acc_{name}" for name in ("long", "short", "diff", "ratio")),
    *(f"lw_ppl_{name}" for name in ("long", "short", "diff", "ratio")),
)
_TEXT = (
    "lw_ttr",
    "lw_ttr_win",
    "lw_tok_per_char",
    *(f"lw_line_{name}" for name in ("mean", "std", "med", "max", "min")),
    *(f"lw_{name}_rate" for name in ("newline", "comma", "space", "bar", "pron", "conn")),
)
_ALL = pa.schema(
    [
        *((name, pa.float64()) for name in _COHERENCE),
        ("lw_n_chunks", pa.int64()),
        *((name, pa.float64()) for name in _TEXT),
        (_STATUS, pa.string()),
    ]
)


class ScoreWanjuan(ScoringModel):
    """LongWanjuan's measures of coherence, cohesion and complexity.

    Coherence: of chunks of `window` tokens the last `target` are predicted from the whole chunk and
    from its last `short` tokens alone; accuracy, perplexity and their differences are means over
    the chunks. A document shorter than a chunk has none (status too_short). By default `window` is
    4096 or what the model reads, `short` half and `target` a quarter of it.

    Cohesion is the share of pronouns and connectives, in English and Chinese only, by the column
    `language` (null elsewhere, and where none is known: put score.language with `fill_language`
    before). Complexity is the type-token ratio of the recipe's tokenizer, best by windows of 1000
    tokens (`lw_ttr_win`), and the lengths of lines. With `coherence: false` these two only, and no
    model is loaded.

    `model` is "smollm2" (packaged; to try things with), a folder, or a Hugging Face name.
    `max_tokens` bounds what is read for coherence only.
    """

    op: Literal["score.wanjuan"]
    coherence: bool = True
    window: int | None = Field(None, ge=4)
    short: int | None = Field(None, ge=2)
    target: int | None = Field(None, ge=1)

    summary: ClassVar[str] = "coherence, cohesion and complexity of long texts"
    source: ClassVar[str] = "LongWanjuan 2402.13583"
    cost: ClassVar[str] = (
        "1.5 tokens of forward pass a token; without coherence about 3 MB/s per core"
    )
    reads: ClassVar[tuple[str, ...]] = ("text", "language")
    writes: ClassVar[tuple[str, ...]] = tuple(_ALL.names)
    feeds_bos: ClassVar[bool] = False

    def uses_model(self) -> bool:
        return self.coherence

    def writes_columns(self) -> tuple[str, ...]:
        return self.writes if self.coherence else (*_TEXT, _STATUS)

    def sizes(self, room: int, stage: str) -> Any:
        from longctx.score.wanjuan import fitting

        chunks = fitting(room, self.window, self.short, self.target)
        self.refuse("window", chunks.window, room, stage)
        if not chunks.target < chunks.short <= chunks.window:
            raise RunError(
                f"`target` {chunks.target:,}, `short` {chunks.short:,} and `window` "
                f"{chunks.window:,} must grow: targets are the end of the short reading, and that "
                "is the end of a chunk",
                where=stage,
                remedy="leave out what need not be set: the others then fit `window`",
            )
        return chunks

    def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
        from longctx.score.cohesion import cohesion
        from longctx.score.wanjuan import complexity
        from longctx.text.tokenize import load_tokenizer

        texts = table.column("text").to_pylist()
        tokens = load_tokenizer(setting.tokenizer).encode_batch(texts)
        rows: list[dict[str, Any]] = []
        for text, ids, language in zip(
            texts, tokens, table.column("language").to_pylist(), strict=True
        ):
            if not text.strip():
                rows.append({_STATUS: "empty"})
                continue
            shares = cohesion(text, language)
            rates = {"lw_pron_rate": shares and shares.pronouns}
            rates["lw_conn_rate"] = shares and shares.connectives
            rows.append({_STATUS: "ok", **complexity(text, ids), **rates})
        errors: dict[int, Exception] = {}
        scorer = None
        if self.coherence:
            chunks = self.sizes(self.room(model), setting.stage)
            scorer = {**model.identity, **chunks._asdict()}
            self._read(rows, errors, self.ids(table, model), chunks, model)
        schema = pa.schema([_ALL.field(name) for name in self.writes_columns()])
        return answer(rows, schema, _STATUS, errors, scorer)

    def _read(
        self,
        rows: list[dict[str, Any]],
        errors: dict[int, Exception],
        ids: list[Any],
        chunks: Any,
        model: Any,
    ) -> None:
        """Fill in coherence; in `errors` the documents for which the model gave no numbers."""
        from longctx.score.likelihood import numbers
        from longctx.score.wanjuan import coherence

        at = [i for i, row in enumerate(rows) if row[_STATUS] == "ok"]
        for i, values in zip(at, coherence(model, [ids[i] for i in at], chunks), strict=True):
            if values is None:
                rows[i][_STATUS] = "too_short"
            elif numbers(values):
                rows[i] |= values
            else:
                errors[i] = FloatingPointError("the model gave likelihoods that are no numbers")
