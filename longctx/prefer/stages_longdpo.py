"""`prefer.longdpo` on the engine: trees of steps, and pairs of steps that share their beginning.

The base chooses prompts and runs `judged`, where the trees of a unit grow together
(`longdpo_unit`). A tree is kept whole; pairs, the dump and the final texts are made of it in the
step `rows`, so another margin or rule of the rejected step asks nothing again.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from longctx.cost.model_calls import ModelCalls
from longctx.embed.named import HASH, embedder_of, prepare
from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.llm.ask import CallStage
from longctx.llm.controls import Control
from longctx.llm.spec import RuleSet
from longctx.llm.types import Usage
from longctx.prefer import longdpo_controls, longdpo_figures
from longctx.prefer.asked import Asked, asked_of
from longctx.prefer.asking import Asker
from longctx.prefer.longdpo import SYSTEM, step_budget, target_of
from longctx.prefer.longdpo_calls import JUDGING, PROMPT_VERSION, STEP
from longctx.prefer.longdpo_memory import SEGMENT_WORDS
from longctx.prefer.longdpo_pairs import (
    FINALS,
    Choice,
    Pairs,
    Rule,
    StepPair,
    final_row,
    pairs_of,
    roles,
)
from longctx.prefer.longdpo_plan import Planned, assumed, planned_calls
from longctx.prefer.longdpo_search import Settings
from longctx.prefer.longdpo_tree import NODES, Task, Tree, node_rows, of_value, to_value
from longctx.prefer.longdpo_unit import REFINE_TOP_K, Budgets, answers, grown, stages, task_of
from longctx.prefer.pairs import TERMINAL, Group, build
from longctx.prefer.rules_longdpo import RULES, VERSION
from longctx.prefer.stages_base import Preference
from longctx.prefer.stages_prompts import prompts_of
from longctx.prefer.stages_work import CONTEXT, JUDGED
from longctx.synth.draw import generator
from longctx.synth.items import Item
from longctx.synth.rows import Reject, Row
from longctx.synth.stages_system import Language
from longctx.synth.tokens import TokenCounter

TREE, FINAL = "tree", "final"
# Nearness is a matter of the embedder: hashed words of a sentence and of a passage share little.
_TAU, _TAU_OF_HASHES = 0.6, 0.15
_PROMPT_TOKENS = 100  # of a prompt, as a plan assumes
_SEARCHES = frozenset(
    {
        *("children", "depth", "search", "step_tokens", "target_length", "w_len", "eta", "memory"),
        *("embedder", "tau", "top_segments", "segment_words", "suggestions", "refine"),
        *("refine_top_k", "rollouts", "c"),
    }
)
_PAIRS = frozenset({"rejected", "margin", "extra_pairs", "min_s_l", "length_ratio"})


class PreferLongDPO(Preference):
    """Makes pairs of steps of long answers: a tree of candidates, marked, checked and searched.

    A prompt is the text of a document, or a line of `prompts` (JSONL or Parquet: id, prompt, and
    target_length in words, lang, or doc_id of a context). Its answer is written in `depth` steps,
    each chosen among `children` continuations by the model of `generator`. The model of `judge` (by
    default the same) marks each by seven principles, lists the facts of the chosen ones and looks
    for later steps that deny them. Length counts with the weight `w_len` where a length is wanted:
    that of the file, the one that the prompt states, else `target_length`.

    `search: greedy` keeps the best candidate of each layer that denies nothing, and has one with a
    mark below `eta` written again after critique; `search: mcts` makes up to `rollouts` complete
    texts and follows the best. Each layer gives one pair: the chosen step, and one that is worse by
    `margin` or denies a fact, by the rule `rejected`. A tree whose text has a length score below
    `min_s_l` (80: 1/1.4 to 1.6 of the length) or repeats a paragraph gives none.

    The output holds part-*.parquet (pairs), trl-*.jsonl (the same for TRL, as strings),
    tree-*.parquet (all candidates of all trees), final-*.parquet (the texts they end in),
    calls-*.parquet and rejects-*.parquet (what came to nothing) and judge_report.json. The server
    has to go on with a given beginning; without that steps are asked for in words.
    """

    op: Literal["prefer.longdpo"]
    min_tokens: int = Field(1, ge=1)
    max_tokens: int = Field(4_096, ge=1)
    bin_tokens: int = Field(1_000_000, ge=1)
    lang_share: dict[Language, float] = Field({"en": 0.5, "zh": 0.5}, min_length=1)
    temperature: float = Field(0.7, ge=0, le=2)
    unit_rows: int = Field(16, ge=1)
    children: int = Field(4, ge=2, le=64)
    depth: int = Field(4, ge=1, le=64)
    search: Literal["greedy", "mcts"] = "greedy"
    step_tokens: int | None = Field(None, ge=1)
    target_length: int | None = Field(None, ge=1)
    w_len: float = Field(0.25, ge=0)
    eta: float = Field(2.5, ge=1, le=5)
    margin: float = Field(0.02, ge=0, le=1)
    rejected: Rule = "random_sibling"
    memory: bool = True
    embedder: Literal["hash", "static", "minilm"] = "hash"
    tau: float | None = Field(None, ge=-1, le=1)
    top_segments: int | None = Field(3, ge=1)
    segment_words: int = Field(SEGMENT_WORDS, ge=1)
    suggestions: int = Field(3, ge=1, le=7)
    refine: Literal["inline", "offline", "off"] = "inline"
    refine_top_k: int = Field(REFINE_TOP_K, ge=0)
    rollouts: int = Field(16, ge=1)
    c: float = Field(1.4, ge=0)
    extra_pairs: bool = False
    min_s_l: float = Field(80.0, ge=0, le=100)

    summary: ClassVar[str] = "pairs of steps from trees of long answers"
    source: ClassVar[str] = "LongDPO (arXiv 2502.02095)"
    cost: ClassVar[str] = "depth * children texts and judge calls a prompt; `longctx plan` counts"
    system: ClassVar[str] = SYSTEM
    prompt_version: ClassVar[str] = PROMPT_VERSION
    asks_question: ClassVar[bool] = False
    stepwise: ClassVar[bool] = True
    judging: ClassVar[frozenset[str]] = JUDGING
    extra_tables: ClassVar[Mapping[str, pa.Schema]] = {TREE: NODES, FINAL: FINALS}
    decides: ClassVar[frozenset[str]] = _SEARCHES
    reaches: ClassVar[Mapping[str, frozenset[str]]] = {"rows": _SEARCHES | _PAIRS}
    # A model that has nothing to add ends its text.
    turns_away: ClassVar[Mapping[str, frozenset[str]]] = {STEP: frozenset({"empty"})}

    @model_validator(mode="after")
    def _goes_together(self) -> "PreferLongDPO":
        if self.extra_pairs and self.search != "mcts":
            raise ValueError("extra_pairs belongs to search: mcts")
        return self

    @property
    def settings(self) -> Settings:
        """How trees are searched."""
        tau = self.tau
        if tau is None:
            tau = _TAU_OF_HASHES if self.embedder == HASH else _TAU
        return Settings(
            children=self.children,
            depth=self.depth,
            search=self.search,
            w_len=self.w_len,
            eta=self.eta,
            memory=self.memory,
            tau=tau,
            top_segments=self.top_segments,
            segment_words=self.segment_words,
            suggestions=self.suggestions,
            refine=self.refine,
            rollouts=self.rollouts,
            c=self.c,
        )

    @property
    def choice(self) -> Choice:
        """Which steps become pairs."""
        found = (self.search, self.rejected, self.margin, self.length_ratio, self.extra_pairs)
        return Choice(*found)

    @property
    def budgets(self) -> Budgets:
        """How long replies may be."""
        return Budgets(self.judge_tokens, self.step_tokens)

    def rules(self) -> RuleSet:
        return RuleSet(VERSION, RULES)

    def prepare(self, setting: Setting) -> None:
        prepare(self.embedder)

    def judged_calls(self) -> tuple[CallStage, ...]:
        return stages(self.budgets, self.temperature, self.top_p, self.refine_top_k)

    def model_calls(self, documents: int) -> list[ModelCalls]:
        there = documents if self.prompts is None else len(prompts_of(self.prompts, self.op))
        rows = min(self.rows, there)
        target = None if self.target_length is None else target_of(self.target_length, "en")
        step = step_budget(target, self.depth, self.step_tokens)
        prompt = min(max(self.min_tokens, _PROMPT_TOKENS), self.max_tokens)
        asked = planned_calls(self.settings, step, prompt, self.judge_tokens)
        return [self._planned(call, rows, asked[call.step], step) for call in self.judged_calls()]

    def _planned(self, call: CallStage, rows: int, asked: Planned, step: int) -> ModelCalls:
        used = Usage(rows * asked.prompt, rows * asked.completion)
        return ModelCalls(
            stage=call.name,
            calls=rows * asked.calls,
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            usd=self.usd(call.step, used),
            assumed=assumed(self.settings, step),
        )

    def _asked(self, item: Item) -> Asked:
        """What is asked of an item: a line of the file, or its own text."""
        return asked_of(item, alone=True)

    def _task(self, item: Item) -> Task:
        return task_of(item.id, self._asked(item), item.lang, self.target_length)

    def _tree(self, item: Item) -> Tree:
        return of_value(item.replies[JUDGED], self._task(item))

    def _pairs(self, tree: Tree, seed: int) -> Pairs:
        def draw(depth: int) -> np.random.Generator:
            return generator(seed, SYSTEM, f"rejected/{depth}", tree.task.id)

        return pairs_of(tree, self.choice, draw)

    def judged(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> dict[str, dict[str, Any] | Reject]:
        tasks = [self._task(item) for item in items]
        trees = grown(tasks, asker, self.settings, self.budgets, embedder_of(self.embedder))
        # A tree that came to nothing is kept, too: its dump says why.
        return {tree.task.id: {**to_value(tree), "seed": seed} for tree in trees}

    def counts(self, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"trees": summary.merge([{"trees": 1, **one["counts"]} for one in found])}

    def controls(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> list[Control]:
        ask = partial(answers, asker, self.depth, self.budgets)
        remembers = self.memory and self.depth > 1
        return longdpo_controls.report(list(map(self._tree, items)), ask, memory=remembers)

    def made(self, item: Item, counter: TokenCounter, seed: int) -> Sequence[Row] | Reject:
        tree = self._tree(item)
        final = final_row(tree, self.min_s_l)
        if final["code"]:
            return Reject(final["code"], _said(final))
        found = self._pairs(tree, seed)
        if not found.pairs:
            return found.rejects[min(found.rejects)]
        group = self.group(item, self._asked(item), seed)
        rows = [self._row(group, pair) for pair in found.pairs]
        context = self._asked(item).context
        return [{**row, CONTEXT: context} for row in rows]

    def _row(self, group: Group, pair: StepPair) -> Row:
        row = build(
            group,
            pair.chosen,
            pair.rejected,
            rule=pair.rule,
            max_ratio=self.length_ratio,
            depth=pair.layer.depth,
            prefix=pair.prefix,
            step=True,
            checks={TERMINAL: pair.last, "consistent": True},
        )
        assert not isinstance(row, Reject), "what no pair may hold was passed over"
        return row

    def tables(self, item: Item) -> Mapping[str, Sequence[Row]]:
        tree, seed = self._tree(item), item.replies[JUDGED]["seed"]
        pairs = self._pairs(tree, seed).pairs
        final = final_row(tree, self.min_s_l)
        kept = [] if final["code"] else pairs
        told = {**final, "pairs": len(kept)}
        return {TREE: node_rows(tree, roles(tree, kept)), FINAL: [told]}

    def facts(self, item: Item, row: Row) -> dict[str, Any]:
        tree = self._tree(item)
        told = longdpo_figures.told(tree, self._pairs(tree, row["seed"]), final_row(tree))
        return longdpo_figures.facts(row, told)

    def _told(self, context: BarrierContext, model: str, chosen: int) -> dict[str, Any]:
        told = super()._told(context, model, chosen)
        near = longdpo_figures.near_facts(told.get("trees", {}))
        return {**told, "checks": {**told["checks"], "near_facts": near}}

    def figures(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        least = self.margin if self.search == "greedy" else 0.0
        return longdpo_figures.figures(facts, self.length_ratio, least, self.min_s_l)


def _said(final: Mapping[str, Any]) -> str:
    if final["s_l"] is None:
        return f"{final['steps']} steps, {final['words']} words"
    return (
        f"{final['steps']} steps, {final['words']:,} words of {final['target']:,}: "
        f"length score {final['s_l']:.1f}"
    )
