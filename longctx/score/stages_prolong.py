"""`score.prolong` on the engine: pairs of chunks of every document of a batch."""

from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Setting
from longctx.score.stages_model import ScoringModel, answer

_STATUS = "pl_status"
_ALL = pa.schema(
    [
        ("pl_lds", pa.float64()),
        ("pl_lds_per_pair", pa.float64()),
        ("pl_lds_log", pa.float64()),
        ("pl_hits", pa.int64()),
        ("pl_pairs", pa.int64()),
        ("pl_n_chunks", pa.int64()),
        (_STATUS, pa.string()),
    ]
)


class ScoreProlong(ScoringModel):
    """ProLong's long-dependency score (LDS): how much chunks lower each other's perplexity.

    Up to `max_chunks` chunks of `chunk` tokens are sampled, and of those up to `pairs` pairs; each
    chunk is read alone and behind its partner. Pairs that lower the perplexity by more than
    `threshold` of itself count, the more the farther apart they are and the fewer partners do so.
    `pl_lds` is the published sum, `pl_lds_per_pair` what compares documents with few pairs,
    `pl_lds_log` the sum that one noisy chunk does not decide. `index: sampled` measures distances
    as the released code does.

    `model` is "smollm2" (packaged; to try things with), a folder, or a Hugging Face name.
    Repeated patterns (chat logs) score high: combine with repetition measures.
    """

    op: Literal["score.prolong"]
    chunk: int = Field(128, ge=2)
    max_chunks: int = Field(256, ge=2)
    pairs: int = Field(500, ge=1)
    threshold: float = Field(0.1, ge=0, lt=1)
    index: Literal["true", "sampled"] = "true"

    summary: ClassVar[str] = "how much far chunks help to predict each other"
    source: ClassVar[str] = "ProLong LDS (Chen et al.) 2405.17915"
    cost: ClassVar[str] = (
        "128 tokens of forward pass a chunk, 256 a pair: up to 160,000 a document of any length"
    )
    writes: ClassVar[tuple[str, ...]] = tuple(_ALL.names)
    feeds_bos: ClassVar[bool] = False

    def sizes(self, room: int, stage: str) -> Any:
        self.refuse("chunk", 2 * self.chunk, room, stage)

    def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
        from longctx.ids import rng_for
        from longctx.score.likelihood import numbers
        from longctx.score.prolong import columns, draw, perplexities

        names = table.column("doc_id").to_pylist()
        blank = [not text.strip() for text in table.column("text").to_pylist()]
        ids = self.ids(table, model)
        draws = [
            draw(
                0 if empty else len(own),
                rng_for(setting.seed, "prolong", name),
                chunk=self.chunk,
                max_chunks=self.max_chunks,
                max_pairs=self.pairs,
            )
            for name, own, empty in zip(names, ids, blank, strict=True)
        ]
        rows: list[dict[str, Any]] = []
        errors: dict[int, Exception] = {}
        for i, (found, ppl) in enumerate(
            zip(draws, perplexities(model, ids, draws, self.chunk), strict=True)
        ):
            values = columns(
                found, *ppl, index=self.index, scale=self.max_chunks - 1, threshold=self.threshold
            )
            if not numbers(values):
                errors[i] = FloatingPointError("the model gave likelihoods that are no numbers")
            status = "empty" if blank[i] else "ok" if values["pl_pairs"] else "too_short"
            rows.append({_STATUS: status, **({} if status == "empty" else values)})
        scorer = {**model.identity, "chunk": self.chunk}
        return answer(rows, _ALL, _STATUS, errors, scorer)
