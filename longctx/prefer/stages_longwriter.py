"""`prefer.longwriter` on the engine: four answers to a writing task, the best and a worse one.

Prompts are documents that hold instructions, or rows of a file (`prompts`). The base runs `judged`,
where `longwriter.judge_unit` samples and marks; rows are made of what it left, so another `margin`
asks nothing again. The op `synth.longwriter` writes rows by a plan; here the model answers at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.cost.model_calls import ModelCalls
from longctx.llm import controls
from longctx.llm.ask import CallStage, Ok
from longctx.llm.controls import Control
from longctx.llm.types import Usage
from longctx.prefer import longwriter as lw
from longctx.prefer.asked import asked_of
from longctx.prefer.asking import Asker
from longctx.prefer.longwriter import JUDGE, SAMPLE, SYSTEM, Case
from longctx.prefer.pairs import Group
from longctx.prefer.stages_base import Preference
from longctx.prefer.stages_work import CONTEXT, JUDGED
from longctx.synth.items import Item
from longctx.synth.longwriter import DIMENSIONS, MARGIN, s_q
from longctx.synth.longwriter_calls import JUDGE_MESSAGES, check_judge, prompt_problem
from longctx.synth.longwriter_required import Required, required_length
from longctx.synth.rows import Reject, Row
from longctx.synth.stages_system import Language
from longctx.synth.tokens import TokenCounter

_TASK_TOKENS, _WORD_TOKENS = 300, 4 / 3
_SAMPLES = "samples"


class PreferLongWriter(Preference):
    """Makes pairs of long answers to one writing task, by length and by a judge's marks.

    The text of a document is the instruction, or `prompts` names a file (JSONL or Parquet: id,
    prompt, and target_length if the prompt states none). The model of `generator` answers each
    `samples` times; `judge` (by default the same model) marks every answer in six dimensions. The
    score is the mean of the length score and the marks from 0 to 100, or the marks alone where no
    length is wanted. The best is chosen, and rejected is one that is `margin` below it and more.

    The output holds part-*.parquet (pairs), trl-*.jsonl (for TRL), candidates-*.parquet (all
    answers with their scores), calls-*.parquet and rejects-*.parquet (what came to nothing) and
    judge_report.json. `expected_words` changes nothing but what `longctx plan` assumes.
    """

    op: Literal["prefer.longwriter"]
    min_tokens: int = Field(1, ge=1)
    max_tokens: int = Field(4_096, ge=1)
    bin_tokens: int = Field(1_000_000, ge=1)
    lang_share: dict[Language, float] = Field({"en": 0.5, "zh": 0.5}, min_length=1)
    samples: int = Field(4, ge=2)
    sample_tokens: int = Field(32_768, ge=1)
    judge_temperature: float = Field(0.5, ge=0, le=2)
    margin: float = Field(MARGIN, ge=0, le=100)
    length_ratio: float = Field(lw.LENGTH_RATIO, ge=1)
    expected_words: int = Field(3_000, ge=1)

    summary: ClassVar[str] = "long answers, the better against a worse"
    source: ClassVar[str] = "LongWriter-DPO (arXiv 2408.07055)"
    cost: ClassVar[str] = "a long answer and a mark for each sample; `longctx plan` counts"
    system: ClassVar[str] = SYSTEM
    prompt_version: ClassVar[str] = lw.PROMPT_VERSION
    neutral = Preference.neutral | {"expected_words"}
    asks_question: ClassVar[bool] = False
    judging: ClassVar[frozenset[str]] = frozenset({JUDGE})
    extra_tables: ClassVar[Mapping[str, pa.Schema]] = {"candidates": lw.CANDIDATES}
    decides: ClassVar[frozenset[str]] = frozenset({_SAMPLES})
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {
        "rows": frozenset({"margin", "length_ratio"})
    }

    def judged_calls(self) -> tuple[CallStage, ...]:
        sample = CallStage(
            system=SYSTEM,
            name=SAMPLE,
            check=lw.check_sample,
            max_tokens=self.sample_tokens,
            codes=frozenset({"empty", "refusal"}),
            refusals=False,
            temperature=self.temperature,
            top_p=self.top_p,
        )
        judge = CallStage(
            system=SYSTEM,
            name=JUDGE,
            check=check_judge,
            max_tokens=self.judge_tokens,
            words=JUDGE_MESSAGES,
            temperature=self.judge_temperature,
        )
        return sample, judge

    def model_calls(self, documents: int) -> list[ModelCalls]:
        answers, words = min(self.rows, documents) * self.samples, self.expected_words
        tokens = round(words * _WORD_TOKENS)
        used = {
            SAMPLE: Usage(answers * _TASK_TOKENS, answers * tokens),
            JUDGE: Usage(answers * (_TASK_TOKENS + tokens), answers * self.judge_tokens),
        }
        return [
            ModelCalls(
                stage=call.name,
                calls=answers,
                prompt_tokens=used[call.step].prompt,
                completion_tokens=used[call.step].completion,
                usd=self.usd(call.step, used[call.step]),
                assumed=f"answers of {words:,} words (expected_words), marks as long as allowed; "
                "nothing rejected or asked for again, nothing in the cache",
            )
            for call in self.judged_calls()
        ]

    def judged(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> dict[str, dict[str, Any] | Reject]:
        cases = {item.id: _case(item) for item in items}
        bad = {i: why for i, case in cases.items() if (why := prompt_problem(case.task))}
        good = [case for i, case in cases.items() if i not in bad]
        lw.judge_unit(good, asker, self.samples)
        found = {case.id: {_SAMPLES: [one.told() for one in case.samples]} for case in good}
        return {**found, **{i: Reject("semantic", why) for i, why in bad.items()}}

    def row(self, item: Item, counter: TokenCounter, seed: int) -> Row | Reject:
        asked = asked_of(item, alone=True)
        group = Group(
            system=SYSTEM,
            group_id=item.id,
            lang=item.lang,
            source=item.source,
            seed=seed,
            prompt_version=self.prompt_version,
            messages=asked.messages(),
            model=self.model_id(self.generator),
            judge_model=self.model_id(self.judging_spec),
            doc_id=asked.doc_id,
            context_ref=asked.ref,
        )
        row = lw.pair_of(_told(item), group, self.margin, self.length_ratio)
        return row if isinstance(row, Reject) else {**row, CONTEXT: asked.context}

    def tables(self, item: Item) -> Mapping[str, Sequence[Row]]:
        return {"candidates": lw.candidate_rows(item.id, _told(item))}

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        return lw.facts(row, _told(item), self.length_ratio)

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return lw.figures(facts, self.margin)

    def controls(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> list[Control]:
        known = [_told(item) for item in items]
        calls = [lw.judge_call(_case(item), controls.REFUSAL, "refusal") for item in items]
        said = [
            s_q([one.value]) if isinstance(one, Ok) else None for one in asker.ask(JUDGE, calls)
        ]
        marks = {
            name: [[float(one["dims"][name]) for one in told if one["dims"]] for told in known]
            for name in DIMENSIONS
        }
        scores = [[one["s_q"] for one in told] for told in known]
        words = [[one["length"] or 0 for one in told] for told in known]
        return [
            *controls.constant_judge(marks),
            controls.length(scores, words),
            controls.refusal(list(zip(said, scores, strict=True))),
        ]


def _case(item: Item) -> Case:
    asked = asked_of(item, alone=True)
    required = required_length(asked.query)
    if required is None and (x := asked.target_length) is not None:
        required = Required(x=x, lo=x, hi=x, relation="exact", unit="word")
    return Case(item.id, asked.whole, item.lang, required)


def _told(item: Item) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = item.replies[JUDGED][_SAMPLES]
    return told
