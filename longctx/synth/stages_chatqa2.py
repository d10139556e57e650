"""`synth.chatqa2` on the engine: a summary hidden in a long context, and a question about it.

How data flows. The base chooses documents; a model writes summaries, and questions on them. Where
the context is the document itself, `rows` does the rest. Where it is put together of paragraphs of
other documents, or filled up with them, `stages_chatqa2_pool` makes a pool before anything is
asked, and leaves each row its paragraphs in the step `related`, in the form of a stage's replies.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from longctx.embed.named import HASH, prepare
from longctx.embed.stages import Embed
from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.errors import RunError
from longctx.llm.ask import CallStage
from longctx.location import Location
from longctx.synth.chatqa2 import PROMPT_VERSION, SYSTEM
from longctx.synth.chatqa2_calls import (
    SUMMARY_WORDS,
    check_qa,
    check_summary,
    request_qa,
    request_summary,
)
from longctx.synth.chatqa2_figures import facts, figures
from longctx.synth.chatqa2_pages import Page, Paragraph, clean_page, index_page
from longctx.synth.chatqa2_rows import LIMIT, QA, Mode, Settings, build_row
from longctx.synth.draw import generator
from longctx.synth.items import Item
from longctx.synth.prompt import Prompt
from longctx.synth.rows import CHATQA2, Reject, Row
from longctx.synth.stages_base import Synthesis, Units
from longctx.synth.stages_chatqa2_pool import RELATED, RelatedWork, pool_of_corpus
from longctx.synth.stages_system import Language
from longctx.synth.tokens import TokenCounter

SUMMARY, ASKED = "chatqa.summary", "chatqa.qa"
_LENGTHS = frozenset({"min_context", "max_row", "slack", "mode", "on_short"})
_SHORT = 1_024  # tokens of the shortest document that is worth a summary of 200 words and more
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
    """Makes long rows with one span of evidence: a summary hidden in a long context.

    `rows` documents of min_tokens to max_tokens are drawn. The model of `generator` writes a
    summary of each in `summary_words` words (at most `summary_tokens`), then up to `questions`
    questions with answers on the summary alone (at most `qa_tokens`); one of them becomes the row.
    A context has a length drawn from min_context + `slack` to what max_row leaves, and one of less
    than `min_context` tokens is rejected.

    With `mode: own_document` the summary is inserted into its own document, between two sentences,
    at a place that is uniform over tokens. A document longer than the length drawn is cut to a
    window of whole sentences from anywhere in it, a shorter one stays whole; one that is too short
    for a context is rejected, or with `on_short: fill` followed by related paragraphs. With
    `mode: related_paragraphs` the summary alone is of the document, and stands between related
    paragraphs of others, in any order. Wherever paragraphs are taken, documents may be short, and
    min_tokens is 1,024 by default.

    Related paragraphs are those nearest to the summary by the vectors of `embedder` (hash, or an
    encoder as in `embed`), none of them with an accepted answer, of a pool of `pool_paragraphs`
    paragraphs for each language, of at most `paragraph_tokens` tokens each, from all documents.
    `cluster_column` names a column with clusters of near-duplicates, of which a document gets none.

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
    mode: Mode = "own_document"
    on_short: Literal["reject", "fill"] = "reject"
    pool_paragraphs: int = Field(100_000, ge=1, le=1_000_000)
    paragraph_tokens: int = Field(256, ge=8)
    embedder: Location = "static"
    cluster_column: str | None = Field(None, min_length=1)
    summary_words: tuple[int, int] = SUMMARY_WORDS
    questions: int = Field(5, ge=1)
    summary_tokens: int = Field(2_048, ge=1)
    qa_tokens: int = Field(1_024, ge=1)

    summary: ClassVar[str] = "questions on a summary hidden in a long context"
    source: ClassVar[str] = "ChatQA2 (arXiv 2407.14482)"
    cost: ClassVar[str] = (
        "two calls a row, one reads the document; with paragraphs, documents of the pool are read"
    )
    system: ClassVar[str] = SYSTEM
    schema: ClassVar[pa.Schema] = CHATQA2
    prompt_version: ClassVar[str] = PROMPT_VERSION
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {
        SUMMARY: frozenset({"summary_words"}),
        ASKED: frozenset({"questions"}),
        "rows": _LENGTHS,
    }

    @model_validator(mode="before")
    @classmethod
    def _lets_short_documents_in(cls, given: Any) -> Any:
        """Where paragraphs make up the length, a document need only be worth a summary."""
        if not isinstance(given, Mapping) or "min_tokens" in given:
            return given
        takes = given.get("mode") == "related_paragraphs" or given.get("on_short") == "fill"
        return {**given, "min_tokens": _SHORT} if takes else given

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

    @model_validator(mode="after")
    def _can_take_paragraphs(self) -> "SynthChatQA2":
        if not self.takes_paragraphs:
            return self
        if self.mode == "related_paragraphs" and self.on_short == "fill":
            raise ValueError(
                "on_short: fill is for documents in mode own_document; in mode related_paragraphs "
                "all of the context is paragraphs"
            )
        if self.paragraph_tokens > self.slack:
            raise ValueError(
                f"paragraph_tokens {self.paragraph_tokens} is above slack {self.slack}: a context "
                "may lack one paragraph, and the shortest would be below min_context"
            )
        langs = sorted(self.languages())
        unknown = [n for n, k in zip(langs, self._encoder_knows(langs), strict=True) if not k]
        if unknown:
            raise ValueError(
                f"embedder {self.embedder} knows no {', '.join(unknown)}, which lang_share asks "
                f"for: take {HASH}, or a model that knows it"
            )
        return self

    def _encoder_knows(self, langs: list[str]) -> list[bool]:
        known: list[str | None] = list(langs)
        return [True] * len(langs) if self.embedder == HASH else self._encoder().knows(known)

    def _encoder(self) -> Embed:
        return Embed(op="embed", model=self.embedder)

    @property
    def takes_paragraphs(self) -> bool:
        """Whether contexts hold paragraphs of other documents."""
        return self.mode == "related_paragraphs" or self.on_short == "fill"

    def prepare(self, setting: Setting) -> None:
        if self.takes_paragraphs:
            prepare(self.embedder)

    def clustered(self) -> list[str]:
        """The column of clusters, where it is read."""
        return [self.cluster_column] if self.cluster_column and self.takes_paragraphs else []

    def reads_columns(self) -> tuple[str, ...]:
        return (*self.reads, *self.clustered())

    def languages(self) -> frozenset[str]:
        """The languages in which rows are made."""
        return frozenset(lang for lang, share in self.lang_share.items() if share)

    @property
    def settings(self) -> Settings:
        """Limits of rows, in tokens."""
        return Settings(self.min_context, self.max_row, self.slack, self.mode, self.on_short)

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if self.takes_paragraphs and self.embedder != HASH:
            self._encoder().check(setting)

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
        return request_qa(self.summary_of(item), self.questions, item.lang)

    def summary_of(self, item: Item) -> str:
        """What the model said of a document."""
        said: str = item.replies[SUMMARY]["summary"]
        return said.strip()

    def asked_of(self, item: Item, seed: int) -> QA:
        """The question that becomes the row."""
        asked = item.replies[ASKED]["qas"]
        chosen = asked[int(generator(seed, SYSTEM, "question", item.id).integers(len(asked)))]
        return QA(
            id=f"{SYSTEM}-{item.id}",
            document_id=item.id,
            question=chosen["question"].strip(),
            answers=[chosen["answer"].strip()],
            lang=item.lang,
            source=item.source,
        )

    def page_of(self, item: Item, counter: TokenCounter) -> Page:
        """The document's own page; an empty one where the context is made without it."""
        own = self.mode == "own_document"
        return index_page(clean_page(item.text) if own else "", counter)

    def asked(self, context: BarrierContext, chosen: Sequence[dict[str, Any]], model: str) -> Units:
        if not self.takes_paragraphs:
            return super().asked(context, chosen, model)
        pool = pool_of_corpus(self, context)
        self._refuse_small_pool(context, {row["lang"] for row in chosen})
        units = super().asked(context, chosen, model)
        context.over_parts(
            RELATED,
            units,
            ["text", *self.clustered()],
            RelatedWork(self, context.setting, context.relative(RELATED), pool),
            depends=[pool.texts.digest, pool.vectors.digest],
            ignore=self.own_fields() - _LENGTHS - {"embedder", "cluster_column"},
        )
        self._bring(context, RELATED, units)
        return units

    def _refuse_small_pool(self, context: BarrierContext, langs: set[str]) -> None:
        """Before anything is asked: the longest contexts need as many tokens of others."""
        tokens = context.step_stats["index"].get("tokens", {})
        for lang in sorted(langs):
            if (found := tokens.get(lang, 0)) < self.max_row:
                raise RunError(
                    f"the pool of paragraphs holds {found:,} tokens of language {lang}, and rows "
                    f"have up to {self.max_row:,}",
                    where=context.setting.stage,
                    remedy="raise pool_paragraphs, lower max_row, or read more documents",
                )

    def row(self, item: Item, counter: TokenCounter, seed: int) -> Row | Reject:
        if item.replies.get(RELATED, {}).get("no_vector"):
            return Reject("too_short", "the embedder knows no word of the summary")
        qa, summary = self.asked_of(item, seed), self.summary_of(item)
        page, near = self.page_of(item, counter), _paragraphs(item)
        return build_row(qa, page, summary, counter, self.settings, seed, near)

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        page, summary = clean_page(item.text), self.summary_of(item)
        return facts(row, page, summary, self.settings, _paragraphs(item))

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return figures(facts, self.settings)

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        told, stats = super()._told(context, model, chosen), context.step_stats
        if not self.takes_paragraphs:
            return told
        steps = ("paragraphs", "pool", "index", RELATED)
        return {**told, "pool": {k: v for step in steps for k, v in stats[step].items()}}


def _paragraphs(item: Item) -> list[Paragraph]:
    """What the step `related` found for a row."""
    return [Paragraph(**one) for one in item.replies.get(RELATED, {}).get("paragraphs", [])]
