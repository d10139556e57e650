"""kNN-Pretraining on the engine: examples of related sentences beside ordinary windows.

Anchors are the sentences of smallest priority. Every part embeds its sentences once and is searched
for the nearest of each anchor, exactly, so the cost is anchors x sentences x dim; no vector of a
sentence is stored. One process then builds the examples from the candidates and their texts.
Ordinary windows come from all documents in random order; the examples are span tours behind them
(column `spans`, read by `pack`).

`variant: knn_repeat` needs the vectors of documents instead, and places nothing but spans.
"""

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from longctx.embed.stages import Embed
from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Barrier, Setting
from longctx.engine.rows import to_part
from longctx.engine.steps import StepRef
from longctx.errors import RecipeError
from longctx.location import Location
from longctx.order import stages_examples as built
from longctx.order import stages_units as steps
from longctx.order.stages_semantic import PLACED, neighbour_lists

if TYPE_CHECKING:
    from longctx.order.neighbours import Rules

# Some anchors find no company or are used up: twice as many are searched as examples are wanted.
_SURPLUS = 2
_MOST_CANDIDATES = 2000


class OrderNeighbours(Barrier):
    """kNN-Pretraining: contexts of related sentences that are not neighbours in their texts.

    `p_knn` of all windows are examples: an anchor sentence and the nearest of its `candidates`
    (default: enough to fill `length` twice, 50 to 2,000), never of one document (`min_gap` null; a
    number allows sentences of one document that are farther apart), no near-copies (cosine
    `dup_hi`, or 3-gram Jaccard 0.7), none less similar than `rel_lo`, none used more than
    `max_reuse` times. The rest are ordinary windows: all documents in random order. Sentences are
    joined up to `min_unit` tokens and cut at `max_unit`; `units_per_document` bounds how many of a
    document are used, evenly spaced. Documents in languages that `model` does not know
    (`languages`) stand in ordinary windows only.

    `variant: knn_repeat` is the baseline of In-Context Pretraining: each document with its nearest
    neighbours by `embedding` until `length`, repeats allowed, and no ordinary windows.
    """

    op: Literal["order.neighbours"]
    variant: Literal["sentences", "knn_repeat"] = "sentences"
    p_knn: float = Field(0.1, gt=0, lt=1)
    candidates: int | None = Field(None, ge=1)
    min_gap: int | None = Field(None, ge=0)
    dup_hi: float = Field(0.95, gt=0, le=1)
    rel_lo: float = Field(0.5, ge=-1, lt=1)
    max_reuse: int = Field(1, ge=1)
    inner_order: Literal["descending", "ascending", "shuffled"] = "descending"
    length: int | None = Field(None, ge=1)
    model: Location = "static"
    languages: list[str] | None = None
    min_unit: int = Field(16, ge=1)
    max_unit: int = Field(128, ge=1)
    units_per_document: int | None = Field(None, ge=1)

    summary: ClassVar[str] = "contexts of related sentences (kNN-Pretraining)"
    source: ClassVar[str] = "kNN-Pretraining 2110.04541; knn_repeat as compared in ICP 2310.10638"
    cost: ClassVar[str] = "every sentence embedded once; anchors x sentences x dim multiply-adds"
    writes: ClassVar[tuple[str, ...]] = (*PLACED.names[1:], "spans")

    @model_validator(mode="after")
    def _bounds(self) -> "OrderNeighbours":
        if self.max_unit < 2 * self.min_unit:
            raise ValueError(f"`max_unit` {self.max_unit} is less than twice `min_unit`")
        if self.rel_lo >= self.dup_hi:
            raise ValueError(f"nothing lies between `rel_lo` {self.rel_lo} and `dup_hi`")
        return self

    def reads_columns(self) -> tuple[str, ...]:
        if self.variant == "knn_repeat":
            return ("embedding", "n_tokens")
        return ("text", "language", "tokens", "n_tokens")

    def check(self, setting: Setting) -> None:
        least = 2 * (self.min_unit + 1) if self.variant == "sentences" else 1
        if self.length is None or self.length < least:
            raise RecipeError(
                "the length of a context is not known"
                if self.length is None
                else f"a context of {self.length} tokens has no room for two sentences",
                where=f"{setting.stage}: length",
                remedy="add `pack` as the last stage, or give `length` in tokens"
                if self.length is None
                else f"use a `length` of at least {least}",
            )
        self.encoder().check(setting)

    def encoder(self) -> Embed:
        """The encoder of the sentences."""
        return Embed(op="embed", model=self.model, languages=self.languages)

    def prepare(self, setting: Setting) -> None:
        if self.variant != "knn_repeat":
            self.encoder().prepare(setting)

    def run(self, context: BarrierContext) -> None:
        assert self.length is not None  # `check` refused such a recipe
        if self.variant == "knn_repeat":
            places = self._repeats(context, self.length)
        else:
            places = self._examples(context, self.length)
        context.sidecar("", [(places, to_part)], built.place_part, built.PLACE, self.writes)

    def _examples(self, context: BarrierContext, length: int) -> StepRef:
        """Documents, units, anchors, candidates and their texts, then the examples."""
        parts = context.parts()
        every = self.own_fields()
        documents = context.single(
            "documents",
            partial(steps.number_documents, parts),
            columns=["doc_id", "n_tokens"],
            ignore=every,
        )
        bounds = ("min_unit", "max_unit", "units_per_document")
        units = context.per_part(
            "units",
            partial(
                steps.make_units,
                self.encoder(),
                (self.min_unit, self.max_unit),
                self.units_per_document,
            ),
            ["doc_id", "text", "language", "tokens"],
            ignore=every - {"model", "languages", *bounds},
        )
        wanted = self._wanted(context, length)
        k = self._candidates(context, length)
        ignored = ("min_gap", "dup_hi", "max_reuse", "inner_order")
        sample = context.per_part(
            "sample",
            partial(steps.sample_anchors, units, documents, _SURPLUS * wanted),
            ["text"],
            inputs=[units, documents],
            ignore=ignored,
        )
        rule = partial(steps.embed_anchors, sample, self.model, _SURPLUS * wanted, self.rel_lo)
        anchors = context.single("anchors", rule, [sample], ignore=ignored)
        found = context.per_part(
            "found",
            partial(steps.search_units, units, documents, anchors, self.model, k, self.rel_lo),
            ["text"],
            inputs=[units, documents, anchors],
            ignore=ignored,
        )
        buckets = context.buckets_for([found])
        candidates = context.exchange(
            "candidates",
            [(found, partial(steps.by_anchor, buckets))],
            partial(steps.merge_found, k),
            steps.FOUND,
            buckets=buckets,
            ignore=ignored,
        )
        texts = context.per_part(
            "texts",
            partial(steps.fetch_texts, units, anchors, candidates),
            ["text"],
            inputs=[units, anchors, candidates],
            ignore=ignored,
        )
        rule = partial(
            built.build_examples,
            self.rules(),
            length,
            wanted,
            documents,
            anchors,
            candidates,
            texts,
        )
        return context.single("tours", rule, [documents, anchors, candidates, texts])

    def _wanted(self, context: BarrierContext, length: int) -> int:
        """Examples that are `p_knn` of all windows, when ordinary ones are full."""
        ordinary = context.step_stats["documents"]["tokens"] / length
        return int(np.ceil(ordinary * self.p_knn / (1 - self.p_knn)))

    def _candidates(self, context: BarrierContext, length: int) -> int:
        if self.candidates is not None:
            return self.candidates
        stats = context.step_stats["units"]
        mean = stats["unit_tokens"] / max(1, stats["units"])
        return int(np.clip(np.ceil(2 * length / max(mean, 1)), 50, _MOST_CANDIDATES))

    def _repeats(self, context: BarrierContext, length: int) -> StepRef:
        """Neighbour lists of the documents, and contexts made of them."""
        every = self.own_fields()
        k = self.candidates or 50
        numbered, (lists, _, _) = neighbour_lists(context, k, every - {"candidates"})
        rule = partial(built.build_repeats, numbered, lists, length, self.dup_hi)
        return context.single("tours", rule, [numbered, lists])

    def rules(self) -> "Rules":
        """The fields that decide what may stand in one example."""
        from longctx.order.neighbours import Rules

        names = ("min_gap", "dup_hi", "rel_lo", "max_reuse", "inner_order", "min_unit")
        return Rules(**{n: getattr(self, n) for n in names})
