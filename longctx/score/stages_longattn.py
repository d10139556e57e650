"""`score.longattn` on the engine: the first layer's attention over the windows of each document."""

from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Setting
from longctx.score.stages_model import ScoringModel, answer, bound_tokenizers

_STATUS = "la_status"
_WINDOW = pa.struct(
    [
        ("start", pa.int64()),
        ("end", pa.int64()),
        *((name, pa.float64()) for name in ("ds", "var", "nosink")),
    ]
)
_ALL = pa.schema(
    [
        *((name, pa.float64()) for name in ("la_ds", "la_var", "la_ds_nosink")),
        ("la_windows", pa.large_list(_WINDOW)),
        ("la_n_windows", pa.int64()),
        (_STATUS, pa.string()),
    ]
)


class ScoreLongAttn(ScoringModel):
    """LongAttn's share of distant attention (DS) and its variance in a model's first layer.

    Documents are cut into windows of `window` tokens from both ends; distant is what lies at least
    a quarter of a window back. `la_windows` has the scores of each window (tokens start to end),
    `la_ds` and `la_var` their means, `la_ds_nosink` DS without the first token, which attracts
    attention whatever it says. Shorter documents have none (status too_short). Combine the two with
    `longattn` (paper: z-scores) or `longattn_released` (min-max) in `decide`.

    `window` is 32768 by default, or what the model reads if that is less. The pass itself has no
    limit but RoPE: a larger `window` is computed at positions that the model never saw, for which
    `rope_theta` replaces its base (the paper: 2500000 for Llama-3.1). `var_mode: triangle` takes
    the variance over distant entries only; `keep_exact: false` leaves out documents of exactly one
    window, as the paper does.

    Of `model` ("smollm2", packaged; a folder; a Hugging Face name; Llama, Mistral, Qwen2 or Qwen3)
    only embeddings and the first layer's queries and keys are read, and no code that comes with it.
    `batch_tokens` is how many rows of attention are held at once; it changes scores by rounding.
    """

    op: Literal["score.longattn"]
    dtype: Literal["float32", "bfloat16"] = "float32"
    window: int | None = Field(None, ge=8)
    var_mode: Literal["full", "triangle"] = "full"
    keep_exact: bool = True
    rope_theta: float | None = Field(None, gt=1)

    summary: ClassVar[str] = "how far back a first layer's attention goes"
    source: ClassVar[str] = "LongAttn 2502.16860"
    cost: ClassVar[str] = (
        "window x heads x dim multiply-adds a token: 2,200 tokens/s per core with smollm2 at 32k"
    )
    writes: ClassVar[tuple[str, ...]] = tuple(_ALL.names)
    feeds_bos: ClassVar[bool] = False

    def load(self, setting: Setting) -> Any:
        from longctx.score.layer0 import load_layer0

        bound_tokenizers(self.threads)
        model = load_layer0(
            self.model,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            rope_theta=self.rope_theta,
            rows=self.batch_tokens,
        )
        model.window(self.window)
        return model

    def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
        from longctx.score.likelihood import numbers
        from longctx.score.longattn import attn_windows

        size = model.window(self.window)
        rows: list[dict[str, Any]] = []
        errors: dict[int, Exception] = {}
        texts = table.column("text").to_pylist()
        for i, (text, ids) in enumerate(zip(texts, self.ids(table, model), strict=True)):
            length = len(ids) if text.strip() else 0
            windows = attn_windows(length, size, keep_exact=self.keep_exact)
            if not windows:
                rows.append({_STATUS: "too_short" if length else "empty"})
                continue
            found = [model.longattn(ids[w.start : w.end], var_mode=self.var_mode) for w in windows]
            ds, var, nosink = (sum(values) / len(found) for values in zip(*found, strict=True))
            means = {"la_ds": ds, "la_var": var, "la_ds_nosink": nosink}
            if not numbers(means):
                errors[i] = FloatingPointError("the model gave attention that is no number")
            listed = [{**w._asdict(), **f._asdict()} for w, f in zip(windows, found, strict=True)]
            counted = {"la_windows": listed, "la_n_windows": len(windows)}
            rows.append({_STATUS: "ok", **means, **counted})
        scorer = {**model.identity, "window": size, "rope_theta": self.rope_theta}
        return answer(rows, _ALL, _STATUS, errors, scorer)
