"""`synth.longmit` on the engine: questions of several hops over documents that are near each other.

How data flows. The base chooses documents. `stages_longmit_paths` walks them along their nearest
neighbours and brings their texts to the units of their paths. Units are paths from there on: the
stages of single questions, `chains`, one stage for each level of merging, `mit.verify` and
`mit.necessity`, then `rows`. A unit makes what it asks from its documents and the replies so far.

What we changed is said in `longmit`, `longmit_path`, `longmit_chains` and `longmit_rows`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from longctx.cluster.stages_knn import EXACT_UP_TO
from longctx.cost.model_calls import ModelCalls
from longctx.embed.stages import Embed
from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.engine.steps import StepRef
from longctx.engine.units import LoadedWork, Work
from longctx.errors import RunError
from longctx.llm.ask import CallStage
from longctx.llm.spec import GeneratorSpec
from longctx.llm.types import Usage
from longctx.location import Location
from longctx.synth.items import Item
from longctx.synth.longmit import (
    CHUNK,
    HI,
    LO,
    MAX_DOCS,
    MAX_HOP,
    PREFIX_JACCARD,
    STARTS,
    SYSTEM,
    n_chunks,
)
from longctx.synth.longmit_calls import MOST_QUESTIONS, PROMPT_VERSION
from longctx.synth.longmit_chains import (
    Candidate,
    Kind,
    bounds_of,
    merge_step,
    necessity_by_model,
    necessity_by_rule,
)
from longctx.synth.longmit_figures import figures
from longctx.synth.longmit_path import (
    ANSWER,
    EXTRACT,
    NECESSITY,
    REFERENCE,
    SIMPLIFY,
    SINGLE_STEPS,
    VERIFY,
    Path,
    Said,
    fault_of,
    prompt_of,
)
from longctx.synth.longmit_rows import BOUND, LEAST_LIMIT, RESERVE
from longctx.synth.prompt import Prompt
from longctx.synth.rows import LONGMIT, Row
from longctx.synth.stages_base import Synthesis, Units
from longctx.synth.stages_held_out import SCREENED
from longctx.synth.stages_longmit_paths import Library, library_of
from longctx.synth.stages_longmit_rows import PathRowsWork
from longctx.synth.stages_longmit_work import CHAINS, ChainsWork, PathAskWork, SimilarWork
from longctx.synth.stages_system import Language
from longctx.synth.stages_work import AskWork

_JUDGED = frozenset({VERIFY, NECESSITY})
# Asked at temperature 0: they find, they do not write.
_COLD = frozenset({REFERENCE, *_JUDGED})
_WORDS = {
    "question_count": "There must be three questions at most.",
    "question_form": "Every question must end with a question mark.",
    "span_not_found": "`span` must be words of the question, as they stand there.",
    "unsupported": "The answer must say what the text says, with the text's words.",
    "short_length": "The short answer must have 1 to 20 words.",
    "fact_added": "The short answer must not hold a name or number that the long one has not.",
    "empty_field": "Question, reasoning and answer must not be empty.",
    "fact_lost": "Answer and reasoning must keep every name and number of the answers given.",
    "joined_by_and": "The question must not be the two questions joined by a word like and.",
    "leaks_answer": "The question must not hold one of the answers given.",
    "mark_range": "All marks must be whole numbers from 0 to 10.",
}
_ASSUMED = (
    "documents of the middle length, paths as long as allowed, three questions of every chunk and "
    "chains of all hops; replies as long as allowed; nothing rejected, nothing asked for again"
)
_SINGLE_TOKENS, _MERGED_TOKENS = 60, 300


class SynthLongMIT(Synthesis):
    """Makes rows whose question needs up to four documents, which stand anywhere in a long context.

    `rows` is how many documents are taken; there may be more rows than that. They are walked along
    their nearest neighbours (`k` by `embedding`, none of the same cluster in `cluster_column`) into
    paths of at most `max_docs`. The model of `generator` draws up to three questions from each
    chunk of `chunk_tokens` and answers them; their vectors by `model` say which are alike enough to
    be linked (cosine `lo` to `hi`; null: the 60th and 99.5th percentile of this run). From up to
    `starts` questions of a path go chains, across its documents (inter: `walk` from one to the
    next, `star` all from the first) and inside one (intra), and are merged into questions of 2 to
    `max_hop` hops. `judge` (by default the generator) marks each, which stays above 8.5 of 10, and
    says whether it can be answered with one clue left out; `necessity: rule` looks for the facts of
    the answer instead, `none` does not ask.

    A context holds the clues, their path, and other documents (of `pool_documents` that are drawn)
    until a length drawn evenly from 4,096 to `max_row` less 4,096, or 8,192 for inter.

    The output holds part-*.parquet (rows in the typed schema), chat-*.jsonl (their turns), and
    rejects-*.parquet (documents, questions and merges that came to nothing, each with its reason).
    `unit_rows` and `shard_rows` count paths.
    """

    op: Literal["synth.longmit"]
    judge: GeneratorSpec | None = None
    min_tokens: int = Field(128, ge=1)
    max_tokens: int = Field(32_768, ge=1)
    bin_tokens: int = Field(BOUND, ge=1)
    lang_share: dict[Language, float] = Field({"en": 1.0}, min_length=1)
    temperature: float = Field(1.2, ge=0, le=2)
    top_p: float = Field(0.1, gt=0, le=1)
    unit_rows: int = Field(4, ge=1)
    shard_rows: int = Field(8, ge=1)
    k: int = Field(10, ge=1)
    k_search: int = Field(32, ge=1)
    exact_up_to: int = Field(EXACT_UP_TO, ge=0)
    cluster_column: str | None = Field(None, min_length=1)
    max_docs: int = Field(MAX_DOCS, ge=1)
    prefix_jaccard: float = Field(PREFIX_JACCARD, gt=0, le=1)
    chunk_tokens: int = Field(CHUNK, ge=32)
    model: Location = "static"
    languages: list[str] | None = None
    kinds: tuple[Kind, ...] = Field(("inter", "intra", "single"), min_length=1)
    chain_mode: Literal["walk", "star"] = "walk"
    starts: int = Field(STARTS, ge=1)
    max_hop: int = Field(MAX_HOP, ge=2, le=4)
    lo: float | None = Field(LO, ge=-1, le=1)
    hi: float | None = Field(HI, ge=-1, le=1)
    necessity: Literal["model", "rule", "none"] = "model"
    pool_documents: int = Field(20_000, ge=1)
    max_row: int = Field(BOUND, ge=1)
    reply_tokens: int = Field(1_024, ge=1)

    summary: ClassVar[str] = "questions over several documents in long contexts"
    source: ClassVar[str] = "LongMIT, MIMG (arXiv 2409.01893)"
    cost: ClassVar[str] = "some 10 short calls a chunk, 30 a start question; `longctx plan` counts"
    reads: ClassVar[tuple[str, ...]] = ("n_tokens", "embedding")
    system: ClassVar[str] = SYSTEM
    schema: ClassVar[pa.Schema] = LONGMIT
    prompt_version: ClassVar[str] = PROMPT_VERSION
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {
        "similar": frozenset({"model", "languages"}),
        CHAINS: frozenset({"model", "languages", "kinds", "chain_mode", "starts", "max_hop"}),
        "rows": frozenset({"model", "languages", "kinds", "necessity", "max_row"}),
    }

    @model_validator(mode="after")
    def _fits(self) -> "SynthLongMIT":
        if (self.lo is None) != (self.hi is None):
            raise ValueError("lo and hi are both numbers, or both null")
        if self.lo is not None and self.hi is not None and self.lo >= self.hi:
            raise ValueError(f"nothing lies between lo {self.lo} and hi {self.hi}")
        least = LEAST_LIMIT + max(RESERVE[kind] for kind in self.kinds)
        if self.max_row < least:
            raise ValueError(f"max_row {self.max_row} is below {least} for {', '.join(self.kinds)}")
        if self.k_search < self.k:
            raise ValueError(f"k_search {self.k_search} is below k {self.k}")
        return self

    def reads_columns(self) -> tuple[str, ...]:
        return (*self.reads, *([self.cluster_column] if self.cluster_column else []))

    def fingerprint_fields(self) -> dict[str, Any]:
        judge = self.judge.identity() if self.judge else None
        return {**super().fingerprint_fields(), "judge": judge}

    def encoder(self) -> Embed:
        """The encoder of questions."""
        return Embed(op="embed", model=self.model, languages=self.languages)

    def check(self, setting: Setting) -> None:
        super().check(setting)
        self.encoder().check(setting)

    def asks(self, step: str) -> GeneratorSpec:
        return self.judge if self.judge is not None and step in _JUDGED else self.generator

    def generators(self) -> tuple[GeneratorSpec, ...]:
        return (self.generator, *([self.judge] if self.judge else []))

    def work(self, step: str) -> type[AskWork]:
        return PathAskWork

    def prepare(self, setting: Setting) -> None:
        self.encoder().prepare(setting)

    def rows_work(self, setting: Setting, folder: str, model: str) -> Work:
        return PathRowsWork(self, setting, folder, model)

    def calls(self) -> tuple[CallStage, ...]:
        merges = [merge_step(hop) for hop in range(2, self.max_hop + 1)]
        last = [NECESSITY] if self.necessity == "model" else []
        return tuple(
            CallStage(
                system=SYSTEM,
                name=step,
                check=fault_of(step),
                max_tokens=self.reply_tokens,
                words=_WORDS,
                temperature=0.0 if step in _COLD else self.temperature,
                top_p=1.0 if step in _COLD else self.top_p,
            )
            for step in (*SINGLE_STEPS, *merges, VERIFY, *last)
        )

    def prompt(self, step: str, item: Item, seed: int) -> Prompt:
        return prompt_of(step, item)

    def needed(
        self, path: Path, candidate: Candidate, said: Said
    ) -> tuple[bool | None, str | None]:
        """Whether every clue of a candidate is needed (None: unknown), or the reject's code."""
        if self.necessity == "model":
            return necessity_by_model(path, candidate, said)
        return necessity_by_rule(path, candidate) if self.necessity == "rule" else (None, None)

    def reject_id(self, item_id: str, row: Row) -> str:
        return str(row["id"])

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return figures(facts, self.max_row)

    def model_calls(self, documents: int) -> list[ModelCalls]:
        taken, mean = min(self.rows, documents), self.quotas.mean_tokens()
        chunks = taken * n_chunks(round(mean), self.chunk_tokens)
        questions, chunk = chunks * MOST_QUESTIONS, min(mean, self.chunk_tokens)
        each = len({"inter", "intra"} & set(self.kinds))
        chains = -(-taken // self.max_docs) * self.starts * each
        hops = range(2, self.max_hop + 1)
        asked: dict[str, tuple[int, float]] = {
            EXTRACT: (chunks, chunk),
            REFERENCE: (questions, _SINGLE_TOKENS),
            ANSWER: (questions, chunk + _SINGLE_TOKENS),
            SIMPLIFY: (questions, _MERGED_TOKENS),
            **{merge_step(hop): (chains, _MERGED_TOKENS) for hop in hops},
            VERIFY: (chains * len(hops), 2 * _MERGED_TOKENS),
            NECESSITY: (chains * sum(hops), mean * sum(n * (n - 1) for n in hops) / sum(hops)),
        }
        return [self._planned(call, *asked[call.step]) for call in self.calls()]

    def _planned(self, call: CallStage, calls: int, tokens: float) -> ModelCalls:
        prompt, written = round(calls * tokens), calls * call.max_tokens
        usd = self.usd(call.step, Usage(prompt, written))
        return ModelCalls(call.name, calls, prompt, written, usd, _ASSUMED)

    def _over(
        self, context: BarrierContext, step: str, units: Units, work: Work | LoadedWork, **more: Any
    ) -> StepRef:
        return context.over_values(step, list(units), work, **more)

    def asked(self, context: BarrierContext, chosen: Sequence[dict[str, Any]], model: str) -> Units:
        library = library_of(self, context, list(chosen))
        units, beside = self._paths_in_units(library)
        for call in self.calls():
            if call.step == merge_step(2):
                bounds = self._linked(context, units)
            self._ask(context, call, units, model)
        # What decides nothing but rows comes last, or a change of it would ask everything anew.
        for [(_, brought)], more in zip(units, beside, strict=True):
            brought |= {**more, "bounds": list(bounds)}
        return units

    def _paths_in_units(self, library: Library) -> tuple[Units, list[dict[str, Any]]]:
        """Units of `unit_rows` paths; and for each, by path, what rows are told besides."""
        columns = ("id", "path_id", "path", "place")
        table = library.paths.read(list(columns))
        rows = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        texts = [file.plain() for file in library.texts.files]
        [paths] = library.paths.files
        pool = {"paths": paths.plain(), "shelves": texts[library.units :]}
        names: list[dict[str, int]] = [{} for _ in range(library.units)]
        beside: list[dict[str, Any]] = [
            {"files": {}, "dropped": [], "pool": pool} for _ in range(library.units)
        ]
        for doc_id, path_id, rank, place in sorted(rows, key=lambda row: (row[2], row[0])):
            at = rank // self.unit_rows
            names[at][path_id] = rank
            beside[at]["files"][path_id] = rank // self.shard_rows
            if place is None:
                beside[at]["dropped"].append([doc_id, path_id])
        units: Units = [
            [(0, {"docs": docs, "paths": [*map(list, own.items())], "replies": {}, "rejects": {}})]
            for docs, own in zip(texts[: library.units], names, strict=True)
        ]
        return units, beside

    def _linked(self, context: BarrierContext, units: Units) -> tuple[float, float]:
        """The step `chains`, and before it, where the recipe leaves them open, bounds of links."""
        own, setting = self.own_fields(), context.setting
        if self.lo is None or self.hi is None:
            ignore = own - self.reaches["similar"]
            self._over(context, "similar", units, SimilarWork(self, setting), ignore=ignore)
            counts = context.step_stats["similar"].get("across", {})
            if not counts:
                raise RunError(
                    "no path has questions of two documents, so there are no similarities that lo "
                    "and hi could be made of",
                    where=setting.stage,
                    remedy="give lo and hi as numbers, or look why questions were rejected",
                )
            bounds = bounds_of({int(at): n for at, n in counts.items()})
        else:
            bounds = (self.lo, self.hi)
        work = ChainsWork(self, setting, context.relative(CHAINS), bounds)
        ignore = own - self.reaches[CHAINS]
        self._over(context, CHAINS, units, work, depends=[bounds], ignore=ignore)
        self._bring(context, CHAINS, units)
        return bounds

    def accounted(self, context: BarrierContext, chosen: int) -> bool:
        stats = context.step_stats
        turned = stats["rows"]["turned_away"]
        dropped = {step: sum(codes.values()) for step, codes in turned.items()}
        turned_away = sum(stats.get(SCREENED, {}).get("rejects", {}).values())
        goes_on = [(REFERENCE, ANSWER), (ANSWER, SIMPLIFY)]
        return (
            stats["files"].get("rejects", 0) == sum(self._rejects(context).values())
            and stats["paths"]["on_paths"] + dropped.get("paths", 0) + turned_away == chosen
            and all(
                stats[step]["ok"] - dropped.get(step, 0) == stats[after]["rows_in"]
                for step, after in goes_on
            )
        )

    def _rejects(self, context: BarrierContext) -> dict[str, int]:
        """Everything that came to nothing, by its code."""
        stats = context.step_stats
        steps = [step for step in self.accounted_steps() if step in stats]
        turned = stats["rows"]["turned_away"].values()
        return summary.merge([*(stats[step]["rejects"] for step in steps), *turned])

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        told, stats = super()._told(context, model, chosen), context.step_stats
        return {
            **told,
            "rejects": self._rejects(context),
            "paths": stats["paths"],
            "chains": stats[CHAINS],
            "turned_away": stats["rows"]["turned_away"],
        }
