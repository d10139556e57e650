"""What a synthesis op says of itself: fields, stages, prompts, rows and checks, and its plan.

How that is run stands in `stages_base`. Here are no steps and no files: what an op answers depends
on its fields, a document and the seed alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from longctx.cost.model_calls import ModelCalls
from longctx.engine.op import Barrier, Setting
from longctx.filter.stages_evaluation import Against, read_sets
from longctx.io.output_folder import claim
from longctx.llm.accounting import cost_usd
from longctx.llm.ask import CallStage
from longctx.llm.spec import GeneratorSpec, RuleSet, backend_of, model_id_of, price_of
from longctx.llm.types import LLMJobError, Usage
from longctx.synth.items import Bin, Item, Quotas
from longctx.synth.prompt import Prompt
from longctx.synth.rows import Made, Reject, Row
from longctx.synth.rule_set import rule_set
from longctx.synth.tokens import TokenCounter

Language = Literal["en", "zh", "ko"]
_ASSUMED = (
    "as many documents as rows are wanted, of the middle lengths of their bins; replies as long as "
    "allowed; nothing rejected, nothing asked for again, nothing in the cache"
)


class System(Barrier):
    """What an op says that makes rows of documents with a language model."""

    generator: GeneratorSpec
    rows: int = Field(ge=1)
    min_tokens: int = Field(1, ge=1)
    max_tokens: int = Field(64_512, ge=1)
    bin_tokens: int = Field(8_192, ge=1)
    lang_share: dict[Language, float] = Field({"en": 0.9, "zh": 0.1}, min_length=1)
    default_language: Language | None = None
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    unit_rows: int = Field(200, ge=1)
    shard_rows: int = Field(256, ge=1)
    max_reject_rate: float = Field(0.2, ge=0, le=1)
    against: tuple[Against, ...] = ()
    ngram: int = Field(10, ge=2, le=256)

    system: ClassVar[str]
    schema: ClassVar[pa.Schema]
    prompt_version: ClassVar[str]
    ends: ClassVar[str] = "rows"
    reads: ClassVar[tuple[str, ...]] = ("n_tokens",)
    neutral = frozenset({"unit_rows", "max_reject_rate"})
    chooses: ClassVar[frozenset[str]] = frozenset(
        {"rows", "min_tokens", "max_tokens", "bin_tokens", "lang_share", "default_language"}
    )
    # Fields of an op that decide what a step asks, or the rows (step "rows"), by step.
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {}
    # Codes by which a step chooses, by step: they say nothing against model or prompts.
    turns_away: ClassVar[Mapping[str, frozenset[str]]] = {}

    @field_validator("lang_share")
    @classmethod
    def _is_a_share(cls, value: dict[Language, float]) -> dict[Language, float]:
        if any(share < 0 for share in value.values()) or not any(value.values()):
            raise ValueError("shares are 0 and above, and one of them is above 0")
        return value

    @model_validator(mode="after")
    def _has_lengths(self) -> "System":
        if self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is below min_tokens {self.min_tokens}")
        return self

    def calls(self) -> tuple[CallStage, ...]:
        """The stages that ask the model, in their order."""
        raise NotImplementedError

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        """What a stage asks about a document."""
        raise NotImplementedError

    def made(self, item: Item, counter: TokenCounter, seed: int) -> Sequence[Row | Made] | Reject:
        """The rows of a document that has all replies, at least one; by default `row`'s.

        The counts of a `Made` go with the row's facts, under `counts`.
        """
        row = self.row(item, counter, seed)
        return row if isinstance(row, Reject) else [row]

    def row(self, item: Item, counter: TokenCounter, seed: int) -> Row | Reject:
        """The row of a document that has all replies, where every document gives one."""
        raise NotImplementedError

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        """What `figures` has to know of a row, as plain JSON values."""
        raise NotImplementedError

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Checks over all rows by name, each a mapping that may have `ok`."""
        raise NotImplementedError

    def asks(self, step: str) -> GeneratorSpec:
        """The model that a stage asks; ops with another judge say so here and in `generators`."""
        return self.generator

    def generators(self) -> tuple[GeneratorSpec, ...]:
        """All models that are asked."""
        return (self.generator,)

    def call(self, step: str) -> CallStage:
        """The stage of a step."""
        return next(c for c in self.calls() if c.step == step)

    def choice_column(self) -> str | None:
        """A column that `bin_of` reads beside the usual ones."""
        return None

    def bin_of(self, lang: str | None, n_tokens: int | None, source: str, value: Any) -> Bin | None:
        """The bin of a document, with its value of `choice_column`; None where none takes it."""
        return self.quotas.bin_of(lang, n_tokens)

    def told_beside(self, setting: Setting) -> Mapping[str, Any]:
        """What a table says of chosen items, by their ids, where they come from one."""
        return {}

    def reject_id(self, item_id: str, row: Row) -> str:
        """The id under which a row is rejected; ops with several rows an item name the row."""
        return item_id

    def asked_tokens(self, step: str) -> float:
        """Tokens of a prompt on average, for the plan; by default the document's."""
        return self.quotas.mean_tokens()

    def rules(self) -> RuleSet:
        """What the scripted backend replies."""
        return rule_set()

    @property
    def quotas(self) -> Quotas:
        """Which documents are wanted."""
        shares: dict[str, float] = {lang: self.lang_share[lang] for lang in sorted(self.lang_share)}
        return Quotas(self.rows, self.min_tokens, self.max_tokens, self.bin_tokens, shares)

    def fingerprint_fields(self) -> dict[str, Any]:
        known = super().fingerprint_fields()
        generator = {"generator": self.generator.identity()}
        against = [one.identity(f"{self.op}: against.{i}") for i, one in enumerate(self.against)]
        own = {"against": against, "prompt_version": self.prompt_version}
        return {**known, **generator, **own}

    def check(self, setting: Setting) -> None:
        claim(setting)
        read_sets(self.against, setting.stage)
        for spec in self.generators():
            model = backend_of(spec, self.rules()).model_id
            if spec.max_usd is not None and price_of(spec, model) is None:
                raise LLMJobError(
                    "misconfigured",
                    f"max_usd is set, but the price file knows no price of {model}",
                    where=setting.stage,
                )

    def model_calls(self, documents: int) -> list[ModelCalls]:
        rows = min(self.rows, documents)
        counted = [(call, round(rows * self.asked_tokens(call.step))) for call in self.calls()]
        return [
            ModelCalls(
                stage=call.name,
                calls=rows,
                prompt_tokens=prompt,
                completion_tokens=rows * call.max_tokens,
                usd=self.usd(call.step, Usage(prompt, rows * call.max_tokens)),
                assumed=_ASSUMED,
            )
            for call, prompt in counted
        ]

    def usd(self, step: str, usage: Usage) -> float | None:
        """What a stage's tokens cost, where there is a price."""
        spec = self.asks(step)
        # Without a price nothing depends on the model's id, and to find it may take its files.
        price = price_of(spec, self.model_id(spec)) if spec.price_file is not None else None
        return cost_usd(usage, price)

    def model_id(self, spec: GeneratorSpec) -> str:
        """The id of a model, as the keys of its answers hold it."""
        return model_id_of(spec, self.rules())
