"""`select.gateau` on the engine: instruction rows read by a long and a short model."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field, model_validator

from longctx.engine.op import Setting
from longctx.errors import RecipeError, RunError
from longctx.location import Location
from longctx.score.stages_model import ScoringModel, answer

_STATUS = "ga_status"
_LIST = pa.large_list(pa.float32())
_ALL = pa.schema(
    [
        *((name, pa.float64()) for name in ("ga_hmg", "ga_cas", "ga_nll_a", "ga_nll_b")),
        ("ga_is", _LIST),
        ("ga_attn", _LIST),
        ("ga_n_seg", pa.int64()),
        ("ga_truncated", pa.bool_()),
        (_STATUS, pa.string()),
    ]
)
_WINDOW, _SHORT_WINDOW = 64_000, 4096
_MISSING = "error:no_fields"


class Roles(NamedTuple):
    """The two models with their titles and windows; one and the same model is loaded once."""

    long: Any
    short: Any


class SelectGateau(ScoringModel):
    """GATEAU's two measures of long instruction rows: how much they need a long context, and
    whether the model looks at the wrong part of it.

    A document's text is the context; `instruction` and `response` name fields that the input keeps
    in `meta`. With `messages` naming a field of chat messages instead, the user's last block (after
    a blank line) is the instruction, what is before it the context. Rows without these have a null
    score and a status.

    `ga_hmg` is the response's mean NLL for the short model (`ga_nll_a`) less that for the long one
    (`ga_nll_b`). The long one, `model`, is fed up to `window` tokens (64000, or what it reads), the
    short one, by default the same, up to `short_window` (4096, or what it reads), or with
    `short_mode: full` as many. The context is cut at its beginning. `ga_cas` is the cosine of
    `importance` with attention over segments of `segment` tokens (at most `max_segments`;
    instruction and response cut to `max_field`): `ga_is` has their perplexities, `ga_attn` their
    attention. With one segment there is none (status too_short).

    Rank and select with `decide`: `keep: {gateau: {top: 0.1, per: all}}`. Duplicates all score
    high: dedup first. `model` is "smollm2" (packaged; to try things with), a folder, or a Hugging
    Face name.
    """

    op: Literal["select.gateau"]
    short_model: Location | None = None
    instruction: str = "instruction"
    response: str = "response"
    messages: str | None = None
    window: int | None = Field(None, ge=8)
    short_window: int | None = Field(None, ge=8)
    short_mode: Literal["truncate", "full"] = "truncate"
    segment: int = Field(128, ge=1)
    max_segments: int = Field(500, ge=2)
    max_field: int = Field(500, ge=1)
    importance: Literal["ppl", "neg_ppl", "exp_neg_nll"] = "ppl"

    summary: ClassVar[str] = "which long instruction rows teach the most"
    source: ClassVar[str] = "GATEAU 2410.15633"
    cost: ClassVar[str] = (
        "1 + (|x| + |y|) / 128 tokens of forward pass a token, and up to 4,096 for the short model"
    )
    reads: ClassVar[tuple[str, ...]] = ("text", "meta")
    writes: ClassVar[tuple[str, ...]] = tuple(_ALL.names)
    feeds_bos: ClassVar[bool] = False

    @model_validator(mode="after")
    def _consistent(self) -> "SelectGateau":
        if self.max_tokens is not None:
            raise ValueError("`max_tokens` is not used here: `window` cuts the context")
        return self

    def sizes(self, room: int, stage: str) -> Any:
        window = self.window or min(_WINDOW, room)
        self.refuse("window", window, room, stage)
        return window

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if self.short_model is None:
            return
        try:
            self._other().check(setting)
        except RecipeError as error:
            place = f"{setting.stage}: short_model"
            raise RecipeError(error.message, where=place, remedy=error.remedy) from None

    def _other(self) -> "SelectGateau":
        """This op with the short model as its only one, and as much as it reads as its window."""
        return self.model_copy(
            update={"model": self.short_model, "short_model": None, "window": None}
        )

    def short_size(self, room: int, window: int, stage: str) -> int:
        """Tokens that the short model is fed, of the `window` that the long one is."""
        if self.short_mode == "full":
            self.refuse("short_mode: full", window, room, stage)
            return window
        size = self.short_window or min(_SHORT_WINDOW, room)
        self.refuse("short_window", size, room, stage)
        return size

    def load(self, setting: Setting) -> Any:
        from longctx.score.gateau_rows import role_of

        long = short = super().load(setting)
        other = self
        if self.short_model is not None:
            other = self._other()
            short = super(SelectGateau, other).load(setting)
        window = self.sizes(self.room(long), setting.stage)
        read = other.short_size(self.room(short), window, setting.stage)
        return Roles(role_of(long, window), role_of(short, read))

    def finished(self, stats: Mapping[str, Any], setting: Setting) -> None:
        super().finished(stats, setting)
        found = stats.get("status") or {}
        if set(found) == {_MISSING}:
            wanted = self.messages or f"{self.instruction}` and `{self.response}"
            raise RunError(
                f"no document has the fields `{wanted}` in its meta",
                where=setting.stage,
                remedy="list them under `meta` of the input, and name them in this stage",
            )

    def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
        rows: list[dict[str, Any]] = []
        errors: dict[int, Exception] = {}
        texts, metas = (table.column(name).to_pylist() for name in self.reads)
        for i, (text, meta) in enumerate(zip(texts, metas, strict=True)):
            row = self._row(text, json.loads(meta or "{}"), model)
            if isinstance(row, Exception):
                errors[i] = row
            rows.append({_STATUS: "ok"} if isinstance(row, Exception) else row)
        scorer = {
            **model.long.lm.identity,
            "window": model.long.window,
            "short": {**model.short.lm.identity, "window": model.short.window},
        }
        return answer(rows, _ALL, _STATUS, errors, scorer)

    def _row(
        self, text: str, meta: dict[str, Any], model: Roles
    ) -> dict[str, Any] | FloatingPointError:
        """Columns of one row, or what went wrong with it."""
        from longctx.score.gateau import importance
        from longctx.score.gateau_rows import (
            Limits,
            fields_of,
            fields_of_messages,
            parts_of,
            read_row,
        )
        from longctx.score.likelihood import numbers

        if self.messages is None:
            fields = fields_of(text, meta, self.instruction, self.response)
        else:
            fields = fields_of_messages(meta.get(self.messages))
        if fields is None:
            return {_STATUS: _MISSING}
        if not fields.instruction.strip():
            return {_STATUS: "error:no_instruction"}
        if not fields.context.strip() or not fields.response.strip():
            return {_STATUS: "empty"}
        long = parts_of(model.long.lm, fields)
        short = long if model.short.lm is model.long.lm else parts_of(model.short.lm, fields)
        raw = read_row(
            (model.short, short),
            (model.long, long),
            short_mode=self.short_mode,
            limits=Limits(self.segment, self.max_segments, self.max_field),
        )
        if raw is None:
            return {_STATUS: "error:too_long"}
        count = len(raw.alone)
        values: dict[str, float | int | None] = {
            "ga_hmg": raw.nll_a - raw.nll_b,
            "ga_nll_a": raw.nll_a,
            "ga_nll_b": raw.nll_b,
            "ga_cas": raw.cas(self.importance) if count else None,
        }
        if not numbers(values):
            return FloatingPointError("the model gave likelihoods that are no numbers")
        return {
            **values,
            "ga_is": importance(raw.alone).tolist(),
            "ga_attn": raw.attention.tolist(),
            "ga_n_seg": count,
            "ga_truncated": raw.cut,
            _STATUS: "ok" if count else "too_short",
        }
