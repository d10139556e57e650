"""`synth.chatqa2` on the engine: a summary hidden in its own document, and a question about it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from longctx.llm.ask import CallStage
from longctx.synth.chatqa2 import PROMPT_VERSION, SYSTEM
from longctx.synth.chatqa2_calls import (
    SUMMARY_WORDS,
    check_qa,
    check_summary,
    request_qa,
    request_summary,
)
from longctx.synth.chatqa2_figures import facts, figures
from longctx.synth.chatqa2_pages import clean_page, index_page
from longctx.synth.chatqa2_rows import LIMIT, QA, Settings, build_row
from longctx.synth.draw import generator
from longctx.synth.items import Item
from longctx.synth.prompt import Prompt
from longctx.synth.rows import CHATQA2, Reject, Row
from longctx.synth.stages_base import Language, Synthesis
from longctx.synth.tokens import TokenCounter

SUMMARY, ASKED = "chatqa.summary", "chatqa.qa"
_WORDS = {
    "summary_length": "The summary does not have as many words as it should.",
    "question_count": "There must be at least one question, and no more than were asked for.",
    "empty_text": "No question and no answer may be empty.",
}
_UNSUPPORTED = {
    SUMMARY: "The summary must say what the text says, with the text's words.",
    ASKED: "Every answer must say what the text says, with the text's words.",
}


class SynthChatQA2(Synthesis):
    """Makes long rows with one span of evidence: a document's summary stands inside the document.

    `rows` documents of min_tokens to max_tokens are drawn. The model of `generator` writes a
    summary of each in `summary_words` words (at most `summary_tokens`), then up to `questions`
    questions with answers on the summary alone (at most `qa_tokens`); one of them becomes the row.
    The summary is inserted between two sentences, at a place that is uniform over tokens. A length
    is drawn from min_context + `slack` to what max_row leaves; a longer document is cut to a window
    of whole sentences from anywhere in it, a shorter one stays whole. Contexts of less than
    `min_context` tokens are rejected.

    The output holds part-*.parquet (rows in the typed schema), chat-*.jsonl (their turns), and
    rejects-*.parquet (documents without a row, each with its reason). If more than
    `max_reject_rate` of a stage's documents are rejected, the run ends after that stage. A run that
    is started again makes no answered call twice.
    """

    op: Literal["synth.chatqa2"]
    min_tokens: int = Field(32_768, ge=1)
    max_tokens: int = Field(122_880, ge=1)
    bin_tokens: int = Field(LIMIT, ge=1)
    lang_share: dict[Language, float] = Field({"en": 1.0}, min_length=1)
    min_context: int = Field(32_768, ge=1)
    max_row: int = Field(LIMIT, ge=1)
    slack: int = Field(1_024, ge=0)
    summary_words: tuple[int, int] = SUMMARY_WORDS
    questions: int = Field(5, ge=1)
    summary_tokens: int = Field(2_048, ge=1)
    qa_tokens: int = Field(1_024, ge=1)

    summary: ClassVar[str] = "questions on a summary hidden in its own document"
    source: ClassVar[str] = "ChatQA2 (arXiv 2407.14482)"
    cost: ClassVar[str] = "two calls a row, one reads the document; `longctx plan` counts"
    system: ClassVar[str] = SYSTEM
    schema: ClassVar[pa.Schema] = CHATQA2
    prompt_version: ClassVar[str] = PROMPT_VERSION
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {
        SUMMARY: frozenset({"summary_words"}),
        ASKED: frozenset({"questions"}),
        "rows": frozenset({"min_context", "max_row", "slack"}),
    }

    @field_validator("summary_words")
    @classmethod
    def _is_a_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError("the fewest words come first, then the most: as [200, 900]")
        return value

    @model_validator(mode="after")
    def _has_room(self) -> "SynthChatQA2":
        if self.max_row <= self.min_context + self.slack:
            raise ValueError(
                f"max_row {self.max_row} leaves no length to draw above min_context "
                f"{self.min_context} and slack {self.slack}"
            )
        return self

    @property
    def settings(self) -> Settings:
        """Limits of rows, in tokens."""
        return Settings(self.min_context, self.max_row, self.slack)

    def calls(self) -> tuple[CallStage, ...]:
        allowed = ((SUMMARY, check_summary, self.summary_tokens), (ASKED, check_qa, self.qa_tokens))
        return tuple(
            CallStage(
                system=SYSTEM,
                name=name,
                check=check,
                max_tokens=tokens,
                words={**_WORDS, "unsupported": _UNSUPPORTED[name]},
                temperature=self.temperature,
                top_p=self.top_p,
            )
            for name, check, tokens in allowed
        )

    def asked_tokens(self, step: str) -> float:
        return self.summary_tokens if step == ASKED else super().asked_tokens(step)

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        if step == SUMMARY:
            return request_summary(clean_page(item.text), item.lang, self.summary_words)
        return request_qa(_summary(item), self.questions, item.lang)

    def row(self, item: Item, counter: TokenCounter, seed: int) -> Row | Reject:
        asked = item.replies[ASKED]["qas"]
        chosen = asked[int(generator(seed, SYSTEM, "question", item.id).integers(len(asked)))]
        qa = QA(
            id=f"{SYSTEM}-{item.id}",
            document_id=item.id,
            question=chosen["question"].strip(),
            answers=[chosen["answer"].strip()],
            lang=item.lang,
            source=item.source,
        )
        page = index_page(clean_page(item.text), counter)
        return build_row(qa, page, _summary(item), counter, self.settings, seed)

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        return facts(row, clean_page(item.text), _summary(item), self.settings)

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return figures(facts, self.settings)


def _summary(item: Item) -> str:
    said: str = item.replies[SUMMARY]["summary"]
    return said.strip()
