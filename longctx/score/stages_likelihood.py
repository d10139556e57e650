"""`score.likelihood` on the engine: a long and a short reading of every document of a batch."""

from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from longctx.engine.op import Setting
from longctx.errors import RunError
from longctx.score.stages_model import ScoringModel, answer

_REAL = (
    "lf_score",
    "dnll_mean",
    "ppl_long",
    "ppl_short",
    "ppl_delta",
    "ppl_ratio",
    "lp_key_share",
    "lp_longppl",
)
_COUNTS = ("lp_n_key", "n_scored", "n_far")
_STATUS = "lf_status"
_LIST = pa.large_list(pa.float32())
_ALL = pa.schema(
    [
        *((name, pa.float64()) for name in _REAL),
        *((name, pa.int64()) for name in _COUNTS),
        ("split_gain", pa.float64()),
        ("zip_gain", pa.float64()),
        ("longce_w", _LIST),
        ("nll_long", _LIST),
        ("nll_short", _LIST),
        (_STATUS, pa.string()),
    ]
)


class ScoreLikelihood(ScoringModel):
    """How much far context helps a language model to predict a document.

    Every token is predicted with at least `long` tokens of context and with at least `short` (in
    stretches that move on by `stride`), where the document has them. `lf_score` is LongFilter's,
    `dnll_mean` and `ppl_delta` the plain gains, `lp_key_share` the share of LongPPL's key tokens.
    A document of at most `short` + `stride` tokens has no far context: `n_far` 0, scores 0.

    By default `long` is half of what the model reads, at most 32768, `short` an eighth of it and
    `stride` a quarter of that. `split_gain` adds what the first half of a document does for the
    second; `longce` the weight of each token in LongCE's loss; `store_token_nll` both likelihoods
    of each token, from which all else can be computed again. `zip_gain` adds how much better a
    text packs with a far look-back; with `likelihood: false` only that, and no model is loaded.

    `model` is "smollm2" (packaged; to try things with), a folder, or a Hugging Face name.
    `max_tokens` reads only the beginning of a document. Repetition scores highest: dedup first.
    """

    op: Literal["score.likelihood"]
    long: int | None = Field(None, ge=1)
    short: int | None = Field(None, ge=1)
    stride: int | None = Field(None, ge=1)
    likelihood: bool = True
    split_gain: bool = False
    zip_gain: bool = False
    longce: bool = False
    store_token_nll: bool = False

    summary: ClassVar[str] = "what far context is worth to a language model"
    source: ClassVar[str] = (
        "LongFilter (ICLR 2026); LongPPL and LongCE 2410.23771; split gain: InternLM2 2403.17297"
    )
    cost: ClassVar[str] = (
        "6 tokens of forward pass a token: 1 long, 5 short; half a token more with split_gain"
    )
    writes: ClassVar[tuple[str, ...]] = tuple(_ALL.names)

    @model_validator(mode="after")
    def _consistent(self) -> "ScoreLikelihood":
        if self.likelihood:
            return self
        asked = [n for n in ("split_gain", "longce", "store_token_nll") if getattr(self, n)]
        if asked:
            raise ValueError(f"`{asked[0]}` needs likelihoods: leave out `likelihood: false`")
        if not self.zip_gain:
            raise ValueError("`likelihood: false` leaves nothing to do without `zip_gain: true`")
        return self

    def uses_model(self) -> bool:
        return self.likelihood

    def writes_columns(self) -> tuple[str, ...]:
        optional = {
            "split_gain": self.split_gain,
            "zip_gain": self.zip_gain,
            "longce_w": self.longce,
            "nll_long": self.store_token_nll,
            "nll_short": self.store_token_nll,
            _STATUS: True,
        }
        return tuple(n for n in self.writes if optional.get(n, self.likelihood))

    def sizes(self, room: int, stage: str) -> Any:
        from longctx.score.plan import fitting

        windows = fitting(room, self.long, self.short, self.stride)
        self.refuse("long", 2 * windows.long, room, stage)
        if windows.short + windows.stride > windows.long:
            raise RunError(
                f"`short` {windows.short:,} and `stride` {windows.stride:,} are together more than "
                f"`long` {windows.long:,}, so the short context would not be the shorter one",
                where=stage,
                remedy="lower them, or leave them out: then they fit `long`",
            )
        return windows

    def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
        texts = table.column("text").to_pylist()
        rows: list[dict[str, Any]] = [
            {_STATUS: "ok" if text.strip() else "empty"} for text in texts
        ]
        errors: dict[int, Exception] = {}
        scorer = None
        if self.likelihood:
            windows = self.sizes(self.room(model), setting.stage)
            scorer = {**model.identity, **windows._asdict()}
            self._read(rows, errors, self.ids(table, model), windows, model)
        if self.zip_gain:
            from longctx.score.likelihood import zip_gain

            for row, text in zip(rows, texts, strict=True):
                row["zip_gain"] = zip_gain(text) if row[_STATUS] != "empty" else None
        schema = pa.schema([_ALL.field(name) for name in self.writes_columns()])
        return answer(rows, schema, _STATUS, errors, scorer)

    def _read(
        self,
        rows: list[dict[str, Any]],
        errors: dict[int, Exception],
        ids: list[Any],
        windows: Any,
        model: Any,
    ) -> None:
        """Fill in what comes of the likelihoods; in `errors` the documents that have none."""
        from longctx.score.likelihood import (
            columns,
            contrasts,
            longce_weights,
            numbers,
            split_gain,
        )

        at = [i for i, row in enumerate(rows) if row[_STATUS] == "ok"]
        found = contrasts(model, [ids[i] for i in at], windows, split=self.split_gain)
        for i, contrast in zip(at, found, strict=True):
            values = columns(contrast)
            if self.split_gain:
                values["split_gain"] = split_gain(contrast)
            if not numbers(values):
                errors[i] = FloatingPointError("the model gave likelihoods that are no numbers")
                continue
            if not values["n_scored"]:
                rows[i][_STATUS] = "too_short"
                continue
            rows[i] |= values
            if self.longce:
                rows[i]["longce_w"] = longce_weights(contrast.long, contrast.short)
            if self.store_token_nll:
                rows[i] |= {"nll_long": contrast.long, "nll_short": contrast.short}
