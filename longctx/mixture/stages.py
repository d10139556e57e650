"""`mix.weights` and `mix.upsample` on the engine: how many copies of which document are packed.

Both are one barrier (`stages_steps.py`) with other words for it. They stand after duplicates,
filters and scores, which would change what was planned, and before an order: a tour that is made
over documents that are then dropped has holes where its neighbours were. Clusters and vectors may
come before, since nothing in them depends on who else lives, and `by: cluster` needs them; after
the mixture they are made for chosen documents only, which is cheaper.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from longctx.engine.barrier import BarrierContext
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.errors import RecipeError
from longctx.io import paths
from longctx.mixture.census import edges_with
from longctx.mixture.presets import PILE, PILE_SOURCES, PROLONG, SHARES
from longctx.mixture.rules import (
    LONG,
    Cut,
    Effective,
    Fixed,
    FromFile,
    Length,
    Natural,
    NoRule,
    PileCopies,
    Settings,
    SingleDocument,
    Weights,
)
from longctx.mixture.stages_rows import SIZES
from longctx.mixture.upsample import RAISED, STRATEGIES, thresholds, window_of
from longctx.mixture.weights import WeightsFile, read_weights
from longctx.registry import did_you_mean

_COLUMNS = ("mix_bucket", "mix_rate", "mix_u", "mix_copies")
_COUNTED = {"by", "unit", "rate_by", "holdout_fraction"}
_NONE: NoRule = NoRule(kind="none")
StrategyName = Literal[
    "original",
    "cut4k",
    "per_source",
    "global",
    "code_up",
    "book_up",
    "arxiv_up",
    "code_arxiv_book_up",
    "prolong_64k",
    "prolong_512k",
]


class Mixture(Barrier, Settings):
    """What both ops have in common."""

    one_place_up_to: int = Field(5_000_000, ge=1)

    source: ClassVar[str] = "Fu et al. 2402.10171, ProLong 2410.02660, UniMax 2304.09151"
    cost: ClassVar[str] = (
        "three passes over some 40 bytes a document, 2 µs each; nothing is exchanged"
    )
    writes: ClassVar[tuple[str, ...]] = (*_COLUMNS, DROP_REASON)
    removes: ClassVar[bool] = True
    neutral: ClassVar[frozenset[str]] = frozenset({"one_place_up_to"})
    once: ClassVar[str] = "mixture"
    last_of: ClassVar[tuple[str, ...]] = ("score.heuristics", "filter.", "dedup.", "decide")
    why_early: ClassVar[str] = "chooses documents, which `{}` has put in order by then"
    why_late: ClassVar[str] = "would change the documents that the mixture was planned for"

    def front_end(self) -> Weights:
        """Where weights come from."""
        raise NotImplementedError

    def rule(self) -> Length:
        """The length rule of sources that have no other."""
        raise NotImplementedError

    def prolong(self) -> str | None:
        """A preset of slots and windows in place of both."""
        return None

    def raised(self) -> dict[str, list[str]]:
        """Sources of each slot that a strategy raises."""
        return {}

    def known_slots(self) -> dict[str, str]:
        """Slots that the recipe may fill, each with what it is a slot of."""
        front = self.front_end()
        named: dict[str, str] = {}
        if self.prolong():
            named = dict.fromkeys(PROLONG[str(self.prolong())], str(self.prolong()))
        elif isinstance(front, Fixed) and front.preset:
            named = dict.fromkeys(SHARES[front.preset], front.preset)
        elif isinstance(front, PileCopies) and front.preset:
            named = dict.fromkeys(PILE_SOURCES, PILE)
        return {**dict.fromkeys(RAISED, "strategies"), **named}

    @model_validator(mode="after")
    def _is_whole(self) -> "Mixture":
        front = self.front_end()
        if self.budget is None and not isinstance(front, PileCopies):
            raise ValueError(f"give a `budget`: how many {self.unit} the mixture is to have")
        known = self.known_slots()
        for slot in self.slots:
            if slot not in known:
                listed = ", ".join(known)
                raise ValueError(
                    f"there is no slot `{slot}`{did_you_mean(slot, known)}; slots: {listed}"
                )
        if self.unit != "tokens":
            for rule in self.rules():
                if isinstance(rule, Cut | SingleDocument):
                    raise ValueError(f"`{rule.kind}` counts tokens: leave `unit` at tokens")
        return self

    def rules(self) -> list[Length]:
        """All length rules that some source may have."""
        windows = [
            SingleDocument(kind="single_document", window=w)
            for slot in PROLONG.get(self.prolong() or "", {}).values()
            for w, _ in slot.windows
        ]
        return [self.rule(), *self.per_source.values(), *windows]

    def edges(self) -> tuple[int, ...]:
        """Where buckets of sizes begin."""
        every = {t for rule in self.rules() for t in thresholds(rule)}
        return edges_with({LONG, *every, *([self.long_from] if self.long_from else [])})

    def windows(self) -> tuple[int, ...]:
        """Lengths of windows that documents fill alone."""
        return tuple(sorted({w for r in self.rules() if (w := window_of(r)) is not None}))

    def uncounted(self) -> set[str]:
        """Fields that the census does not depend on."""
        return set(self.fingerprint_fields()) - _COUNTED - {"op", "code_version"}

    def named_sources(self) -> dict[str, tuple[str, ...]]:
        if self.by != "source":
            return {}
        front = self.front_end()
        shares = front.shares if isinstance(front, Fixed) else None
        if isinstance(front, PileCopies):
            shares = front.copies
        file = self.file()
        named = {
            "weights": tuple(shares or ()),
            "weights.path": tuple(file.weights) if file else (),
            "weights.boost": tuple(front.boost),
            "per_source": tuple(self.per_source),
            **{f"slots.{slot}": tuple(sources) for slot, sources in self.slots.items()},
        }
        return {place: sources for place, sources in named.items() if sources}

    def precedes(self) -> tuple[str, ...]:
        return ("tour_id",)

    def reads_columns(self) -> tuple[str, ...]:
        size = SIZES[self.unit]
        by = [self.rate_by.column] if self.rate_by else []
        return tuple(dict.fromkeys([*([size] if size else []), self.by, *by]))

    def writes_columns(self) -> tuple[str, ...]:
        rules = self.rules()
        piece = ("mix_max_piece",) if any(isinstance(r, Cut) for r in rules) else ()
        alone = ("mix_window",) if self.windows() else ()
        return (*_COLUMNS, *piece, *alone, DROP_REASON)

    def file(self) -> WeightsFile | None:
        """The file of weights that the recipe names. Raises RecipeError where it is none."""
        front = self.front_end()
        if not isinstance(front, FromFile):
            return None
        data = paths.read_if_exists(paths.absolute(front.path))
        if data is None:
            raise RecipeError(
                "there is no such file of weights",
                where=paths.printable(front.path),
                remedy="give a file that `longctx mix optimise` wrote",
            )
        return read_weights(data, paths.printable(front.path))

    def fingerprint_fields(self) -> dict[str, Any]:
        fields = super().fingerprint_fields()
        file = self.file()
        return fields if file is None else {**fields, "file": file.weights}

    def check(self, setting: Setting) -> None:
        self.file()

    def run(self, context: BarrierContext) -> None:
        from longctx.mixture.stages_steps import mix

        mix(self, context, self.file())


class MixWeights(Mixture):
    """Chooses documents, and how often, so that every source gets its share of a budget.

    `budget` is the size of the result in `unit`. `weights` is one of {kind: natural}, {kind: fixed,
    shares: {web: 0.7, books: 0.3}} or a preset (slimpajama_fu, llama1, together_32k_1 and _2),
    {kind: file, path: weights.json} from `longctx mix optimise`, {kind: temperature, tau: 2},
    {kind: unimax, epochs: 4}, {kind: pile_copies, copies: {books: 2}}, {kind: effective}; `boost`
    in it sets single shares before they are normalised. `slots` fills a preset: {Book: [my_books]}.

    Copies are drawn by hash: the same documents for any order and number of workers, and a larger
    budget only adds some. A source that is needed more than `max_epochs` times ends the run with
    the budget and the shares that would do, or follows `on_cap`. Where draws would miss a share by
    more than .5 %, it is taken from the documents themselves (`calibrate`).

    `length` (and `per_source`) may favour long documents: none, keep_below, target_long_share,
    min_length, single_document, cut; see mix.upsample. `rate_by` multiplies rates by the value of a
    column: {column: lw_class, rates: {holistic: 1, aggregated: 2}, other: 0}. `holdout_fraction` is
    set aside before anything else, near-copies together. The columns are `mix_copies` and what led
    to it; what gets no copy is dropped as "mixture", what is held out as "holdout".
    """

    op: Literal["mix.weights"]
    weights: Weights
    length: Length = _NONE

    summary: ClassVar[str] = "copies of documents: a share for every source"

    def front_end(self) -> Weights:
        return self.weights

    def rule(self) -> Length:
        return self.length


class MixUpsample(Mixture):
    """Takes more of long documents while every source keeps its share, or makes ProLong's mix.

    `strategy` names a mixture: per_source (Fu et al.: documents below 4,096 tokens at a tenth of
    the rate, shares stay), global (shares follow), original (all lengths alike), cut4k (pieces of
    4,096), code_up, book_up, arxiv_up, code_arxiv_book_up (these at .60 before normalising; say in
    `slots` which sources they are: {code: [github]}). prolong_64k and prolong_512k: 60 % long code
    repositories and books with a window for each document, 40 % short text in `slots`.

    `length` replaces the rule of the strategy: {kind: keep_below, threshold: 4096, p: 0.1}, {kind:
    target_long_share, share: 0.7}, {kind: min_length, length: 65536}, {kind: single_document,
    window: 65536}, {kind: cut, piece: 4096}, {kind: none}; `per_source` that of single sources.
    `weights` are natural unless given, as in mix.weights.

    A small p can need the few long documents of a source absurdly often. It is then raised until
    `max_epochs` are enough, and the plan says so. Without long documents p is 1. All other fields
    are those of mix.weights.
    """

    op: Literal["mix.upsample"]
    strategy: StrategyName = "per_source"
    weights: Weights | None = None
    length: Length | None = None

    summary: ClassVar[str] = "more of long documents, shares of sources held"

    @model_validator(mode="after")
    def _is_one_strategy(self) -> "MixUpsample":
        if self.strategy in PROLONG and (self.weights or self.length or self.rate_by):
            raise ValueError(f"{self.strategy} has shares and lengths: leave the others out")
        if self.strategy == "global" and self.weights:
            raise ValueError("with the strategy global weights follow the rule: leave them out")
        for slot in STRATEGIES[self.strategy].boost if self.strategy in STRATEGIES else ():
            if not self.slots.get(slot):
                raise ValueError(
                    f"{self.strategy} raises {slot}: say in `slots` which sources that is, as in "
                    f"slots: {{{slot}: [my_{slot}]}}"
                )
        return self

    def front_end(self) -> Weights:
        follows = self.strategy in STRATEGIES and STRATEGIES[self.strategy].weights_follow
        if follows:
            return Effective(kind="effective")
        return self.weights or Natural(kind="natural")

    def rule(self) -> Length:
        if self.length is not None:
            return self.length
        return STRATEGIES[self.strategy].length if self.strategy in STRATEGIES else _NONE

    def prolong(self) -> str | None:
        return self.strategy if self.strategy in PROLONG else None

    def raised(self) -> dict[str, list[str]]:
        named = STRATEGIES[self.strategy].boost if self.strategy in STRATEGIES else ()
        return {slot: self.slots[slot] for slot in named}
