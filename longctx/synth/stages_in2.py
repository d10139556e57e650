"""`synth.in2` on the engine: IN2 training of FILM, evidence anywhere in a long context.

How data flows. The base chooses documents; their types are assigned in the driver, which holds
their rows without texts. `stages_in2_pool` makes the pool of fillers. Units hold documents that are
asked alike: `sources` cuts them, `fine` and `integration` ask about them, `verify` asks the
questions without a context. `fillers` draws contexts for what was answered, from numbers alone, and
fetches the texts from the shelves; `rows` joins.

What we changed is said in `film`, `film_rows` and `in2`; fillers are of the language of their row,
for else the language would tell where the evidence stands. Lost: general instruction rows, which
need no context and are better mixed in where the rows are used; texts of documents outside
[min_tokens, max_tokens], which are fillers only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from longctx.cost.model_calls import ModelCalls
from longctx.engine.barrier import BarrierContext
from longctx.errors import RunError
from longctx.llm.ask import CallStage
from longctx.synth import in2
from longctx.synth.checks import allocate
from longctx.synth.film import PROMPT_VERSION, SYSTEM, n_segments
from longctx.synth.film_calls import (
    check_fine,
    check_integration,
    check_verify,
    request_fine,
    request_integration,
    request_verify,
)
from longctx.synth.film_fillers import LENGTHS
from longctx.synth.film_rows import MOST_PIECES, WEIGHTS, assign_types, question_kind
from longctx.synth.in2 import FILLERS, FINE, INTEGRATION, SOURCES, VERIFY
from longctx.synth.items import Item
from longctx.synth.prompt import Prompt
from longctx.synth.rows import FILM, Reject, Row
from longctx.synth.stages_base import Synthesis, Units
from longctx.synth.stages_in2_pool import pool_of_corpus
from longctx.synth.stages_in2_work import FillersWork, SourcesWork
from longctx.synth.stages_system import Language
from longctx.synth.tokens import TokenCounter

RowType = Literal["fine", "integration", "short"]
_WORDS = {
    "question_form": "The question must have 4 to 60 words and end with a question mark.",
    "refers_to_context": "Question and answer must not speak of a context, passage or text.",
    "unsupported": "The answer must say what the text says, with its words.",
    "verbatim": "The answer must be in your own words, not one run of the text.",
    "needed_out_of_range": "`needed` must name at least two different pieces, by their numbers.",
    "piece_not_needed": "Every piece that `needed` names must give something to the answer.",
    "closed_book_solvable": "The question must not be answered without its text.",
}
_PIECE_TOKENS = 128
_QUESTION_TOKENS = 30


class SynthIN2(Synthesis):
    """Makes rows whose evidence is a piece of 128 tokens, or several, anywhere in a long context.

    Of `rows` documents of min_tokens to max_tokens some are asked about one piece (fine), some so
    that several pieces are needed (integration), some either way but without fillers (short), in
    the shares of `types`. A context has a length drawn evenly from min_context to max_context and
    is filled with pieces of other documents in the row's language, drawn from a sample of
    `pool_segments` pieces of each language, in any order. With `verify` the model is asked once
    more without the context, and a row is rejected whose question it answers with confidence.
    `cluster_column` names a column with clusters of near-duplicates, of which a document gets no
    fillers.

    The output holds part-*.parquet (rows in the typed schema), chat-*.jsonl (their turns), and
    rejects-*.parquet (documents without a row, each with its reason).
    """

    op: Literal["synth.in2"]
    min_tokens: int = Field(192, ge=64)
    max_tokens: int = Field(8_192, ge=64)
    lang_share: dict[Language, float] = Field({"en": 1.0}, min_length=1)
    types: dict[RowType, float] = Field({"fine": 110, "integration": 30, "short": 15}, min_length=1)
    min_context: int = Field(LENGTHS[0], ge=256)
    max_context: int = Field(LENGTHS[1], ge=256)
    pool_segments: int = Field(200_000, ge=1)
    cluster_column: str | None = Field(None, min_length=1)
    verify: bool = False
    reply_tokens: int = Field(512, ge=1)

    summary: ClassVar[str] = "rows with evidence anywhere in a long context"
    source: ClassVar[str] = "FILM, IN2 training (arXiv 2404.16811)"
    cost: ClassVar[str] = "a short call a row, two with `verify`; texts of the pool are read once"
    system: ClassVar[str] = SYSTEM
    schema: ClassVar[pa.Schema] = FILM
    prompt_version: ClassVar[str] = PROMPT_VERSION
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {"rows": frozenset({"max_context"})}

    @field_validator("types")
    @classmethod
    def _are_shares(cls, value: dict[RowType, float]) -> dict[RowType, float]:
        if any(share < 0 for share in value.values()) or not any(value.values()):
            raise ValueError("shares are 0 and above, and one of them is above 0")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "SynthIN2":
        if self.max_context < self.min_context:
            found = f"max_context {self.max_context} is below min_context {self.min_context}"
            raise ValueError(found)
        few, many = n_segments(self.min_tokens), n_segments(self.max_tokens)
        if self.types.get("integration", 0) > 0 and not 2 <= few <= many <= MOST_PIECES:
            raise ValueError(
                f"documents of min_tokens {self.min_tokens} to max_tokens {self.max_tokens} have "
                f"{few} to {many} pieces of 128 tokens, and type integration takes 2 to "
                f"{MOST_PIECES}: tokens from 192 to 8,255"
            )
        return self

    def reads_columns(self) -> tuple[str, ...]:
        return (*self.reads, *([self.cluster_column] if self.cluster_column else []))

    def calls(self) -> tuple[CallStage, ...]:
        checks = {FINE: check_fine, INTEGRATION: check_integration}
        checks |= {VERIFY: check_verify} if self.verify else {}
        return tuple(
            CallStage(
                system=SYSTEM,
                name=f"{SYSTEM}.{step}",
                check=check,
                max_tokens=self.reply_tokens,
                codes=frozenset({"closed_book_solvable"}) if step == VERIFY else frozenset(),
                words=_WORDS,
                temperature=self.temperature,
                top_p=self.top_p,
            )
            for step, check in checks.items()
        )

    def asked_tokens(self, step: str) -> float:
        if step == INTEGRATION:
            return self.quotas.mean_tokens()
        return _PIECE_TOKENS if step == FINE else _QUESTION_TOKENS

    def model_calls(self, documents: int) -> list[ModelCalls]:
        rows = min(self.rows, documents)
        if not rows:
            return []
        counts = dict(zip(self.types, allocate(rows, list(self.types.values())), strict=True))
        either = [WEIGHTS[FINE], WEIGHTS[INTEGRATION]]
        fine, several = allocate(counts.get("short", 0), either)
        asked = {
            FINE: counts.get("fine", 0) + fine,
            INTEGRATION: counts.get("integration", 0) + several,
            VERIFY: rows,
        }
        of_all = zip(self.calls(), super().model_calls(documents), strict=True)
        return [_of_some(told, asked[call.step], rows) for call, told in of_all]

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        if step == VERIFY:
            said = in2.asked_of(item)
            return request_verify(said["question"], said["answer"], item.lang)
        source = in2.source_of(item)
        pieces = [piece.text for piece in in2.cut(item, source)]
        if step == FINE:
            return request_fine(pieces[source["piece"]], item.lang)
        return request_integration(pieces, item.lang)

    def row(self, item: Item, counter: TokenCounter, seed: int) -> Row | Reject:
        return in2.row_of(item, counter, seed, self.max_context)

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        return in2.facts(item, row)

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        types = {str(name): share for name, share in self.types.items()}
        lengths = (self.min_context, self.max_context)
        return in2.figures([dict(f) for f in facts], types, lengths)

    def accounted_steps(self) -> list[str]:
        first, *others = super().accounted_steps()
        return [first, SOURCES, *others]

    def asked(self, context: BarrierContext, chosen: Sequence[dict[str, Any]], model: str) -> Units:
        pool = pool_of_corpus(self, context)
        self._refuse_small_pool(context, {row["lang"] for row in chosen})
        typed = self._typed(chosen, context.setting.seed)
        of_kind = {
            kind: self._units([row for row in typed if row["kind"] == kind])
            for kind in (FINE, INTEGRATION)
        }
        units = [unit for of_one in of_kind.values() for unit in of_one]
        columns = ["text", *([self.cluster_column] if self.cluster_column else [])]
        context.over_parts(
            SOURCES,
            units,
            columns,
            SourcesWork(self, context.setting, context.relative(SOURCES), model),
            ignore=self.own_fields() - {"cluster_column"},
        )
        self._bring(context, SOURCES, units)
        for call in self.calls():
            if of_one := of_kind.get(call.step, units):
                self._ask(context, call, of_one, model)
        context.over_parts(
            FILLERS,
            units,
            ["text"],
            FillersWork(self, context.setting, context.relative(FILLERS), pool),
            depends=[pool.numbers.digest, pool.shelves.digest],
            ignore=self.own_fields() - {"min_context", "max_context"},
        )
        self._bring(context, FILLERS, units)
        return units

    def _typed(self, chosen: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
        """Chosen rows with the type of their row and how it is asked."""
        weights = {str(name): share for name, share in self.types.items()}
        types = assign_types([row["id"] for row in chosen], seed, weights)
        return [
            {
                **row,
                "type": types[row["id"]],
                "kind": question_kind(
                    types[row["id"]], n_segments(row["n_tokens"]), seed, row["id"]
                ),
            }
            for row in chosen
        ]

    def _refuse_small_pool(self, context: BarrierContext, langs: set[str]) -> None:
        """Before anything is asked: contexts of the longest kind need as many tokens of others."""
        tokens = context.step_stats["pool"].get("tokens", {})
        for lang in sorted(langs):
            if (found := tokens.get(lang, 0)) < self.max_context:
                raise RunError(
                    f"the pool of fillers holds {found:,} tokens of language {lang}, and contexts "
                    f"have up to {self.max_context:,}",
                    where=context.setting.stage,
                    remedy="raise pool_segments, lower max_context, or read more documents",
                )

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        told, stats = super()._told(context, model, chosen), context.step_stats
        return {**told, "pool": {**stats["pool"], **stats["segments"], **stats[FILLERS]}}


def _of_some(told: ModelCalls, calls: int, rows: int) -> ModelCalls:
    """What a stage asks that only some of the rows reach."""
    share = calls / rows
    return replace(
        told,
        calls=calls,
        prompt_tokens=round(told.prompt_tokens * share),
        completion_tokens=round(told.completion_tokens * share),
        usd=None if told.usd is None else told.usd * share,
    )
