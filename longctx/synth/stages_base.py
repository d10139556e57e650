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
from typing import Any

import pyarrow as pa

from longctx.engine import commit, summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import Commit
from longctx.engine.op import Setting
from longctx.engine.steps import StepRef
from longctx.engine.units import LoadedWork, Pool, Work
from longctx.errors import RunError
from longctx.io.output_folder import withdraw
from longctx.llm.ask import CallStage
from longctx.llm.spec import Terms, price_of
from longctx.llm.stages_batches import batches_of
from longctx.synth.held_out import decontamination
from longctx.synth.items import units_of
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
from longctx.synth.stages_system import System
from longctx.synth.stages_work import AskWork, RowsWork, terms_with

# Of each unit the parts by number, each with its chosen rows and the files of earlier steps.
Units = list[list[tuple[int, dict[str, Any]]]]


class Synthesis(System):
    """An op that makes rows of documents with a language model; the ops name the stages."""

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

    def settled(
        self, context: BarrierContext, rows: StepRef, chosen: Sequence[dict[str, Any]], model: str
    ) -> StepRef:
        """The rows that are written; ops that choose among all of them do that here."""
        return rows

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
        model = self.model_id(self.generator)
        held_out = held_out_of(self, context)
        units = self.asked(context, screened(self, context, held_out, chosen, model), model)
        own = self.own_fields() - self.reaches.get("rows", frozenset())
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
            ignore=self.own_fields(),
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

    def _choose(self, context: BarrierContext) -> list[dict[str, Any]]:
        """The steps `candidates` and `chosen`; the chosen rows, without their texts."""
        ignore = self.own_fields() - self.chooses | {"prompt_version"}
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
        model = model if spec == self.generator else self.model_id(spec)
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
            ignore=self.own_fields() - self.reaches.get(call.step, frozenset()),
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
                    brought[kind][step] = file.plain()

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
