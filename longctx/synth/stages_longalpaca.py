"""`synth.longalpaca` on the engine: long questions by category and short instructions, mixed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from longctx.cost.model_calls import ModelCalls
from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.engine.steps import StepRef
from longctx.errors import RecipeError, RunError
from longctx.llm.ask import CallStage
from longctx.location import Location
from longctx.synth import longalpaca_items
from longctx.synth.checks import allocate
from longctx.synth.items import Bin, Item
from longctx.synth.longalpaca import (
    LIMIT,
    MIN_LEN,
    PROMPT_VERSION,
    QUOTA,
    SYSTEM,
    assemble_long,
    check_qa,
    request_qa,
)
from longctx.synth.longalpaca_items import CategoryQuotas, read_short
from longctx.synth.prompt import Prompt
from longctx.synth.rows import LONGALPACA, Reject, Row
from longctx.synth.stages_base import Synthesis
from longctx.synth.stages_files import FilesWork
from longctx.synth.stages_longalpaca_mix import MIXTURE, MixedFiles, mixed
from longctx.synth.stages_system import Language
from longctx.synth.stages_table import content_of, records_of
from longctx.synth.tokens import TokenCounter

Category = Literal["book", "summary", "review", "analysis", "other"]
ASKED = "qa"
TABLE = "file of short rows"
_WORDS = {
    "question_form": "The question must end with a question mark, or begin with what to do.",
    "answer_length": "The answer must have 30 to 1,500 words.",
    "unsupported": "The answer must say what the document says, with the document's words.",
}


class SynthLongAlpaca(Synthesis):
    """Mixes questions on long documents, by category, with short instructions, in Alpaca form.

    `rows` are those of the mixture, long and short ones as `ratio`. A document's category is the
    value of `category_column`, or what `categories` says of its source, else `other_sources`; the
    model of `generator` asks and answers one question of this category on each. Long rows are taken
    by the shares of `quota`; `spare` more documents are asked about than are taken, for replies
    that come to nothing. Where a category or the short rows are too few, the whole mixture shrinks
    (`fill: shrink`), or the other categories give what is missing (`redistribute`).

    `short` is a file (JSONL, JSON list, Parquet; .gz) with rows {instruction, input, output}.
    A long row has `min_len` to `limit` tokens; with `truncate: document` a longer one loses the end
    of its document instead of being rejected.

    The output holds part-*.parquet (rows in the typed schema), chat-*.jsonl (their turns),
    alpaca-*.jsonl, and rejects-*.parquet (documents without a row, each with its reason).
    """

    op: Literal["synth.longalpaca"]
    short: Location
    short_lang: Language = "en"
    ratio: tuple[int, int] = (3, 1)
    quota: dict[Category, int] = Field(
        {"book": 13, "summary": 7, "review": 20, "analysis": 20, "other": 14}, min_length=1
    )
    categories: dict[str, Category] = Field({})
    category_column: str | None = Field(None, min_length=1)
    other_sources: Category | None = None
    fill: Literal["shrink", "redistribute"] = "shrink"
    spare: float = Field(0.2, ge=0)
    min_tokens: int = Field(MIN_LEN, ge=1)
    max_tokens: int = Field(LIMIT - 2_048, ge=1)
    lang_share: dict[Language, float] = Field({"en": 1.0}, min_length=1)
    min_len: int = Field(MIN_LEN, ge=1)
    limit: int = Field(LIMIT, ge=1)
    truncate: Literal["", "document"] = ""
    qa_tokens: int = Field(2_048, ge=1)

    summary: ClassVar[str] = "long questions by category and short rows, mixed"
    source: ClassVar[str] = "LongAlpaca, LongLoRA (arXiv 2309.12307)"
    cost: ClassVar[str] = "a call a long row, which reads the document; `longctx plan` counts"
    system: ClassVar[str] = SYSTEM
    schema: ClassVar[pa.Schema] = LONGALPACA
    prompt_version: ClassVar[str] = PROMPT_VERSION
    chooses: ClassVar[frozenset[str]] = Synthesis.chooses | {
        *("ratio", "quota", "categories", "category_column", "other_sources", "spare")
    }
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {
        ASKED: frozenset({"quota"}),
        "rows": frozenset({"min_len", "limit", "truncate", "quota"}),
    }

    @field_validator("quota")
    @classmethod
    def _is_a_quota(cls, value: dict[Category, int]) -> dict[Category, int]:
        if any(n < 0 for n in value.values()) or not any(value.values()):
            raise ValueError("quotas are whole numbers from 0, and one of them is above 0")
        return value

    @field_validator("ratio")
    @classmethod
    def _is_a_ratio(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 1:
            raise ValueError("the parts of long and of short rows are at least 1: as [3, 1]")
        return value

    @model_validator(mode="after")
    def _has_categories(self) -> "SynthLongAlpaca":
        if not (self.categories or self.category_column or self.other_sources):
            raise ValueError(
                "no document has a category: set category_column, or `categories` with the "
                "category of each source, or `other_sources` for all"
            )
        if self.limit < self.min_len:
            raise ValueError(f"limit {self.limit} is below min_len {self.min_len}")
        return self

    @property
    def quotas(self) -> CategoryQuotas:
        shares: dict[str, float] = {lang: self.lang_share[lang] for lang in sorted(self.lang_share)}
        long, _ = allocate(self.rows, self.ratio)
        lengths = (self.min_tokens, self.max_tokens, self.bin_tokens)
        return CategoryQuotas(long, *lengths, shares, self.shares, self.spare)

    @property
    def shares(self) -> dict[str, int]:
        """The quota of each category by its name."""
        return {str(category): n for category, n in self.quota.items()}

    @property
    def short_source(self) -> str:
        """The name of the short rows as a source."""
        return self.short.rsplit("/", 1)[-1].split(".")[0]

    def short_rows(self, where: str) -> list[Row]:
        """The short rows; RecipeError for what is none, with its place and field."""
        records = records_of(self.short, TABLE, f"{where}: short")
        if not records:
            raise RecipeError(
                f"the {TABLE} has no rows",
                where=f"{where}: short",
                remedy="give a file with rows {instruction, input, output}",
            )
        return read_short(records)

    def choice_column(self) -> str | None:
        return self.category_column

    def bin_of(self, lang: str | None, n_tokens: int | None, source: str, value: Any) -> Bin | None:
        known = self.categories.get(source, self.other_sources)
        category = value if value in QUOTA else known
        return self.quotas.place(lang, n_tokens, category)

    def named_sources(self) -> dict[str, tuple[str, ...]]:
        return {"categories": tuple(self.categories)}

    def reads_columns(self) -> tuple[str, ...]:
        return (*self.reads, *([self.category_column] if self.category_column else []))

    def fingerprint_fields(self) -> dict[str, Any]:
        known = super().fingerprint_fields()
        return {**known, "short": content_of(self.short, TABLE, f"{self.op}: short")}

    def check(self, setting: Setting) -> None:
        super().check(setting)
        self.short_rows(setting.stage)

    def calls(self) -> tuple[CallStage, ...]:
        return (
            CallStage(
                system=SYSTEM,
                name=f"{SYSTEM}.{ASKED}",
                check=check_qa,
                max_tokens=self.qa_tokens,
                words=_WORDS,
                temperature=self.temperature,
                top_p=self.top_p,
            ),
        )

    def model_calls(self, documents: int) -> list[ModelCalls]:
        (told,) = super().model_calls(documents)
        asked = min(documents, sum(self.quotas.wanted().values()))
        share = asked / told.calls if told.calls else 0.0
        return [
            replace(
                told,
                calls=asked,
                prompt_tokens=round(told.prompt_tokens * share),
                completion_tokens=round(told.completion_tokens * share),
                usd=None if told.usd is None else told.usd * share,
            )
        ]

    def category(self, item: Item) -> str:
        """The category that a document was chosen for."""
        return list(self.quota)[item.bin]

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        return request_qa(item.text, self.category(item), item.lang)

    def row(self, item: Item, counter: TokenCounter, seed: int) -> Row | Reject:
        said = item.replies[ASKED]
        row = {
            "id": item.id,
            "document": item.text,
            "question": said["question"].strip(),
            "answer": said["answer"].strip(),
            "category": self.category(item),
        }
        bounds = (self.limit, self.min_len, self.truncate)
        return assemble_long(row, item.lang, item.source, counter, seed, *bounds)

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        return self.facts_of(row)

    def facts_of(self, row: Row) -> dict[str, Any]:
        """What is known of a long or a short row."""
        return longalpaca_items.facts(row)

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        lengths = (self.min_len, self.limit)
        return longalpaca_items.figures(facts, self.rows, self.ratio, self.shares, lengths)

    def _choose(self, context: BarrierContext) -> list[dict[str, Any]]:
        chosen = super()._choose(context)
        if not chosen:
            raise RunError(
                f"no document of {self.min_tokens:,} to {self.max_tokens:,} tokens has one of the "
                f"languages {', '.join(self.lang_share)} and a category of `quota`",
                where=context.setting.stage,
                remedy="change min_tokens, max_tokens or lang_share; name sources in `categories`, "
                "or set other_sources",
            )
        return chosen

    def settled(
        self, context: BarrierContext, rows: StepRef, chosen: Sequence[dict[str, Any]], model: str
    ) -> StepRef:
        return mixed(self, context, rows, 1 + max(row["file"] for row in chosen), model)

    def files_work(self, setting: Setting) -> FilesWork:
        return MixedFiles(self, setting)

    def rows_made(self, context: BarrierContext) -> int:
        told = context.step_stats[MIXTURE]
        return int(told["long_taken"] + told["short_taken"])

    def accounted(self, context: BarrierContext, chosen: int) -> bool:
        taken = context.step_stats[MIXTURE]["long_taken"]
        return bool(taken + context.step_stats["files"].get("rejects", 0) == chosen)

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        told, found = super()._told(context, model, chosen), context.step_stats[MIXTURE]
        left = {"over_quota": found["long"] - found["long_taken"]}
        rejects = summary.merge([told["rejects"], {k: n for k, n in left.items() if n}])
        return {**told, "rejects": rejects, "mixture": found}
