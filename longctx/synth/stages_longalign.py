"""`synth.longalign` on the engine: LongAlign's self-instruct, method (a)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.llm.ask import CallStage
from longctx.synth.items import Item
from longctx.synth.longalign import SYSTEM
from longctx.synth.longalign_figures import facts, figures
from longctx.synth.longalign_instruct import (
    PROMPT_VERSION,
    Candidate,
    assemble,
    check_answer,
    check_questions,
    chosen_question,
    questions_of_text,
    request_answer,
    request_questions,
    task_type,
)
from longctx.synth.prompt import Prompt
from longctx.synth.rows import LONGALIGN, Reject, Row
from longctx.synth.stages_base import Synthesis
from longctx.synth.tokens import TokenCounter

QUESTIONS, ANSWER = "questions", "answer"
_WORDS = {
    "question_count": "There must be exactly five questions, none of them empty.",
    "duplicate": "The five questions must differ from one another.",
    "off_document": "Every question must be about what the document says, in its own words.",
    "answer_length": "The answer must have 1 to 2,000 words.",
    "unsupported": "The answer must say what the document says, with the document's words.",
}


class SynthLongAlign(Synthesis):
    """Makes long instruction rows: five questions on a whole document, one of them answered.

    `rows` documents of min_tokens to max_tokens are drawn, equally many from each bin of
    `bin_tokens`, in the languages of `lang_share`. The model of `generator` proposes five questions
    of one of four kinds (general, summary, reasoning, extraction), in at most `question_tokens`;
    one is drawn and answered on the same document, in at most `answer_tokens`.

    `generator` is a mapping with `backend` (local, openai, llamacpp or scripted), what that backend
    needs (model, base_url, gguf, ...) and how it is asked; docs/recipe.md has an example.

    The output holds part-*.parquet (rows in the typed schema), chat-*.jsonl (their turns), and
    rejects-*.parquet (documents without a row, each with its reason). If more than
    `max_reject_rate` of a stage's documents are rejected, the run ends after that stage. A run that
    is started again makes no answered call twice.
    """

    op: Literal["synth.longalign"]
    min_tokens: int = Field(8_192, ge=1)
    question_tokens: int = Field(512, ge=1)
    answer_tokens: int = Field(2_048, ge=1)

    summary: ClassVar[str] = "self-instruct on whole long documents"
    source: ClassVar[str] = "LongAlign (arXiv 2401.18058)"
    cost: ClassVar[str] = "two calls a row, each of which reads the document; `longctx plan` counts"
    system: ClassVar[str] = SYSTEM
    schema: ClassVar[pa.Schema] = LONGALIGN
    prompt_version: ClassVar[str] = PROMPT_VERSION

    def calls(self) -> tuple[CallStage, ...]:
        ask_five = CallStage(
            system=SYSTEM,
            name=f"{SYSTEM}.{QUESTIONS}",
            check=check_questions,
            max_tokens=self.question_tokens,
            from_text=questions_of_text,
            words=_WORDS,
            temperature=self.temperature,
            top_p=self.top_p,
        )
        answer_one = CallStage(
            system=SYSTEM,
            name=f"{SYSTEM}.{ANSWER}",
            check=check_answer,
            max_tokens=self.answer_tokens,
            codes=frozenset({"refusal"}),
            words=_WORDS,
            temperature=self.temperature,
            top_p=self.top_p,
        )
        return ask_five, answer_one

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        if step == QUESTIONS:
            return request_questions(item.text, task_type(seed, item.id), item.lang)
        asked = item.replies[QUESTIONS]["questions"][chosen_question(seed, item.id)]
        return request_answer(item.text, asked.strip(), item.lang)

    def row(self, item: Item, counter: TokenCounter, seed: int) -> Row | Reject:
        doc = Candidate(item.id, item.lang, item.n_tokens)
        asked = item.replies[QUESTIONS]["questions"]
        answer = item.replies[ANSWER]["answer"]
        return assemble(doc, item.text, item.source, asked, answer, counter, seed)

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        return facts(row, item.n_tokens)

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        shares = {str(lang): share for lang, share in self.lang_share.items()}
        return figures([dict(f) for f in facts], shares, self.min_tokens, self.max_tokens)
