"""The base of all synthesis ops: documents chosen, a model asked, rows checked and written.

A barrier that ends in rows. `candidates` beside each part and `chosen` in one place say which
documents; then a step for every stage that asks a model, whose units are at most `unit_rows`
documents; `rows` makes rows of the replies, `figures` looks at all of them together, `files` writes
them by ranges of ids. With `against` documents are looked at before anything is asked, and rows
when they are made (`stages_held_out`). A killed run goes on from the units that are committed and,
inside a unit, from the cache of answers. Nothing but the model's answers and the seed decides a
byte of the rows: neither parts, units nor workers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from longctx.cost.model_calls import ModelCalls
from longctx.engine import commit, summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import Commit
from longctx.engine.op import Barrier, Setting
from longctx.engine.steps import StepRef
from longctx.engine.units import LoadedWork, Pool, Work
from longctx.errors import RunError
from longctx.filter.stages_evaluation import Against, read_sets
from longctx.io.output_folder import claim, withdraw
from longctx.llm.accounting import cost_usd
from longctx.llm.ask import CallStage
from longctx.llm.spec import (
    GeneratorSpec,
    RuleSet,
    Terms,
    backend_of,
    model_id_of,
    price_of,
)
from longctx.llm.stages_batches import batches_of
from longctx.llm.types import LLMJobError, Usage
from longctx.synth.held_out import decontamination
from longctx.synth.items import Bin, Item, Quotas, units_of
from longctx.synth.prompt import Prompt
from longctx.synth.rows import Made, Reject, Row
from longctx.synth.rule_set import rule_set
from longctx.synth.stages_asking import check_rejects, clients_of, refuse_split_cache
from longctx.synth.stages_choose import candidates_of, chosen_of, figures_of
from longctx.synth.stages_files import FilesWork, publish, to_file
from longctx.synth.stages_held_out import (
    CLEARED,
    HELD_OUT,
    SCREENED,
    HeldOut,
    cleared,
    finished,
    held_out_of,
    screened,
)
from longctx.synth.stages_work import AskWork, RowsWork, terms_with
from longctx.synth.tokens import TokenCounter

Language = Literal["en", "zh", "ko"]
# Of each unit the parts by number, each with its chosen rows and the files of earlier steps.
Units = list[list[tuple[int, dict[str, Any]]]]
_ASSUMED = (
    "as many documents as rows are wanted, of the middle lengths of their bins; replies as long as "
    "allowed; nothing rejected, nothing asked for again, nothing in the cache"
)


class Synthesis(Barrier):
    """An op that makes rows of documents with a language model; the ops name the stages."""

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
    def _has_lengths(self) -> "Synthesis":
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

    def work(self, step: str) -> type[AskWork]:
        """How the units of a stage ask; ops with a stage of many calls a document say so here."""
        return AskWork

    def rows_work(self, setting: Setting, folder: str, model: str) -> Work:
        """What makes rows of the units; ops whose units are no documents say so here."""
        return RowsWork(self, setting, folder, model)

    def files_work(self, setting: Setting) -> FilesWork:
        """What writes the files of a range of ids; ops with files of their own say so here."""
        return FilesWork(self, setting)

    def vouched(self, context: BarrierContext) -> list[Commit]:
        """The commits whose files the manifest lists."""
        return context.step_commits["files"]

    def accounted(self, context: BarrierContext, chosen: int) -> bool:
        """Whether what went in is what came out, rejects included; by default documents."""
        made, told = context.step_stats["rows"], context.step_stats["files"]
        # What a row is turned into later is of a document that had been made into one.
        later = context.step_stats.get(CLEARED, {}).get("rejects", {})
        rejects = told.get("rejects", 0) - sum(later.values())
        return bool(made["ok"] + rejects == chosen)

    def rows_made(self, context: BarrierContext) -> int:
        """How many rows are to be written; by default those of the last step that made any."""
        stats = context.step_stats
        return int(stats[CLEARED]["ok"] if CLEARED in stats else stats["rows"]["rows"])

    def choice_column(self) -> str | None:
        """A column that `bin_of` reads beside the usual ones."""
        return None

    def bin_of(self, lang: str | None, n_tokens: int | None, source: str, value: Any) -> Bin | None:
        """The bin of a document, with its value of `choice_column`; None where none takes it."""
        return self.quotas.bin_of(lang, n_tokens)

    def settled(
        self, context: BarrierContext, rows: StepRef, chosen: Sequence[dict[str, Any]], model: str
    ) -> StepRef:
        """The rows that are written; ops that choose among all of them do that here."""
        return rows

    def told_beside(self, setting: Setting) -> Mapping[str, Any]:
        """What a table says of chosen items, by their ids, where they come from one."""
        return {}

    def reject_id(self, item_id: str, row: Row) -> str:
        """The id under which a row is rejected; ops with several rows an item name the row."""
        return item_id

    def held_out(self, context: BarrierContext) -> HeldOut | None:
        """The evaluation texts that nothing may share a run of words with, where any are named.

        Known once documents are chosen. An op that draws other documents than these asks
        `HeldOut.shared` about their texts, and takes `HeldOut.depends` into what its step depends
        on.
        """
        step = finished(context, HELD_OUT)
        return None if step is None else HeldOut(step, self.ngram)

    def accounted_steps(self) -> list[str]:
        """The steps in which an item goes on or becomes a reject, in their order."""
        return [SCREENED, *(call.step for call in self.calls()), "rows", CLEARED]

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
        price = price_of(spec, self._model_id(spec)) if spec.price_file is not None else None
        return cost_usd(usage, price)

    def _model_id(self, spec: GeneratorSpec) -> str:
        return model_id_of(spec, self.rules())

    def run(self, context: BarrierContext) -> None:
        if not context.dry:
            withdraw(context.setting)
        chosen = self._choose(context)
        if not chosen:
            raise RunError(
                f"no document has {self.min_tokens:,} to {self.max_tokens:,} tokens and one of the "
                f"languages {', '.join(self.lang_share)}",
                where=context.setting.stage,
                remedy="change min_tokens, max_tokens or lang_share, or set default_language for "
                "documents that say no language",
            )
        model = self._model_id(self.generator)
        held_out = held_out_of(self, context)
        units = self.asked(context, screened(self, context, held_out, chosen, model), model)
        own = self._own_fields() - self.reaches.get("rows", frozenset())
        work = self.rows_work(context.setting, context.relative("rows"), model)
        rows = self._over(context, "rows", units, work, depends=[model], ignore=own)
        rows = cleared(self, context, held_out, rows, model)
        rows = self.settled(context, rows, chosen, model)
        context.single("figures", partial(figures_of, self, rows), [rows])
        turned_away = finished(context, SCREENED)
        context.exchange(
            "files",
            [(step, to_file) for step in (rows, turned_away) if step is not None],
            None,
            pa.schema([]),
            buckets=1 + max(row["file"] for row in chosen),
            work=replace(self.files_work(context.setting), held_out=held_out),
            ignore=self._own_fields(),
            depends=[
                context.setting.output,
                context.setting.recipe_fingerprint,
                *(held_out.depends() if held_out else ()),
            ],
        )
        if not context.dry:
            publish(self, context, self._told(context, model, len(chosen)))

    def asked(self, context: BarrierContext, chosen: Sequence[dict[str, Any]], model: str) -> Units:
        """The chosen documents in units, after all stages; ops with more steps do them here."""
        units = self._units(chosen)
        for call in self.calls():
            self._ask(context, call, units, model)
        return units

    def _over(
        self, context: BarrierContext, step: str, units: Units, work: Work | LoadedWork, **more: Any
    ) -> StepRef:
        """A step over units of documents in parts; ops with units of another kind run them here."""
        return context.over_parts(step, units, ["text"], work, **more)

    def _units(self, chosen: Sequence[dict[str, Any]]) -> Units:
        return [
            [(part, {"rows": rows, "replies": {}, "rejects": {}}) for part, rows in groups]
            for groups in units_of(chosen, self.unit_rows)
        ]

    def _own_fields(self) -> frozenset[str]:
        return frozenset(type(self).model_fields) - {"op"}

    def _choose(self, context: BarrierContext) -> list[dict[str, Any]]:
        """The steps `candidates` and `chosen`; the chosen rows, without their texts."""
        ignore = self._own_fields() - self.chooses | {"prompt_version"}
        counted = [c for c in ("n_tokens", "n_chars") if context.corpus.has(c)]
        beside = [column] if (column := self.choice_column()) else []
        known = ["doc_id", "source", "license", "language", *counted, *beside]
        columns = list(dict.fromkeys(known))
        candidates = context.per_part(
            "candidates", partial(candidates_of, self, columns), columns, ignore=ignore
        )
        rule = partial(chosen_of, self, candidates)
        chosen = context.single("chosen", rule, [candidates], ignore=ignore - {"shard_rows"})
        return list(chosen.read().to_pylist())

    def _ask(
        self,
        context: BarrierContext,
        call: CallStage,
        units: Units,
        model: str,
    ) -> None:
        """One stage: asked, counted, and its files made known to the units of what follows."""
        clients, spec = 1, self.asks(call.step)
        if not context.dry:
            clients = clients_of(spec, context.workers, len(units))
            refuse_split_cache(spec, context.setting)
        # `model` is that of `generator`; a judge has an id of its own.
        model = model if spec == self.generator else self._model_id(spec)
        terms = self._terms(context, call, clients, model)
        batches = None if context.dry else batches_of(context.setting, call.step, {"": spec})
        terms = replace(terms, batch=batches.place() if batches else None)
        folder = context.relative(call.step)
        work = self.work(call.step)(self, context.setting, folder, call.step, terms)
        pool = Pool(clients, getattr(spec, "num_gpus", 0), ahead=1)
        self._over(
            context,
            call.step,
            units,
            work,
            depends=[model, call.max_tokens, call.temperature, call.top_p],
            ignore=self._own_fields() - self.reaches.get(call.step, frozenset()),
            pool=pool,
            beforehand=batches.beforehand(work, pool, {"": terms}) if batches else None,
        )
        if batches:
            batches.clear()
        if not context.dry:
            away = self.turns_away.get(call.step, frozenset())
            check_rejects(context, call, away, self.max_reject_rate)
        self._bring(context, call.step, units)

    def _bring(self, context: BarrierContext, step: str, units: Units) -> None:
        """Make the files of a step known to the units of what follows."""
        for groups, done in zip(units, context.step_commits[step], strict=True):
            for kind, file in zip(("replies", "rejects"), done.files, strict=False):
                for _, brought in groups:
                    brought[kind][step] = list(vars(file).values())

    def _terms(self, context: BarrierContext, call: CallStage, clients: int, model: str) -> Terms:
        """What is left to spend: earlier steps and the units of this one that are there count."""
        spec = self.asks(call.step)
        same = {c.step for c in self.calls() if self.asks(c.step) == spec} - {call.step}
        here = commit.load(f"{context.folder}/{call.step}").values()
        done = [c for step in same for c in context.step_commits.get(step, ())]
        used = [c.stats.get("stats", {}).get("usage", {}) for c in [*done, *here]]
        terms = Terms(clients=clients, price=price_of(spec, model))
        return terms_with(terms, summary.merge(used), spec)

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        """What run.json says of the synthesis."""
        stats = context.step_stats
        seen = stats["candidates"]
        steps = [step for step in self.accounted_steps() if step in stats]
        return {
            "system": self.system,
            "prompt_version": self.prompt_version,
            "model": model,
            "chosen": chosen,
            "rows": stats["files"].get("rows", 0),
            "rejects": summary.merge(stats[s]["rejects"] for s in steps),
            "without_language": seen["without_language"],
            "quotas": self.quotas.report(seen["available"], stats["chosen"]["reached"]),
            "stages": {step: stats[step] for step in steps},
            "checks": {**stats["figures"].get("checks", {}), **self._decontaminated(stats)},
        }

    def _decontaminated(self, stats: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The check of what was written against the evaluation texts, where rows were written."""
        told = stats["files"]
        if not told.get("rows"):
            return {}
        texts = stats.get(HELD_OUT, {}).get("texts", 0)
        return {"decontamination": decontamination(told.get("hits", 0), texts, self.ngram)}
