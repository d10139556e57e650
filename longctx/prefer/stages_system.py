"""What a preference op says of itself, beside what every synthesis does.

Its stages in their order (`question_call`, `judged_calls`), which of them the judge is asked
(`judging`), what is done with a unit of prompts (`judged`), what rows and tables are made of, and
the controls of its judge. How that is run stands in `stages_base`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Setting
from longctx.llm.ask import CallStage
from longctx.llm.controls import Control
from longctx.llm.spec import GeneratorSpec, RuleSet
from longctx.location import Location
from longctx.prefer.asked import Asked
from longctx.prefer.asking import Asker
from longctx.prefer.pairs import LENGTH_RATIO, PAIRS, Group
from longctx.prefer.stages_prompts import prompts_of
from longctx.prefer.stages_work import JUDGED
from longctx.synth.items import Item
from longctx.synth.rows import Reject, Row
from longctx.synth.rule_set import rule_set
from longctx.synth.stages_base import Synthesis
from longctx.synth.stages_table import content_of
from longctx.synth.tokens import TokenCounter

_MOST_CONTROLS = 200


class PreferenceSystem(Synthesis):
    """What an op says that makes pairs of a better and a worse text."""

    judge: GeneratorSpec | None = None
    prompts: Location | None = None
    temperature: float = Field(1.0, ge=0, le=2)
    judge_tokens: int = Field(1_024, ge=1)
    length_ratio: float = Field(LENGTH_RATIO, ge=1)
    control_share: float = Field(0.05, ge=0, le=1)
    control_rows: int = Field(20, ge=0)
    on_bad_judge: Literal["fail", "report"] = "fail"
    unit_rows: int = Field(32, ge=1)

    schema: ClassVar[pa.Schema] = PAIRS
    ends: ClassVar[str] = "rows"
    neutral = frozenset({"unit_rows", "max_reject_rate", "on_bad_judge"})
    chooses: ClassVar[frozenset[str]] = Synthesis.chooses | {"prompts"}
    # Whether the model is asked for a question where no file has one; else the text is one.
    asks_question: ClassVar[bool] = True
    # Whether rows are steps of one text: then all of them are strings for TRL.
    stepwise: ClassVar[bool] = False
    judging: ClassVar[frozenset[str]] = frozenset()
    extra_tables: ClassVar[Mapping[str, pa.Schema]] = {}
    # Fields that decide what `judged` asks and finds; those of the models always do.
    decides: ClassVar[frozenset[str]] = frozenset()

    def question_call(self) -> CallStage:
        """The stage that asks for a question on a document; `prompt` makes its prompt."""
        raise NotImplementedError

    def judged_calls(self) -> tuple[CallStage, ...]:
        """The stages of the step `judged`, in their order."""
        raise NotImplementedError

    def judged(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> dict[str, dict[str, Any] | Reject]:
        """What was found of every prompt, as plain JSON values, or why nothing was."""
        raise NotImplementedError

    def controls(
        self, items: Sequence[Item], asker: Asker, counter: TokenCounter, seed: int
    ) -> list[Control]:
        """Controls of the judge on a sample of prompts, in the order of their ids."""
        raise NotImplementedError

    def control_calls(self) -> tuple[CallStage, ...]:
        """Stages that only controls ask, beside those of `judged`."""
        return ()

    def counts(self, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Sums over what `judged` found, for run.json."""
        return {}

    def group(self, item: Item, asked: Asked, seed: int) -> Group:
        """What the pairs of a prompt share; `asked` is what the prompt asks."""
        models = item.replies[JUDGED]["models"]
        return Group(
            system=self.system,
            group_id=item.id,
            lang=item.lang,
            source=item.source,
            seed=seed,
            prompt_version=self.prompt_version,
            messages=asked.messages(),
            model=models["policy"],
            judge_model=models["judge"] if self.judging else None,
            doc_id=asked.doc_id,
            context_ref=asked.ref,
            gold=asked.gold,
        )

    def tables(self, item: Item) -> Mapping[str, Sequence[Row]]:
        """Rows of the further tables (`extra_tables`) of a prompt, whatever becomes of it."""
        return {}

    def calls(self) -> tuple[CallStage, ...]:
        asked = self.asks_question and self.prompts is None
        return (*((self.question_call(),) if asked else ()), *self.judged_calls())

    def asks(self, step: str) -> GeneratorSpec:
        return self.judging_spec if step in self.judging else self.generator

    def generators(self) -> tuple[GeneratorSpec, ...]:
        return (self.generator,) if self.judge is None else (self.generator, self.judge)

    @property
    def judging_spec(self) -> GeneratorSpec:
        """The model that judges; the policy itself where no other is named."""
        return self.judge or self.generator

    def rules(self) -> RuleSet:
        return rule_set()

    def fingerprint_fields(self) -> dict[str, Any]:
        known = super().fingerprint_fields()
        judge = self.judge.identity() if self.judge else None
        where = f"{self.op}: prompts"
        prompts = None if self.prompts is None else content_of(self.prompts, "prompts", where)
        return {**known, "judge": judge, "prompts": prompts}

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if self.prompts is not None:
            prompts_of(self.prompts, f"{setting.stage}: prompts")

    def told_beside(self, setting: Setting) -> Mapping[str, Any]:
        if self.prompts is None:
            return {}
        return prompts_of(self.prompts, f"{setting.stage}: prompts")

    def reject_id(self, item_id: str, row: Row) -> str:
        return str(row["id"])

    def sampled(self, prompts: int) -> int:
        """How many of so many prompts the controls see."""
        wanted = max(self.control_rows, round(self.control_share * prompts))
        return min(wanted, _MOST_CONTROLS, prompts)
