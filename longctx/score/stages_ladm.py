"""`score.ladm` on the engine: windows of equal length, several in one forward pass."""

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Setting
from longctx.errors import RunError
from longctx.score.stages_model import ScoringModel, answer

_STATUS = "ld_status"
_ALL = pa.schema(
    [
        ("ld_cds", pa.float64()),
        ("ld_cds_sum", pa.float64()),
        ("ld_n_spans", pa.int64()),
        ("ld_n_windows", pa.int64()),
        (_STATUS, pa.string()),
    ]
)
_WINDOW = 32_768


class ScoreLADM(ScoringModel):
    """LADM's contextual dependency score (CDS): how unevenly spans of a document attend far back.

    A document is cut into windows of exactly `window` tokens, the tail is left out, and a shorter
    document has no score (status too_short). In every layer the attention of spans of `span` tokens
    on the spans before them is summed; CDS is high where a span attends to few others, and far
    ones. `ld_cds` is the mean over spans (released code), `ld_cds_sum` the sum (paper), both means
    over layers and windows. `index: paper` and `include_self` follow the paper, where it differs
    from its code; `step_j` and `step_i` are how many spans are passed over.

    `window` is 32768 by default, or what the model reads if that is less; scores of different
    windows do not compare. `batch_tokens` is how many tokens of windows are read at once.

    `model` is "smollm2" (packaged; to try things with), a folder, or a Hugging Face name.
    """

    op: Literal["score.ladm"]
    window: int | None = Field(None, ge=2)
    span: int = Field(128, ge=1)
    index: Literal["code", "paper"] = "code"
    include_self: bool = False
    step_j: int = Field(4, ge=1)
    step_i: int = Field(4, ge=1)

    summary: ClassVar[str] = "how unevenly spans attend to far spans"
    source: ClassVar[str] = "LADM 2503.02502"
    cost: ClassVar[str] = "one forward pass over whole windows, and a few per cent for the weights"
    writes: ClassVar[tuple[str, ...]] = tuple(_ALL.names)
    feeds_bos: ClassVar[bool] = False

    def sizes(self, room: int, stage: str) -> Any:
        from longctx.score.ladm import least_spans

        window = self.window or min(_WINDOW, room) // self.span * self.span
        self.refuse("window", window, room, stage)
        needed = least_spans(index=self.index, step_j=self.step_j, step_i=self.step_i)
        if window % self.span or window < needed * self.span:
            raise RunError(
                f"windows of {window:,} tokens are {window / self.span:,.4g} spans of {self.span}, "
                f"and it takes {needed} whole ones",
                where=stage,
                remedy=f"set `window` to a multiple of {self.span} from {needed * self.span:,} on, "
                "or a smaller `span`",
            )
        return window

    def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
        from longctx.score.ladm import ladm_index, ladm_windows
        from longctx.score.likelihood import numbers
        from longctx.score.longattn import framed

        size = self.sizes(self.room(model), setting.stage)
        texts = table.column("text").to_pylist()
        ids = [
            own if text.strip() else own[:0]
            for text, own in zip(texts, self.ids(table, model), strict=True)
        ]
        windows = [
            framed(own[start : start + size], model.bos)
            for own in ids
            for start in range(0, len(own) - size + 1, size)
        ]
        at_once = max(1, model.batch_tokens // size)
        pairs = ladm_index(
            size // self.span, index=self.index, step_j=self.step_j, step_i=self.step_i
        )
        found = [
            ladm_windows(
                model,
                np.stack(windows[first : first + at_once]),
                self.span,
                pairs,
                include_self=self.include_self,
            )
            for first in range(0, len(windows), at_once)
        ]
        means = np.concatenate([np.zeros(0), *(f.mean for f in found)])
        sums = np.concatenate([np.zeros(0), *(f.sum for f in found)])
        rows: list[dict[str, Any]] = []
        errors: dict[int, Exception] = {}
        first = 0
        for i, own in enumerate(ids):
            count = len(own) // size
            if not count:
                rows.append({_STATUS: "too_short" if len(own) else "empty"})
                continue
            mine = slice(first, first + count)
            first += count
            scores: dict[str, float | int | None] = {
                "ld_cds": float(means[mine].mean()),
                "ld_cds_sum": float(sums[mine].mean()),
            }
            if not numbers(scores):
                errors[i] = FloatingPointError("the model gave attention that is no number")
            counts = {"ld_n_spans": size // self.span, "ld_n_windows": count}
            rows.append({_STATUS: "ok", **scores, **counts})
        scorer = {**model.identity, "window": size, "span": self.span}
        return answer(rows, _ALL, _STATUS, errors, scorer)
