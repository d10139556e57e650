"""What units of `synth.longwriter` do beside asking once a document: sift, and write in rounds.

`SiftWork` looks at documents without a model: at instructions before anything is asked, and at
texts before they are judged, so a judge reads no text that is refused anyway. `WriteWork` is the
stage of many calls a document. What both leave is laid down as replies and rejects are.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from longctx.engine.corpus import parquet_groups
from longctx.engine.op import Setting
from longctx.engine.units import Sink
from longctx.llm.ask import CallStage, Ok, ask
from longctx.llm.client import Client
from longctx.llm.rejects import Reject, StageCount, reject_table
from longctx.synth.items import Item
from longctx.synth.longwriter_drafts import write_all
from longctx.synth.rows import Reject as RowReject
from longctx.synth.stages_in2_work import write_replies
from longctx.synth.stages_work import AskWork, Groups, counted, items_of, own_reject, was_asked

if TYPE_CHECKING:
    from longctx.synth.stages_longwriter import SynthLongWriter


@dataclass(frozen=True)
class SiftWork:
    """Work of a step that lets a document through, with what is known of it, or rejects it."""

    op: "SynthLongWriter"
    setting: Setting
    folder: str
    step: str
    model: str

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        name, groups = payload
        items = items_of(self.setting.run_dir, groups)
        found = {item.id: self.op.sifted(self.step, item) for item in items}
        good = {i: value for i, value in found.items() if not isinstance(value, RowReject)}
        bad = {i: why for i, why in found.items() if isinstance(why, RowReject)}
        write_replies(sink, f"{self.folder}/{name}.parquet", good)
        rejects = [own_reject(self.op, self.step, i, why, self.model) for i, why in bad.items()]
        table = reject_table(rejects)
        sink.write(f"{self.folder}/{name}-rejects.parquet", parquet_groups([table]), table.num_rows)
        count = StageCount(len(items), len(good), 0, Counter(why.code for why in bad.values()))
        count.check(f"{self.setting.stage}/{self.step}")
        return {"stats": counted(count)}


@dataclass(frozen=True)
class WriteWork(AskWork):
    """Work of the stage that writes: a round of calls for each paragraph of the longest text."""

    op: "SynthLongWriter"

    def answers(
        self, client: Client, stage: CallStage, items: Sequence[Item]
    ) -> tuple[list[Ok | Reject], int]:
        drafts = [self.op.draft(item) for item in items]
        rounds = write_all(drafts, partial(ask, client, stage, base_seed=self.setting.seed))
        requests = sum(was_asked(one) for found in rounds for one in found)
        return [draft.outcome() for draft in drafts], requests
