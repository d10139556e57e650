"""The base of all preference ops: prompts chosen, answered by a policy, judged, paired and written.

A synthesis (`longctx.synth.stages_base`) whose documents become prompts. They come from a file
(`prompts`, joined with the documents by `doc_id`), or the model is asked for a question on each
chosen document, or the document is the instruction itself. Then one step, `judged`, does all calls
of a unit of prompts; `controls` asks the judge on a sample what a sound judge cannot fail; `rows`
makes pairs. Beside `part-N.parquet` lie `trl-N.jsonl`, the tables of the system, `calls-N.parquet`
with the calls that came to nothing, and `judge_report.json`.

What an op says of itself stands in `stages_system`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from longctx.engine import commit, summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import Commit
from longctx.engine.op import Setting
from longctx.engine.units import Pool, Work
from longctx.errors import RunError
from longctx.llm import controls
from longctx.llm.ask import CallStage
from longctx.llm.controls import Control
from longctx.llm.spec import GeneratorSpec, Terms, price_of
from longctx.llm.stages_batches import Batches, batches_of
from longctx.prefer.asked import QUESTION
from longctx.prefer.stages_prompts import (
    PromptsWork,
    candidates_of_prompts,
    chosen_of_prompts,
)
from longctx.prefer.stages_system import PreferenceSystem
from longctx.prefer.stages_work import (
    CALLS,
    CONTROLS,
    JUDGE,
    JUDGED,
    Clients,
    ControlsWork,
    JudgedWork,
    PairFiles,
    PairRows,
)
from longctx.synth.draw import hash_order
from longctx.synth.stages_asking import PASSING, check_share, clients_of, refuse_split_cache
from longctx.synth.stages_base import Units
from longctx.synth.stages_held_out import CLEARED, SCREENED
from longctx.synth.stages_work import terms_with

Chosen = Sequence[dict[str, Any]]


class Preference(PreferenceSystem):
    """An op that makes pairs of a better and a worse text; the ops name stages and scores."""

    def rows_work(self, setting: Setting, folder: str, model: str) -> Work:
        return PairRows(self, setting, folder, model)

    def files_work(self, setting: Setting) -> PairFiles:
        return PairFiles(self, setting)

    def vouched(self, context: BarrierContext) -> list[Commit]:
        return [*super().vouched(context), *context.step_commits[CONTROLS]]

    def _choose(self, context: BarrierContext) -> list[dict[str, Any]]:
        if self.prompts is None:
            return super()._choose(context)
        ignore = self.own_fields() - self.chooses | {"prompt_version"}
        counted = [c for c in ("n_tokens", "n_chars") if context.corpus.has(c)]
        columns = list(dict.fromkeys(["doc_id", "source", "license", "language", *counted]))
        rule = partial(candidates_of_prompts, self, columns)
        candidates = context.per_part("candidates", rule, columns, ignore=ignore)
        chosen = context.single(
            "chosen",
            partial(chosen_of_prompts, self, candidates),
            [candidates],
            ignore=ignore - {"shard_rows"},
        )
        found = chosen.read().to_pylist()
        if not found:
            raise RunError(
                "no prompt names a document of the corpus that has "
                f"{self.min_tokens:,} to {self.max_tokens:,} tokens",
                where=f"{context.setting.stage}: prompts",
                remedy="check the `doc_id` of the prompts, or change min_tokens or max_tokens",
            )
        return list(found)

    def _units(self, chosen: Sequence[dict[str, Any]]) -> Units:
        # Several prompts may be about one document, and some about none.
        placed = sorted(
            chosen, key=lambda r: (r["part"], -1 if r["row"] is None else r["row"], r["id"])
        )
        units: Units = []
        for start in range(0, len(placed), self.unit_rows):
            groups: dict[int, list[Any]] = {}
            for row in placed[start : start + self.unit_rows]:
                groups.setdefault(row["part"], []).append(row)
            brought = {"replies": {}, "rejects": {}, CALLS: {}, "unit": start}
            units.append([(part, {**brought, "rows": rows}) for part, rows in groups.items()])
        return _apart(units)

    def asked(self, context: BarrierContext, chosen: Chosen, model: str) -> Units:
        units = self._units(chosen)
        if self.prompts is not None:
            work = PromptsWork(self, context.setting, context.relative(QUESTION))
            ignore = self.own_fields() - {"prompts"}
            context.over_parts(QUESTION, units, ["doc_id"], work, ignore=ignore)
            self._bring(context, QUESTION, units)
        elif self.asks_question:
            self._ask(context, self.question_call(), units, model)
        judge = model if self.judge is None else self.model_id(self.judge)
        self._judge(context, units, model, judge)
        self._control(context, units, model, judge)
        return units

    def _judge(self, context: BarrierContext, units: Units, model: str, judge: str) -> None:
        """The step `judged`: everything that is asked about prompts."""
        clients = 1
        if not context.dry:
            clients = min(clients_of(s, context.workers, len(units)) for s in self.generators())
            for one in self.generators():
                refuse_split_cache(one, context.setting)
        both, batches = self._asking(context, JUDGED, clients, (model, judge))
        work = JudgedWork(both, context.relative(JUDGED))
        pool = Pool(clients, self._gpus(), ahead=1)
        context.over_parts(
            JUDGED,
            units,
            ["text"],
            work,
            depends=[model, judge, [_told_by(call) for call in self.judged_calls()]],
            ignore=self.own_fields() - self.decides,
            pool=pool,
            beforehand=both.beforehand(batches, work, pool) if batches else None,
        )
        if batches:
            batches.clear()
        if not context.dry:
            self._check_stages(context)
        self._bring(context, JUDGED, units)
        for groups, done in zip(units, context.step_commits[JUDGED], strict=True):
            for _, brought in groups:
                brought[CALLS][JUDGED] = done.files[2].plain()

    def _gpus(self) -> float:
        """What an actor needs that holds both models."""
        return float(sum(getattr(one, "num_gpus", 0) for one in self.generators()))

    def _asking(
        self, context: BarrierContext, step: str, clients: int, models: tuple[str, str]
    ) -> tuple[Clients, Batches | None]:
        """Both models with what is left to spend of each, what is committed counting; batches."""
        known = zip((self.generator, self.judging_spec), models, strict=True)
        policy, judge = (self._left(context, spec, name, clients) for spec, name in known)
        # One client where they are the same.
        specs: dict[str, GeneratorSpec] = {"": self.generator}
        if self.judging_spec != self.generator:
            specs[JUDGE] = self.judging_spec
        batches = None if context.dry else batches_of(context.setting, step, specs)
        if batches:
            policy = replace(policy, batch=batches.place())
            judge = replace(judge, batch=batches.place(JUDGE))
        return Clients(self, context.setting, policy, judge), batches

    def _left(
        self, context: BarrierContext, spec: GeneratorSpec, model: str, clients: int
    ) -> Terms:
        every = (*self.calls(), *self.control_calls())
        mine = {c.step for c in every if self.asks(c.step) == spec}
        used = [
            c.stats["stats"]["usage"]
            for c in context.step_commits.get(QUESTION, ())
            if QUESTION in mine and "usage" in c.stats["stats"]
        ]
        for step in (JUDGED, CONTROLS):
            for done in commit.load(f"{context.folder}/{step}").values():
                stages = done.stats.get("stats", {}).get("stages", {})
                used += [told["usage"] for name, told in stages.items() if name in mine]
        return terms_with(
            Terms(clients=clients, price=price_of(spec, model)), summary.merge(used), spec
        )

    def _check_stages(self, context: BarrierContext) -> None:
        """Ends the run where a stage of `judged` lost more calls than allowed."""
        place = f"{context.setting.stage}/{JUDGED}"
        for step, told in context.step_stats[JUDGED].get("stages", {}).items():
            away = self.turns_away.get(step, frozenset())
            try:
                check_share(told, f"{place}, {step}", away, self.max_reject_rate)
            except RunError:
                self._reopen(context)
                raise

    def _reopen(self, context: BarrierContext) -> None:
        """Units whose calls failed on their way are done again by the next run."""
        folder = f"{context.folder}/{JUDGED}"
        for done in context.step_commits[JUDGED]:
            stages = done.stats["stats"]["stages"].values()
            if any(told["rejects"].get(code) for told in stages for code in PASSING):
                commit.reopen(folder)
                commit.revoke(folder, done.unit)

    def _control(self, context: BarrierContext, units: Units, model: str, judge: str) -> None:
        """The step `controls`: one unit, so that other units change nothing of what it sees."""
        sample = self._sampled(units, context.setting.seed)
        both, batches = self._asking(context, CONTROLS, 1, (model, judge))
        work, pool = ControlsWork(both, judge, model), Pool(1, self._gpus(), ahead=1)
        context.over_parts(
            CONTROLS,
            [sample],
            ["text"],
            work,
            depends=[
                model,
                judge,
                context.setting.output,
                [_told_by(c) for c in (*self.calls(), *self.control_calls())],
            ],
            ignore=self.own_fields() - self.decides - {"control_share", "control_rows"},
            pool=pool,
            beforehand=both.beforehand(batches, work, pool) if batches else None,
        )
        if batches:
            batches.clear()
        if not context.dry and self.on_bad_judge == "fail":
            told = context.step_stats[CONTROLS]["report"]["controls"]
            controls.check([Control(**one) for one in told], context.setting.stage)

    def _sampled(self, units: Units, seed: int) -> list[tuple[int, dict[str, Any]]]:
        """The groups of all units with the first prompts by hash: a share, not fewer than some."""
        ids = [row["id"] for groups in units for _, brought in groups for row in brought["rows"]]
        first = set(hash_order(ids, seed, self.system, CONTROLS)[: self.sampled(len(ids))])
        return [
            (part, {**brought, "rows": rows})
            for groups in units
            for part, brought in groups
            if (rows := [row for row in brought["rows"] if row["id"] in first])
        ]

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        told, stats = super()._told(context, model, chosen), context.step_stats
        judged = stats[JUDGED]
        own = {n: v for n, v in judged.items() if n not in ("stages", "rows_in", "ok", "rejects")}
        asked = {QUESTION: stats[QUESTION]} if "usage" in stats.get(QUESTION, {}) else {}
        lost = ("prompts", "without_document", "out_of_range")
        # Sums come sorted by name; readers want the order of the calls.
        order = [call.step for call in self.judged_calls() if call.step in judged["stages"]]
        known = {**stats["candidates"], **stats["chosen"]}
        report = stats[CONTROLS]["report"]
        weak = {"ok": not report["weak"], "failed": len(report["weak"])}
        return {
            **told,
            "checks": {**told["checks"], "judge_controls": weak},
            "rejects": summary.merge([told["rejects"], judged["rejects"]]),
            "stages": {
                **{s: stats[s] for s in (SCREENED,) if s in stats},
                **asked,
                **{s: judged["stages"][s] for s in order},
                **{s: stats[s] for s in ("rows", CLEARED) if s in stats},
            },
            "judge": report,
            "control_calls": stats[CONTROLS]["stages"],
            "prompts": {n: known[n] for n in lost if n in known},
            **own,
        }


def _apart(units: Units) -> Units:
    """Every group with mappings of its own, which later steps fill."""
    return [
        [
            (part, {n: dict(v) if isinstance(v, dict) else v for n, v in brought.items()})
            for part, brought in groups
        ]
        for groups in units
    ]


def _told_by(call: CallStage) -> list[Any]:
    """What of a stage decides its answers beside prompts and model."""
    return [call.name, call.max_tokens, call.temperature, call.top_p]
