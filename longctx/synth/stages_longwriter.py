"""`synth.longwriter` on the engine: AgentWrite, long texts planned and written by paragraphs.

Documents are instructions: their text is what a user asks for. `instructions` leaves some out by
rule and reads the length they state, `lw.select` asks which need a long answer, `lw.plan` for
paragraphs, `lw.write` for one after the other (all documents of a unit advance together), `checked`
refuses texts by rule, `lw.judge` marks what is left, and `rows` joins. What we changed of the
method is said in `longwriter`, `longwriter_calls` and `longwriter_rows`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from longctx.cost.model_calls import ModelCalls
from longctx.engine.barrier import BarrierContext
from longctx.llm.ask import CallStage
from longctx.llm.spec import GeneratorSpec
from longctx.llm.types import Usage
from longctx.synth.items import Item
from longctx.synth.longwriter import SYSTEM, agentwrite_input_tokens
from longctx.synth.longwriter_calls import (
    JUDGE_MESSAGES,
    PLAN_MESSAGES,
    PROMPT_VERSION,
    WRITE_MESSAGES,
    check_judge,
    check_plan,
    check_select,
    check_write,
    marks_of,
    prompt_problem,
    reply_of_text,
    request_judge,
    request_plan,
    request_select,
    steps_of,
)
from longctx.synth.longwriter_drafts import Draft, paragraphs_of
from longctx.synth.longwriter_figures import facts, figures
from longctx.synth.longwriter_required import Required, required_length
from longctx.synth.longwriter_rows import MIN_WORDS, S_L_MIN, assemble, row_problems
from longctx.synth.prompt import Prompt
from longctx.synth.rows import LONGWRITER, Reject, Row
from longctx.synth.stages_base import Synthesis, Units
from longctx.synth.stages_longwriter_work import SiftWork, WriteWork
from longctx.synth.stages_system import Language
from longctx.synth.stages_work import AskWork
from longctx.synth.tokens import TokenCounter

INSTRUCTIONS, SELECT, PLAN, WRITE = "instructions", "lw.select", "lw.plan", "lw.write"
CHECKED, JUDGE = "checked", "lw.judge"
Check = Callable[[Mapping[str, Any], Mapping[str, Any]], str | tuple[str, ...] | None]
_UNMENDED = frozenset({"empty", "sentinel", "refusal"})
# What a plan of calls assumes: words of a paragraph, tokens of a word, of a line of the plan, of an
# instruction and of the wording around it.
_PARAGRAPH_WORDS, _WORD_TOKENS, _LINE_TOKENS = 500, 4 / 3, 40
_TASK_TOKENS, _WORDING_TOKENS = 100, 200


class SynthLongWriter(Synthesis):
    """Makes rows with answers of thousands of words: planned, then written paragraph by paragraph.

    The text of a document is the instruction, as a user would give it. Some are left out by rule;
    with `select` the model leaves out those that need no long answer. The length is the one that
    the instruction states, else the sum of its plan. A plan has 2 to 50 paragraphs of 200 to 1,000
    words; each is written knowing all before it. A text is refused below `min_words`, with a length
    score below `s_l_min` (80: 1/1.4 to 1.6 of the length), unfinished, or where it repeats itself.
    With `judged`, the model of `judge` (by default that of `generator`) marks it in six dimensions.

    The output holds part-*.parquet (rows in the typed schema), chat-*.jsonl (their turns), and
    rejects-*.parquet (instructions without a row, each with its reason). `expected_words` changes
    nothing but what `longctx plan` assumes.
    """

    op: Literal["synth.longwriter"]
    min_tokens: int = Field(1, ge=1)
    max_tokens: int = Field(4_096, ge=1)
    bin_tokens: int = Field(1_000_000, ge=1)
    lang_share: dict[Language, float] = Field({"en": 0.5, "zh": 0.5}, min_length=1)
    temperature: float = Field(1.0, ge=0, le=2)
    select: bool = True
    select_tokens: int = Field(512, ge=1)
    plan_tokens: int = Field(4_096, ge=1)
    write_tokens: int = Field(4_096, ge=1)
    judged: bool = False
    judge: GeneratorSpec | None = None
    judge_temperature: float = Field(0.5, ge=0, le=2)
    judge_tokens: int = Field(1_024, ge=1)
    min_words: int = Field(MIN_WORDS, ge=1)
    s_l_min: float = Field(S_L_MIN, ge=0, le=100)
    counter: Literal["auto", "longwriter"] = "auto"
    expected_words: int = Field(5_000, ge=1)

    summary: ClassVar[str] = "answers of thousands of words, by a plan"
    source: ClassVar[str] = "AgentWrite of LongWriter (arXiv 2408.07055)"
    cost: ClassVar[str] = "a call a paragraph, each with the text so far; `longctx plan` counts"
    system: ClassVar[str] = SYSTEM
    schema: ClassVar[pa.Schema] = LONGWRITER
    prompt_version: ClassVar[str] = PROMPT_VERSION
    neutral = frozenset({"unit_rows", "max_reject_rate", "expected_words"})
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {
        CHECKED: frozenset({"min_words", "s_l_min", "counter"}),
        "rows": frozenset({"min_words", "s_l_min", "counter"}),
    }
    turns_away: ClassVar[Mapping[str, frozenset[str]]] = {SELECT: frozenset({"too_short"})}

    @model_validator(mode="after")
    def _judge_judges(self) -> "SynthLongWriter":
        if self.judge is not None and not self.judged:
            raise ValueError("a `judge` is named, but nothing is judged: set judged: true")
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        known = super().fingerprint_fields()
        return {**known, "judge": None if self.judge is None else self.judge.identity()}

    def asks(self, step: str) -> GeneratorSpec:
        return self.judge if step == JUDGE and self.judge is not None else self.generator

    def generators(self) -> tuple[GeneratorSpec, ...]:
        return (self.generator,) if self.judge is None else (self.generator, self.judge)

    def calls(self) -> tuple[CallStage, ...]:
        drawn: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p}
        plan: dict[str, Any] = {"from_text": reply_of_text, "words": PLAN_MESSAGES, "repairs": 1}
        # In a story somebody may say that he cannot help.
        write: dict[str, Any] = {"words": WRITE_MESSAGES, "refusals": False}
        stages = [
            _stage(SELECT, check_select, self.select_tokens, codes=frozenset({"too_short"})),
            _stage(PLAN, check_plan, self.plan_tokens, **plan, **drawn),
            _stage(WRITE, check_write, self.write_tokens, codes=_UNMENDED, **write, **drawn),
            _stage(
                JUDGE,
                check_judge,
                self.judge_tokens,
                words=JUDGE_MESSAGES,
                temperature=self.judge_temperature,
            ),
        ]
        wanted = {SELECT: self.select, JUDGE: self.judged}
        return tuple(stage for stage in stages if wanted.get(stage.step, True))

    def work(self, step: str) -> type[AskWork]:
        return WriteWork if step == WRITE else super().work(step)

    def model_calls(self, documents: int) -> list[ModelCalls]:
        rows = min(self.rows, documents)
        return [self._planned(call, rows) for call in self.calls()]

    def _planned(self, call: CallStage, rows: int) -> ModelCalls:
        """What a stage asks, for texts of `expected_words` in paragraphs of 500."""
        steps = max(2, math.ceil(self.expected_words / _PARAGRAPH_WORDS))
        each = round(self.expected_words / steps * _WORD_TOKENS)
        task = min(max(self.min_tokens, _TASK_TOKENS), self.max_tokens) + _WORDING_TOKENS
        calls, prompt, reply = 1, task, call.max_tokens
        if call.step == PLAN:
            reply = min(reply, steps * _LINE_TOKENS)
        elif call.step == WRITE:
            calls, reply = steps, steps * each
            prompt = agentwrite_input_tokens(steps, each, task + steps * _LINE_TOKENS)
        elif call.step == JUDGE:
            prompt = task + steps * each
        used = Usage(rows * prompt, rows * reply)
        return ModelCalls(
            stage=call.name,
            calls=rows * calls,
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            usd=self.usd(call.step, used),
            assumed=f"texts of {self.expected_words:,} words (expected_words) in {steps} "
            f"paragraphs, {_LINE_TOKENS} tokens for each in the plan, {_TASK_TOKENS} an "
            "instruction; other replies as long as allowed; no instruction left out, nothing "
            "rejected or asked for again, nothing in the cache",
        )

    def sifted(self, step: str, item: Item) -> dict[str, Any] | Reject:
        """What is known of a document that goes on, or why it does not."""
        if step == INSTRUCTIONS:
            why = prompt_problem(item.text)
            return Reject("semantic", why) if why else {"required": required_length(item.text)}
        plan, paragraphs = steps_of(item.replies[PLAN]), _paragraphs(item)
        found = row_problems(
            plan,
            paragraphs,
            # A paragraph that did not end by itself has ended its text.
            ["stop"] * len(paragraphs),
            _required(item),
            item.lang,
            self.counter,
            self.min_words,
            self.s_l_min,
        )
        return Reject(found[0].code, "; ".join(r.detail for r in found)) if found else {}

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        if step == SELECT:
            return request_select(_task(item), item.lang, _required(item))
        if step == PLAN:
            return request_plan(_task(item), item.lang, _required(item))
        return request_judge(_task(item), "\n\n".join(_paragraphs(item)), item.lang)

    def draft(self, item: Item) -> Draft:
        """The text of a document before its first paragraph."""
        plan = steps_of(item.replies[PLAN])
        return Draft(item.id, _task(item), item.lang, plan, _required(item))

    @property
    def other_calls(self) -> int:
        """Calls for a row that write no paragraph."""
        return len(self.calls()) - 1

    def row(self, item: Item, counter: TokenCounter, seed: int) -> Row:
        plan = steps_of(item.replies[PLAN])
        return assemble(
            item.id,
            _task(item),
            item.lang,
            item.source,
            plan,
            _paragraphs(item),
            _required(item),
            marks_of(item.replies[JUDGE]) if self.judged else None,
            n_calls=len(plan) + self.other_calls,
            tokens=counter,
            seed=seed,
            counter=self.counter,
        )

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        return facts(row, self.other_calls, self.min_words, self.s_l_min)

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        shares = {str(lang): share for lang, share in self.lang_share.items()}
        return figures(facts, shares, self.min_words, self.s_l_min)

    def asked(self, context: BarrierContext, chosen: Sequence[dict[str, Any]], model: str) -> Units:
        units = self._units(chosen)
        self._sift(context, INSTRUCTIONS, units, model)
        for call in self.calls():
            self._ask(context, call, units, model)
            if call.step == WRITE:
                self._sift(context, CHECKED, units, model)
        return units

    def _sift(self, context: BarrierContext, step: str, units: Units, model: str) -> None:
        work = SiftWork(self, context.setting, context.relative(step), step, model)
        ignore = self.own_fields() - self.reaches.get(step, frozenset())
        context.over_parts(step, units, ["text"], work, depends=[model], ignore=ignore)
        self._bring(context, step, units)

    def accounted_steps(self) -> list[str]:
        first, *others = super().accounted_steps()
        others.insert(others.index(WRITE) + 1, CHECKED)
        return [first, INSTRUCTIONS, *others]

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        told = super()._told(context, model, chosen)
        checks = told["checks"]
        if checks:
            stages = list(told["stages"].values())
            checks = {**checks, "conservation": _conservation(chosen, stages)}
        return {**told, "checks": checks}


def _stage(name: str, check: Check, max_tokens: int, **options: Any) -> CallStage:
    return CallStage(system=SYSTEM, name=name, check=check, max_tokens=max_tokens, **options)


def _conservation(chosen: int, stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether every stage got what the one before let through, and rejected the rest."""
    handed = [chosen, *(stage["ok"] for stage in stages)]
    held = all(
        stage["rows_in"] == before == stage["ok"] + sum(stage["rejects"].values())
        for before, stage in zip(handed, stages, strict=False)
    )
    return {"chosen": chosen, "ok_by_stage": handed[1:], "ok": held}


def _task(item: Item) -> str:
    return item.text.strip()


def _required(item: Item) -> Required | None:
    required: Required | None = item.replies[INSTRUCTIONS]["required"]
    return required


def _paragraphs(item: Item) -> list[str]:
    return paragraphs_of(item.replies[WRITE])
