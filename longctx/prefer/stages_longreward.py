"""`prefer.longreward` on the engine: ten answers a prompt, judged on four dimensions, a pair."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.cost.model_calls import ModelCalls
from longctx.embed.named import HASH, embedder_of, prepare
from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.errors import RecipeError
from longctx.llm.ask import CallStage
from longctx.llm.controls import Control
from longctx.llm.types import Usage
from longctx.location import Location
from longctx.prefer import longreward as lr
from longctx.prefer.asked import QUESTION, asked_of
from longctx.prefer.asking import Asker
from longctx.prefer.figures import pair_facts, pair_figures
from longctx.prefer.longreward import PROMPT_VERSION, SYSTEM, PairRules, Scored
from longctx.prefer.longreward_controls import STABILITY, control
from longctx.prefer.longreward_plan import (
    Sizes,
    assumed,
    calls_of_a_control,
    calls_of_a_prompt,
)
from longctx.prefer.longreward_unit import (
    COMPLETENESS,
    HELPFULNESS,
    JUDGING,
    LOGICALITY,
    NOTES,
    SAMPLE,
    STATEMENTS,
    SUPPORT,
    Settings,
    judge_unit,
)
from longctx.prefer.pairs import RejectedRule, Side, build
from longctx.prefer.stages_base import Preference
from longctx.prefer.stages_prompts import answers_of, prompts_of
from longctx.prefer.stages_work import CONTEXT, CONTROLS, JUDGED
from longctx.synth.draw import generator
from longctx.synth.items import Item
from longctx.synth.prompt import Prompt
from longctx.synth.rows import Reject, Row
from longctx.synth.stages_table import content_of
from longctx.synth.tokens import TokenCounter
from longctx.synth.words import count_words

_MARGINS = (0, 1, 2, 4, 8, 16, 32)
_MOST_DROPPED = 0.1
_AGAIN = 0.7
_CHECKS = {
    SAMPLE: lr.check_answer,
    NOTES: lr.check_notes,
    HELPFULNESS: lr.check_mark,
    LOGICALITY: lr.check_mark,
    STATEMENTS: lr.check_statements,
    SUPPORT: lr.check_support,
    COMPLETENESS: lr.check_mark,
}


class PreferLongReward(Preference):
    """Makes pairs of answers to questions on long contexts, marked by a model on four dimensions.

    Of each prompt `n` answers are sampled from `generator` (at most `answer_tokens`); `judge`, or
    the same model, marks each from 0 to 10 on helpfulness, logicality, faithfulness (its
    statements against the `top_k` nearest passages of `fact_chunk` tokens) and completeness
    (against notes of every `notes_chunk` tokens). The best of `min_candidates` scored answers or
    more is chosen; `rejected` says which other one is not: min, mu-2sigma, random or worst_k. A
    lead below `margin` of 40, or a best answer below `least_faithfulness` or `least_completeness`,
    makes no pair.

    Prompts come from `prompts`, a file of {id, query, doc_id or context}, or the model asks one
    question about each of `rows` documents. `candidates` is a file of ready answers
    {idx: "ID-0", answer} that stand in for sampled ones. `embedder` finds passages: hash, or an
    encoder as in `embed`. Answers without a statement are dropped, unless `empty_statements` is
    neutral (5 of 10) or zero.

    The output holds part-*.parquet (pairs), trl-*.jsonl (for TRL), candidates-*.parquet and
    notes-*.parquet (all that was marked and noted), rejects-*.parquet (prompts without a pair),
    calls-*.parquet (calls without a reply) and judge_report.json: controls of the judge on
    `control_share` of the prompts, `control_rows` at least. A judge that fails a hard one ends the
    run, unless `on_bad_judge` is report.
    """

    op: Literal["prefer.longreward"]
    n: int = Field(lr.CANDIDATES, ge=2)
    answer_tokens: int = Field(1_024, ge=1)
    question_tokens: int = Field(256, ge=1)
    candidates: Location | None = None
    notes_chunk: int = Field(lr.NOTES_CHUNK, ge=64)
    fact_chunk: int = Field(lr.FACT_CHUNK, ge=8)
    top_k: int = Field(lr.TOP_K, ge=1, le=20)
    embedder: Location = HASH
    empty_statements: lr.Empty = "drop"
    min_candidates: int = Field(5, ge=2)
    margin: float = Field(2.0, ge=0, le=40)
    least_faithfulness: float = Field(8.0, ge=0, le=10)
    least_completeness: float = Field(5.0, ge=0, le=10)
    rejected: RejectedRule = "min"
    worst_k: int = Field(3, ge=1)

    summary: ClassVar[str] = "pairs of answers, judged on four dimensions"
    source: ClassVar[str] = "LongReward (arXiv 2410.21252)"
    cost: ClassVar[str] = (
        "about 250 calls a prompt with ten answers, most of them short; `longctx plan` counts"
    )
    system: ClassVar[str] = SYSTEM
    prompt_version: ClassVar[str] = PROMPT_VERSION
    judging: ClassVar[frozenset[str]] = JUDGING | {STABILITY, CONTROLS}
    extra_tables: ClassVar[Mapping[str, pa.Schema]] = {
        "candidates": lr.CANDIDATE_TABLE,
        "notes": lr.NOTES_TABLE,
    }
    decides: ClassVar[frozenset[str]] = frozenset(
        {"n", "candidates", "notes_chunk", "fact_chunk", "top_k", "embedder", "empty_statements"}
    )
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {
        "rows": frozenset(
            {"min_candidates", "margin", "least_faithfulness", "least_completeness", "rejected"}
            | {"worst_k", "length_ratio"}
        )
    }

    def fingerprint_fields(self) -> dict[str, Any]:
        where = f"{self.op}: candidates"
        ready = None if self.candidates is None else content_of(self.candidates, "prompts", where)
        return {**super().fingerprint_fields(), "candidates": ready}

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if self.candidates is not None:
            answers_of(self.candidates, f"{setting.stage}: candidates")
        if self.embedder.startswith(("/", "./", "../")) and not Path(self.embedder).is_dir():
            raise RecipeError(
                f"there is no encoder folder {self.embedder}",
                where=f"{setting.stage}: embedder",
                remedy='correct the path, or name "hash", "static", "minilm" or a Hugging Face '
                "model",
            )

    def prepare(self, setting: Setting) -> None:
        prepare(self.embedder)

    def question_call(self) -> CallStage:
        return self._stage(QUESTION, lr.check_question, self.question_tokens, self.temperature)

    def judged_calls(self) -> tuple[CallStage, ...]:
        steps = [step for step in _CHECKS if step != SAMPLE or self.candidates is None]
        return tuple(
            self._stage(step, _CHECKS[step], self.answer_tokens, self.temperature)
            if step == SAMPLE
            else self._stage(step, _CHECKS[step], self.judge_tokens)
            for step in steps
        )

    def control_calls(self) -> tuple[CallStage, ...]:
        return (self._stage(STABILITY, lr.check_mark, self.judge_tokens, _AGAIN),)

    def _stage(self, step: str, check: Any, tokens: int, temperature: float = 0.0) -> CallStage:
        return CallStage(
            system=SYSTEM,
            name=f"{SYSTEM}.{step}",
            check=check,
            max_tokens=tokens,
            temperature=temperature,
            top_p=self.top_p if step in (QUESTION, SAMPLE) else 1.0,
            words=lr.WORDS,
            # A refusal is a candidate like any other: it is marked, and never chosen.
            refusals=step != SAMPLE,
        )

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        return lr.request_question(item.text, item.lang)

    def judged(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> dict[str, dict[str, Any] | Reject]:
        return dict(judge_unit(items, asker, counter, self._settings()))

    def controls(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> list[Control]:
        return control(items, asker, counter, self._settings(), JUDGED)

    def _settings(self) -> Settings:
        ready = None if self.candidates is None else answers_of(self.candidates, self.op)
        return Settings(
            n=self.n,
            embed=embedder_of(self.embedder),
            empty=self.empty_statements,
            top_k=self.top_k,
            fact_chunk=self.fact_chunk,
            notes_chunk=self.notes_chunk,
            ready=ready,
        )

    @property
    def pair_rules(self) -> PairRules:
        """What makes a pair of scored candidates."""
        return PairRules(
            least_candidates=self.min_candidates,
            margin=self.margin,
            least_faithfulness=self.least_faithfulness,
            least_completeness=self.least_completeness,
            rejected=self.rejected,
            worst_k=self.worst_k,
        )

    def row(self, item: Item, counter: TokenCounter, seed: int) -> Row | Reject:
        answers = {c["sample_index"]: c for c in item.replies[JUDGED]["candidates"]}
        found = build_pair_of(answers, self.pair_rules, seed, item.id)
        if isinstance(found, Reject):
            return found
        asked = asked_of(item)
        chosen, rejected = (
            Side(text=answers[s.index]["answer"], score=s.total, dims=s.marks()) for s in found
        )
        row = build(
            self.group(item, asked, seed),
            chosen,
            rejected,
            rule=self.rejected,
            max_ratio=self.length_ratio,
            checks={"faithful": True, "complete": True},
        )
        return row if isinstance(row, Reject) else {**row, CONTEXT: asked.context}

    def tables(self, item: Item) -> Mapping[str, Sequence[Row]]:
        told = item.replies[JUDGED]
        return {kind: [{"id": item.id, **one} for one in told[kind]] for kind in self.extra_tables}

    def counts(self, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "candidates": summary.merge({c["status"]: 1} for f in found for c in f["candidates"])
        }

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        told = item.replies[JUDGED]
        facts = [fact for c in told["candidates"] for fact in c["facts"]]
        return {
            **pair_facts(row),
            "without_evidence": sum(f["level"] != "none" and not f["evidence"] for f in facts),
            "notes": len(told["notes"]),
            "wanted_notes": math.ceil(self._tokens(told) / self.notes_chunk),
        }

    def _tokens(self, told: Mapping[str, Any]) -> int:
        return told["notes"][-1]["end_tok"] if told["notes"] else 0

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        found = pair_figures(facts, self.length_ratio, self.margin, _MARGINS)
        if not facts:
            return found
        bare = sum(f["without_evidence"] for f in facts)
        whole = sum(f["notes"] == f["wanted_notes"] for f in facts)
        return {
            **found,
            "evidence": {"ok": bare == 0, "without": bare},
            "notes": {"ok": whole == len(facts), "share": whole / len(facts)},
        }

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        told = super()._told(context, model, chosen)
        known = told.get("candidates", {})
        of = sum(known.values()) - known.get("duplicate", 0)
        share = known.get("no_statements", 0) / of if of else 0.0
        dropped = {"ok": share <= _MOST_DROPPED, "share": share, "n": of}
        return {**told, "checks": {**told["checks"], "dropped_candidates": dropped}}

    def model_calls(self, documents: int) -> list[ModelCalls]:
        there = documents if self.prompts is None else len(prompts_of(self.prompts, self.op))
        prompts = min(self.rows, there)
        sizes = self._sizes()
        told = calls_of_a_prompt(sizes)
        planned = [
            self._planned(call, prompts * told[call.step][0], told[call.step][1], sizes)
            for call in self.calls()
        ]
        each, reads = calls_of_a_control(sizes)
        seen = self.sampled(prompts)
        return [*planned, self._planned(self.control_stage(), seen * each, reads, sizes)]

    def _sizes(self) -> Sizes:
        return Sizes(
            context=math.ceil(self.quotas.mean_tokens()),
            n=self.n,
            answer=self.answer_tokens,
            notes_chunk=self.notes_chunk,
            fact_chunk=self.fact_chunk,
            top_k=self.top_k,
        )

    def control_stage(self) -> CallStage:
        """All calls of the controls together, as a plan shows them."""
        return self._stage(CONTROLS, lr.check_mark, self.judge_tokens)

    def _planned(self, call: CallStage, calls: int, reads: int, sizes: Sizes) -> ModelCalls:
        used = Usage(calls * reads, calls * call.max_tokens)
        return ModelCalls(
            stage=call.name,
            calls=calls,
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            usd=self.usd(call.step, used),
            assumed=assumed(sizes),
        )


def build_pair_of(
    answers: Mapping[int, Mapping[str, Any]], rules: PairRules, seed: int, prompt_id: str
) -> tuple[Scored, Scored] | Reject:
    """The two candidates of a prompt that make its pair; copies count once."""
    scored = [
        Scored(
            index=index,
            words=count_words(one["answer"]),
            **{name: one["scores"][name] for name in lr.DIMENSIONS},
        )
        for index, one in answers.items()
        if one["status"] == "ok"
    ]
    return lr.build_pair(scored, rules, generator(seed, SYSTEM, "rejected", prompt_id))
