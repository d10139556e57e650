"""`synth.pam_qa` on the engine: questions of a table, or of a model, over numbered passages.

How data flows. The items are questions: those of a table, read where they are chosen, or documents
of which a model asks one question each (`question`). `stages_pamqa_find` brings every question its
golds, negatives and random passages as if they were a stage's reply (`documents`); a judge may look
at them (`support`), a model may put answers into sentences (`answer`); `rows` does the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from longctx.cost.model_calls import ModelCalls
from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.engine.steps import StepRef
from longctx.errors import RecipeError
from longctx.llm.ask import CallStage
from longctx.llm.spec import GeneratorSpec, ScriptedGenerator
from longctx.location import Location
from longctx.synth import pamqa_figures
from longctx.synth.items import Item
from longctx.synth.pamqa import PROMPT_VERSION, SYSTEM
from longctx.synth.pamqa_calls import (
    check_answer,
    check_question,
    check_support,
    request_question,
)
from longctx.synth.pamqa_items import ANSWER, DOCUMENTS, QUESTION, SUPPORT, loaded, made_of
from longctx.synth.pamqa_rows import NO_ROW, Settings, can_be_found
from longctx.synth.pamqa_table import Asked, read_asked
from longctx.synth.prompt import Prompt
from longctx.synth.rows import PAMQA, Made, Reject, Row
from longctx.synth.stages_base import Synthesis, Units
from longctx.synth.stages_held_out import SCREENED, finished
from longctx.synth.stages_pamqa_asked import chosen_of_table, of_replies, of_table, seen
from longctx.synth.stages_pamqa_find import find_documents
from longctx.synth.stages_pamqa_work import AnswerWork, QuestionWork, SupportWork
from longctx.synth.stages_system import Language
from longctx.synth.stages_table import content_of, records_of
from longctx.synth.stages_work import AskWork
from longctx.synth.tokens import TokenCounter

TABLE = "table of questions"
_WORDS = {
    "question_form": "The question must have 4 to 60 words and end with a question mark.",
    "refers_to_context": "The question must not speak of a context, passage or text.",
    "answer_length": "The answer must have 1 to 10 words, and say more than yes or no.",
    "not_extractive": "The answer must be copied exactly from the passage.",
    "answer_given": "The question must not hold its own answer.",
    "evidence_not_found": "The evidence must be copied exactly from the passage.",
    "answer_lost": "The sentences must hold the short answer, word by word.",
}
_PASSAGE_TOKENS = 300


class SynthPamQA(Synthesis):
    """Makes questions over numbered passages, answered by naming the passages first.

    `questions` is a file (JSONL, JSON list, Parquet; .gz) with rows {id, question, answers: [..],
    golds: [{doc_id, title, text}], lang}; a gold may be the id of a document of the run instead.
    `rows` of them are drawn. With `questions: null` the model of `generator` asks one question on
    each of `rows` documents, whose answer is copied from its passage, which is the gold.

    Negatives are other documents of the run: the best `retrieve` by BM25 and, behind a stage
    `embed`, as many by the vectors of `embed_model`, fused by rank. Golds, same titles,
    near-duplicates of a gold (`near_duplicate`, `cluster_column`) and what holds an accepted answer
    are left out. Of the passages beside the golds, `n_docs` in all, a share `hard_share` is hard,
    the rest random; in `unanswerable_share` of the rows there is no gold, and the answer is a
    refusal. Documents are shown as their first whole sentences of at most `passage_tokens` (null:
    whole), with the title that `meta` has at `title_field`. Negatives are dropped until
    `max_prompt` and `max_row` are kept; what is left is shuffled, then numbered.

    With `support` a model judges golds and negatives where answers are no extracts (yes, no), which
    are rejected otherwise; with `answer` it writes the answer in a sentence. A table without both
    needs no model.
    """

    op: Literal["synth.pam_qa"]
    # Never asked unless it is set: `_fits` sees to that.
    generator: GeneratorSpec = Field(
        default_factory=lambda: ScriptedGenerator(backend="scripted"),
        json_schema_extra={"default": None},
    )
    questions: Location | None = None
    min_tokens: int = Field(64, ge=1)
    bin_tokens: int = Field(64_512, ge=1)
    lang_share: dict[Language, float] = Field({"en": 1.0}, min_length=1)
    n_docs: int = Field(20, ge=2)
    hard_share: float = Field(0.5, ge=0, le=1)
    unanswerable_share: float = Field(0.1, ge=0, le=1)
    min_docs: int = Field(5, ge=1)
    near_duplicate: float | None = Field(0.8, gt=0, le=1)
    cluster_column: str | None = Field(None, min_length=1)
    passage_tokens: int | None = Field(_PASSAGE_TOKENS, ge=8)
    title_field: str | None = Field("title", min_length=1)
    retrieve: int = Field(100, ge=1)
    k1: float = Field(1.2, ge=0)
    b: float = Field(0.75, ge=0, le=1)
    max_df: float = Field(0.5, gt=0, le=1)
    embed_model: Location = "static"
    pool_documents: int = Field(100_000, ge=1)
    max_prompt: int = Field(7_500, ge=1)
    max_row: int = Field(8_192, ge=1)
    end_of_document: str = ""
    support: bool = False
    answer: bool = False
    question_tokens: int = Field(256, ge=1)
    support_tokens: int = Field(512, ge=1)
    answer_tokens: int = Field(256, ge=1)

    summary: ClassVar[str] = "questions over numbered passages, mostly noise"
    source: ClassVar[str] = "PAM QA, Ziya-Reader (arXiv 2311.09198)"
    cost: ClassVar[str] = "no call with a table, else a short one a row; text is read once"
    system: ClassVar[str] = SYSTEM
    schema: ClassVar[pa.Schema] = PAMQA
    prompt_version: ClassVar[str] = PROMPT_VERSION
    chooses: ClassVar[frozenset[str]] = Synthesis.chooses | {"questions"}
    turns_away: ClassVar[Mapping[str, frozenset[str]]] = {ANSWER: NO_ROW}
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {
        QUESTION: frozenset({"passage_tokens"}),
        SUPPORT: frozenset({"near_duplicate", "n_docs"}),
        ANSWER: frozenset({"unanswerable_share"}),
        "rows": frozenset(
            {"n_docs", "hard_share", "unanswerable_share", "min_docs", "near_duplicate"}
        )
        | {"max_prompt", "max_row", "end_of_document"},
    }

    @model_validator(mode="after")
    def _fits(self) -> "SynthPamQA":
        if self.calls() and "generator" not in self.model_fields_set:
            asks = ", ".join(call.name for call in self.calls())
            raise ValueError(
                f"the stages {asks} ask a model: name it in `generator`, or give a table of "
                "`questions` and neither `support` nor `answer`"
            )
        if self.min_docs > self.n_docs:
            raise ValueError(f"min_docs {self.min_docs} is above n_docs {self.n_docs}")
        if self.max_prompt > self.max_row:
            raise ValueError(f"max_prompt {self.max_prompt} is above max_row {self.max_row}")
        return self

    @property
    def settings(self) -> Settings:
        """How rows are made."""
        return Settings(
            self.n_docs,
            self.hard_share,
            self.unanswerable_share,
            self.min_docs,
            self.near_duplicate,
            self.max_prompt,
            self.max_row,
            self.end_of_document,
        )

    def table(self, where: str) -> list[Asked]:
        """The questions of the table; RecipeError for what is none, with its place and field."""
        assert self.questions is not None
        records = records_of(self.questions, TABLE, f"{where}: questions")
        if not records:
            raise RecipeError(
                f"the {TABLE} has no rows",
                where=f"{where}: questions",
                remedy="give a file with questions, or `questions: null` to have them made",
            )
        name = self.questions.rsplit("/", 1)[-1].split(".")[0]
        return read_asked(records, name, self.default_language)

    def reads_columns(self) -> tuple[str, ...]:
        counted = () if self.questions else self.reads
        return (*counted, *([self.cluster_column] if self.cluster_column else []))

    def fingerprint_fields(self) -> dict[str, Any]:
        known = super().fingerprint_fields()
        if self.questions is None:
            return known
        return {**known, "questions": content_of(self.questions, TABLE, f"{self.op}: questions")}

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if self.questions is not None:
            self.table(setting.stage)

    def told_beside(self, setting: Setting) -> Mapping[str, Any]:
        if self.questions is None:
            return {}
        return {one.id: one.plain() for one in self.table(setting.stage)}

    def generators(self) -> tuple[GeneratorSpec, ...]:
        return super().generators() if self.calls() else ()

    def model_id(self, spec: GeneratorSpec) -> str:
        return super().model_id(spec) if self.calls() else "none"

    def calls(self) -> tuple[CallStage, ...]:
        wanted = (
            (QUESTION, self.questions is None, check_question, self.question_tokens),
            (SUPPORT, self.support, check_support, self.support_tokens),
            (ANSWER, self.answer, check_answer, self.answer_tokens),
        )
        return tuple(
            CallStage(
                system=SYSTEM,
                name=step,
                check=check,
                max_tokens=tokens,
                words=_WORDS,
                temperature=self.temperature,
                top_p=self.top_p,
            )
            for step, asked, check, tokens in wanted
            if asked
        )

    def work(self, step: str) -> type[AskWork]:
        return {QUESTION: QuestionWork, SUPPORT: SupportWork, ANSWER: AnswerWork}[step]

    def asked_tokens(self, step: str) -> float:
        mean = self.quotas.mean_tokens()
        shown = self.passage_tokens or (mean if self.questions is None else _PASSAGE_TOKENS)
        return min(shown, mean) if step == QUESTION else shown

    def model_calls(self, documents: int) -> list[ModelCalls]:
        if self.questions is None:
            return [self._scaled(told, documents) for told in super().model_calls(documents)]
        listed = self.table(self.op)[: self.rows]
        return [self._scaled(told, len(listed), listed) for told in super().model_calls(self.rows)]

    def _scaled(self, told: ModelCalls, documents: int, listed: Sequence[Asked] = ()) -> ModelCalls:
        """A stage's calls where not every row takes one: answers without a refusal, and judges.

        A judge looks at each gold and at up to 2 · n_docs others of a question without extracts.
        """
        rows = min(self.rows, documents)
        calls = rows
        if told.stage == ANSWER:
            calls = round(rows * (1 - self.unanswerable_share))
        elif told.stage == SUPPORT:
            bare = [one for one in listed if not any(map(can_be_found, one.answers))]
            calls = sum(len(one.golds) + 2 * self.n_docs for one in bare)
        share = calls / told.calls if told.calls else 0.0
        return replace(
            told,
            calls=calls,
            prompt_tokens=round(told.prompt_tokens * share),
            completion_tokens=round(told.completion_tokens * share),
            usd=None if told.usd is None else told.usd * share,
        )

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        # The other stages ask about passages of their own.
        assert step == QUESTION, step
        return request_question(item.text, item.lang)

    def made(self, item: Item, counter: TokenCounter, seed: int) -> Sequence[Made] | Reject:
        found = made_of(item, counter, self.settings, seed)
        return found if isinstance(found, Reject) else [found]

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        question = loaded(item)
        assert not isinstance(question, Reject), "a row is of a question that was loaded"
        return pamqa_figures.facts(row, question, self.settings)

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return pamqa_figures.figures(facts, self.settings)

    def asked(self, context: BarrierContext, chosen: Sequence[dict[str, Any]], model: str) -> Units:
        units = self._units(chosen)
        if self.questions is None:
            self._ask(context, self.call(QUESTION), units, model)
        find_documents(self, context, self._asked(context), _unit_of(units))
        self._bring(context, DOCUMENTS, units)
        for call in self.calls():
            if call.step != QUESTION:
                self._ask(context, call, units, model)
        return units

    def _asked(self, context: BarrierContext) -> StepRef:
        """The step `asked`: all questions, of the table or of the replies of the first stage."""
        ignore = self.own_fields() - self.chooses | {"prompt_version"}
        chosen = _done(context, "chosen")
        if self.questions is not None:
            away = finished(context, SCREENED)
            rule = partial(of_table, self, chosen, away)
            read = [chosen, *([away] if away else [])]
            return context.single("asked", rule, read, ignore=ignore)
        replies = _done(context, QUESTION)
        rule = partial(of_replies, chosen, replies)
        return context.single("asked", rule, [chosen, replies], ignore=ignore)

    def _choose(self, context: BarrierContext) -> list[dict[str, Any]]:
        if self.questions is None:
            return super()._choose(context)
        ignore = self.own_fields() - self.chooses | {"prompt_version"}
        counted = [c for c in ("n_tokens", "n_chars") if context.corpus.has(c)]
        columns = ["source", "license", "language", *counted]
        context.per_part("candidates", partial(seen, self, columns), columns, ignore=ignore)
        rule = partial(chosen_of_table, self)
        chosen = context.single("chosen", rule, ignore=ignore - {"shard_rows"})
        return list(chosen.read().to_pylist())

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        told, stats = super()._told(context, model, chosen), context.step_stats
        retrievers = ["bm25", *(["embedding"] if "queries" in stats else [])]
        found = {k: v for k, v in stats["ranked"].items() if k != "warnings"}
        if "contaminated" in stats["texts"]:
            found["contaminated"] = stats["texts"]["contaminated"]
        items = "document" if self.questions is None else "question"
        return {**told, "items": items, "negatives": {"retrievers": retrievers, **found}}


def _unit_of(units: Units) -> dict[str, int]:
    """The number of the unit of each question."""
    return {
        row["id"]: number
        for number, groups in enumerate(units)
        for _, brought in groups
        for row in brought["rows"]
    }


def _done(context: BarrierContext, step: str) -> StepRef:
    """The files of a step that every run of the op has."""
    found = finished(context, step)
    assert found is not None, step
    return found
