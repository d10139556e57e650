"""`prefer.logo` on the engine: answers from relevant chunks against answers from others.

The base chooses prompts and runs `judged`, where `logo_unit` asks everything. Rows are made of the
documents' texts and the answers; the chunks are found again, which costs less than to keep them.
Beside the rows, `train-N.parquet` holds the training rows with their positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from longctx.cost.model_calls import ModelCalls
from longctx.engine.corpus import parquet_groups
from longctx.engine.op import Setting
from longctx.engine.units import Sink
from longctx.llm import controls
from longctx.llm.ask import CallStage
from longctx.llm.controls import Control
from longctx.prefer import logo, logo_figures, logo_train, logo_unit
from longctx.prefer.asked import QUESTION, asked_of
from longctx.prefer.asking import Asker
from longctx.prefer.logo import PROMPT_VERSION, SYSTEM
from longctx.prefer.logo_calls import ORDERS, SIDES, check_question, request_question
from longctx.prefer.logo_entities import spacy_entities
from longctx.prefer.logo_rows import (
    LOGO,
    Choice,
    Plan,
    Question,
    Scorer,
    build_row,
    context_of,
    plan,
    second_pair,
)
from longctx.prefer.logo_train import Frame, Window, plain_frame
from longctx.prefer.logo_unit import ANSWER, CLOSED, JUDGE, Case, Terms, checks_of
from longctx.prefer.pairs import Side
from longctx.prefer.stages_base import Preference
from longctx.prefer.stages_prompts import prompts_of
from longctx.prefer.stages_work import CONTEXT, JUDGED, PairFiles
from longctx.synth.items import Item
from longctx.synth.prompt import Prompt
from longctx.synth.rows import Reject, Row
from longctx.synth.stages_files import of_kind
from longctx.synth.stages_work import ROW
from longctx.synth.tokens import TokenCounter, token_counter

_QUESTION_TOKENS = 40
_GROUP_ROWS = 16
_WORDS = {
    "question_form": "The question must have 3 to 60 words and end with a question mark.",
    "answer_length": "The answer must have 1 to 40 words.",
    "unsupported": "The answer must say what the document says, with its words.",
    "answer_in_question": "The question must not tell its own answer.",
}


class TurnIds(BaseModel):
    """Ids of a chat template around the texts of training rows.

    `before` opens the system's turn, `between` closes it and opens the user's, `after` closes that
    and opens the assistant's, `end` closes the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    end: tuple[int, ...] = Field(min_length=1)


class PreferLogo(Preference):
    """Makes triples of one answer to prefer and two to avoid, and rows that train on them.

    A document is cut into chunks of `chunk_tokens`; those that share many words with a question
    (and its right answer) are relevant. The model of `generator` answers from the relevant chunks
    (chosen), from irrelevant ones (rejected_1), and from both (rejected_2), each time from as many.
    A triple is kept if the first answer is right and the others are wrong, by the right answer or,
    where none is known, by two verdicts of `judge`, and if the model does not know without a text.

    Questions come from `prompts` (JSONL or Parquet: id, question, doc_id, and gold if it is known),
    or the model is asked for one on each document, with its answer (`own_gold`: that counts).

    Training rows hold `chunks` chunks, about 8k tokens, whose positions are spread over `window`:
    each chunk anywhere in its slot, and in a share of `sparse_share` of the rows its tokens apart.
    `turn_ids` puts a chat template's ids around the texts; without it turns are parted by blank
    lines.

    The output holds part-*.parquet (triples), trl-*.jsonl (two pairs of each), train-*.parquet
    (`variants` rows of each with ids, positions, labels and masks), calls-*.parquet and
    rejects-*.parquet (what came to nothing) and judge_report.json.
    """

    op: Literal["prefer.logo"]
    min_tokens: int = Field(8_192, ge=1)
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    shard_rows: int = Field(64, ge=1)
    chunk_tokens: int = Field(logo.CHUNK, ge=8)
    chunks: int = Field(logo.CHUNKS, ge=4)
    max_relevant: int = Field(logo.CHUNKS // 2, ge=2)
    min_relevant: int = Field(2, ge=2)
    delta: Literal["auto"] | float = "auto"
    min_gap: float = Field(logo.LEAST_GAP, ge=0)
    evaluator: Literal["terms", "spacy"] = "terms"
    spacy_model: str = Field("en_core_web_sm", min_length=1)
    query_side: Literal["question+gold", "question"] = "question+gold"
    own_gold: bool = True
    least_f1: float = Field(0.5, gt=0, le=1)
    closed_book: bool = True
    question_tokens: int = Field(256, ge=1)
    answer_tokens: int = Field(512, ge=1)
    window: int = Field(logo_train.WINDOW, ge=64)
    qa_room: int = Field(logo_train.ROOM, ge=8)
    max_seq: int = Field(logo_train.MAX_SEQ, ge=64)
    positions: Literal["continuous", "spread"] = "continuous"
    sparse_share: float = Field(logo_train.SPARSE_SHARE, ge=0, le=1)
    variants: int = Field(logo_train.VARIANTS, ge=1, le=16)
    turn_ids: TurnIds | None = None

    summary: ClassVar[str] = "answers from right and from wrong chunks"
    source: ClassVar[str] = "LOGO (arXiv 2410.18533)"
    cost: ClassVar[str] = "4 to 6 short calls a triple, and one that reads the document"
    system: ClassVar[str] = SYSTEM
    schema: ClassVar[pa.Schema] = LOGO
    prompt_version: ClassVar[str] = PROMPT_VERSION
    judging: ClassVar[frozenset[str]] = frozenset({JUDGE})
    decides: ClassVar[frozenset[str]] = frozenset(
        {
            *("chunk_tokens", "chunks", "max_relevant", "min_relevant", "delta", "min_gap"),
            *("evaluator", "spacy_model", "query_side", "own_gold", "least_f1", "closed_book"),
            "length_ratio",
        }
    )
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {
        "rows": frozenset(
            {
                *("window", "qa_room", "max_seq", "positions", "sparse_share", "variants"),
                *("turn_ids", *decides),
            }
        )
    }

    @model_validator(mode="after")
    def _fits(self) -> "PreferLogo":
        if 2 * self.max_relevant > self.chunks:
            raise ValueError(
                f"max_relevant {self.max_relevant} is more than half of chunks {self.chunks}, "
                "which leaves no room for irrelevant ones"
            )
        if self.min_relevant > self.max_relevant:
            found = f"min_relevant {self.min_relevant} is above max_relevant {self.max_relevant}"
            raise ValueError(found)
        least = self.chunks * (self.chunk_tokens + 1) + self.qa_room
        for name, has in (("window", self.window), ("max_seq", self.max_seq)):
            if has < least:
                raise ValueError(
                    f"{name} {has} does not hold {self.chunks} chunks of {self.chunk_tokens} "
                    f"tokens and qa_room {self.qa_room}: {least} and the instruction are needed"
                )
        return self

    @property
    def places(self) -> Window:
        """Where training rows are put."""
        return Window(self.window, self.qa_room, self.max_seq, self.positions, self.sparse_share)

    @property
    def terms(self) -> Terms:
        """What a triple has to be."""
        choice = Choice(
            chunk=self.chunk_tokens,
            chunks=self.chunks,
            delta=self.delta,
            max_relevant=self.max_relevant,
            min_relevant=self.min_relevant,
            min_gap=self.min_gap,
            query_side=self.query_side,
        )
        return Terms(choice, self.least_f1, self.closed_book, self.length_ratio)

    def check(self, setting: Setting) -> None:
        super().check(setting)
        self.scorer()

    def scorer(self) -> Scorer:
        """What counts the entities that chunk and question share. RunError without spaCy."""
        if self.evaluator == "terms":
            return logo.score_terms
        return partial(logo.score_entities, entities=spacy_entities(self.spacy_model))

    def question_call(self) -> CallStage:
        return CallStage(
            system=SYSTEM,
            name=f"{SYSTEM}.{QUESTION}",
            check=check_question,
            max_tokens=self.question_tokens,
            words=_WORDS,
            temperature=self.temperature,
            top_p=self.top_p,
        )

    def judged_calls(self) -> tuple[CallStage, ...]:
        found = logo_unit.stages(
            answer_tokens=self.answer_tokens,
            judge_tokens=self.judge_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
        )
        unused = {step for step, used in self._uses().items() if not used}
        return tuple(call for call in found if call.step not in unused)

    def _uses(self) -> dict[str, bool]:
        """Stages that may not be needed."""
        return {JUDGE: self._judges(), CLOSED: self.closed_book}

    def _judges(self) -> bool:
        """Whether right answers may be unknown."""
        if self.prompts is None:
            return not self.own_gold
        known = prompts_of(self.prompts, f"{self.op}: prompts").values()
        return any("gold" not in prompt for prompt in known)

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        return request_question(item.text, item.lang)

    def asked_tokens(self, step: str) -> float:
        read = self.max_relevant * self.chunk_tokens
        of_step = {ANSWER: read, JUDGE: read + 3 * self.answer_tokens, CLOSED: 0}
        found = of_step.get(step)
        return super().asked_tokens(step) if found is None else found + _QUESTION_TOKENS

    def model_calls(self, documents: int) -> list[ModelCalls]:
        times = {ANSWER: len(SIDES), JUDGE: len(ORDERS)}
        told = zip(self.calls(), super().model_calls(documents), strict=True)
        return [_times(one, times.get(call.step, 1)) for call, one in told]

    def question_of(self, item: Item) -> tuple[Question, str]:
        """What is asked of an item, and the text that it is asked about."""
        asked = asked_of(item)
        own = item.replies[QUESTION].get("answer") if self.own_gold else None
        question = Question(
            id=item.id,
            text=asked.query,
            gold=asked.gold or own,
            lang=item.lang,
            source=item.source,
            doc_id=asked.doc_id,
        )
        return question, asked.context

    def judged(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> dict[str, dict[str, Any] | Reject]:
        cases = [Case(*self.question_of(item)) for item in items]
        logo_unit.run(cases, asker, counter, seed, self.terms, self.scorer())
        return {case.question.id: case.reject or case.told() for case in cases}

    def made(self, item: Item, counter: TokenCounter, seed: int) -> Sequence[Row] | Reject:
        question, document = self.question_of(item)
        found, told = self._plan(question, document, counter, seed), item.replies[JUDGED]
        if isinstance(found, Reject):
            return found
        row = build_row(
            question,
            document,
            found,
            {side: Side(text=text) for side, text in told["answers"].items()},
            counter=counter,
            frame=self._frame(counter),
            window=self.places,
            variants=self.variants,
            seed=seed,
            model=told["models"]["policy"],
            judge_model=told["models"]["judge"] if told["verdicts"] else None,
            checks=checks_of(told),
            max_ratio=self.length_ratio,
        )
        return row if isinstance(row, Reject) else [{**row, CONTEXT: context_of(row, document)}]

    def _plan(
        self, question: Question, document: str, counter: TokenCounter, seed: int
    ) -> Plan | Reject:
        return plan(question, document, counter, seed, self.terms.choice, self.scorer())

    def _frame(self, counter: TokenCounter) -> Frame:
        own = self.turn_ids
        return plain_frame(counter) if own is None else Frame(**own.model_dump())

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        known = logo_figures.facts(row)
        if self.evaluator == "spacy":
            question, document = self.question_of(item)
            query = logo.query_of(question.text, question.gold, self.query_side)
            chunks = [document[c["start_char"] : c["end_char"]] for c in row["chunks"]]
            by_terms = logo.score_terms(chunks, query)
            by_entities = [c["score"] for c in row["chunks"]]
            known["agreement"] = controls.kendall_tau_b(by_entities, by_terms)
        return known

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return logo_figures.figures(facts, self.places)

    def controls(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> list[Control]:
        if not self._judges():
            return []
        judged = [item for item in items if item.replies[JUDGED]["verdicts"]]
        cases = [self._case(item, counter, seed) for item in judged]
        verdicts = [item.replies[JUDGED]["verdicts"][0] for item in judged]
        return logo_unit.judge_controls(cases, verdicts, asker)

    def _case(self, item: Item, counter: TokenCounter, seed: int) -> Case:
        question, document = self.question_of(item)
        found = self._plan(question, document, counter, seed)
        assert isinstance(found, Plan), "what was judged has chunks"
        return Case(question, document, found, answers=item.replies[JUDGED]["answers"])

    def files_work(self, setting: Setting) -> "LogoFiles":
        return LogoFiles(self, setting)


@dataclass(frozen=True)
class LogoFiles(PairFiles):
    """Work of one range of ids: both pairs of each triple for TRL, and the training rows."""

    op: PreferLogo

    def lines(self, table: pa.Table, rows: list[Row]) -> tuple[str, bytes]:
        both = [pair for row in rows for pair in (row, second_pair(row))]
        return super().lines(table, both)

    def beside(self, brought: pa.Table, number: int, sink: Sink) -> None:
        super().beside(brought, number, sink)
        rows = sorted(of_kind(brought, ROW), key=lambda row: str(row["id"]))
        pad = token_counter(self.setting.tokenizer).eos_id or 0
        made = [one for row in rows for one in logo_train.train_rows(row, pad)]
        if made:
            groups = [
                logo_train.row_group(made[i : i + _GROUP_ROWS])
                for i in range(0, len(made), _GROUP_ROWS)
            ]
            name = f"{self.setting.output}/train-{number:05d}.parquet"
            sink.write(name, parquet_groups(groups, plain=True), len(made))


def _times(told: ModelCalls, times: int) -> ModelCalls:
    """What a stage asks that has several calls a row."""
    return replace(
        told,
        calls=times * told.calls,
        prompt_tokens=times * told.prompt_tokens,
        completion_tokens=times * told.completion_tokens,
        usd=None if told.usd is None else times * told.usd,
    )
