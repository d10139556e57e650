"""`pack.turns` on the engine: conversations as packs with loss weights, for fine-tuning.

Three steps. `turns` renders and tokenises beside each part; `plan` decides in one place, on ids and
lengths, which sequences go together, and says of every row of every part where it goes or why it
goes nowhere; an exchange brings the sequences to the file of their pack, where packs are assembled
(`files`). So no process holds more tokens than a part or a file, and the bytes depend neither on
parts nor on workers.
"""

import json
from collections import Counter
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Barrier, Setting
from longctx.engine.rows import PART
from longctx.engine.steps import Stats
from longctx.errors import RunError
from longctx.io.output_folder import claim, withdraw
from longctx.pack.stages_turns_files import TurnFiles, publish, to_file
from longctx.pack.stages_turns_plan import make_plan
from longctx.pack.stages_turns_template import chat_of, template_layout
from longctx.pack.turn_packs import Rules, Strategy, Weighting
from longctx.pack.turns import Format, Layout, Refused, Writes, sequence_of

SEQUENCES = pa.schema(
    [
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        (PART, pa.int32()),
        (ROW, pa.int32()),
        ("n_tokens", pa.int32()),
        ("targets", pa.int32()),
        ("code", pa.string()),
        ("detail", pa.string()),
        ("tokens", pa.large_binary()),
        ("spans", pa.large_binary()),
    ]
)
_MADE = SEQUENCES.names[5:]


class PackTurns(Barrier):
    """Packs conversations for fine-tuning, with labels and a weight of the loss for every token.

    Rows are chats such as `synth.*` writes: give the input `text: messages`, `id: id` and `meta:
    [messages]`. The assistant's turns with their end marks are targets; everything else has the
    label -100. `format: chatml` needs a tokenizer with <|im_start|> and <|im_end|>; `plain` writes
    a blank line after what is asked and the end-of-text token after each answer; `template` writes
    as the chat template in the tokenizer's folder does. `messages` names the field with the turns.
    No pack is padded; `cu_seqlens` keeps the attention of its sequences apart, `position_ids`
    restart in each.

    `weighting: sequence` gives every conversation the same share of the loss, however long its
    answer: a target token weighs 1 / (targets of its sequence). `token` weighs all alike, as rows
    of `synth.longwriter` want it. The loss of a step is the sum of weight times cross-entropy over
    the sum of weights, both over all packs of the step; with `batch_packs: K` batches of K packs
    are fixed (`batch_id`), their weights are final, and the loss is that sum over K.

    `strategy: best_fit` packs shards of `shard_rows` conversations in hash order, the longest
    first; `next_fit` in hash order; `sorted_batches` packs nothing: `batch_packs` conversations of
    about one length make a batch, one a row; what fills no batch is left out (`remainder`).

    What has more than `length` tokens is rejected, or with `too_long: cut_document` loses the end
    of its document where the row has one (`meta: [messages, context]`), never its answer.
    """

    op: Literal["pack.turns"]
    messages: str = Field("messages", min_length=1)
    length: Annotated[int, Field(ge=2, le=2**24)] = 65_536
    format: Format = "chatml"
    bos: bool = False
    too_long: Literal["reject", "cut_document"] = "reject"
    strategy: Strategy = "best_fit"
    weighting: Weighting = "sequence"
    batch_packs: int | None = Field(None, ge=1)
    shard_rows: int = Field(10_000, ge=1)
    file_tokens: int = Field(2**24, ge=1)
    one_place_up_to: int = Field(5_000_000, ge=1)

    summary: ClassVar[str] = "pack chats for fine-tuning, with loss weights"
    source: ClassVar[str] = "LongAlign 2401.18058"
    cost: ClassVar[str] = (
        "texts are tokenised once, tokens are stored once and move once; plan about 800 bytes a "
        "conversation in one process"
    )
    reads: ClassVar[tuple[str, ...]] = ("meta",)
    ends: ClassVar[str] = "packs"
    limits: ClassVar[frozenset[str]] = frozenset({"one_place_up_to"})

    @model_validator(mode="after")
    def _is_possible(self) -> "PackTurns":
        if self.strategy == "sorted_batches" and self.batch_packs is None:
            raise ValueError("`strategy: sorted_batches` needs `batch_packs`, the rows of a batch")
        if self.format == "template" and self.bos:
            raise ValueError("`format: template` writes its own first token: leave `bos` out")
        return self

    def reads_meta(self) -> tuple[str, ...]:
        return (self.messages,)

    @property
    def rules(self) -> Rules:
        """What decides where a sequence goes."""
        return Rules(
            self.length,
            self.strategy,
            self.shard_rows,
            self.weighting,
            self.batch_packs,
            self.file_tokens,
        )

    def layout(self, setting: Setting) -> Writes:
        """The format in the run's tokenizer. Raises RunError where that lacks a token of it."""
        from longctx.text.tokenize import load_tokenizer

        if self.format == "template":
            return template_layout(setting.tokenizer, setting.stage)
        tokenizer = load_tokenizer(setting.tokenizer)
        try:
            return Layout(tokenizer, self.format, self.bos)
        except ValueError as error:
            raise RunError(
                f"the tokenizer {tokenizer.name} cannot write these turns: it {error}",
                where=setting.stage,
                remedy="take the tokenizer of the model that will be trained, `format: plain` "
                "or `bos: false`",
            ) from None

    def check(self, setting: Setting) -> None:
        self.layout(setting)
        claim(setting)

    def run(self, context: BarrierContext) -> None:
        if context.rows > self.one_place_up_to:
            raise RunError(
                f"{context.rows:,} conversations are more than `one_place_up_to` "
                f"({self.one_place_up_to:,}), and they are planned in one process",
                where=context.setting.stage,
                remedy="raise `one_place_up_to` where one worker can hold that many (800 bytes "
                "each), or pack them in several recipes",
            )
        if not context.dry:
            withdraw(context.setting)
        own = self.own_fields()
        cuts = {"length"} if self.too_long == "cut_document" else set()
        turns = context.per_part(
            "turns",
            partial(_turns, self),
            ["doc_id", "source", "license", "meta"],
            ignore=own - {"messages", "format", "bos", "too_long", *cuts},
            # The run's fingerprint of the tokenizer says nothing of its template.
            depends=[chat_of(context.setting.tokenizer, context.setting.stage).template]
            if self.format == "template"
            else [],
        )
        plan = context.single("plan", partial(make_plan, self, turns), [turns], ignore=self.limits)
        context.exchange(
            "files",
            [(turns, partial(to_file, plan))],
            None,
            pa.schema([]),
            buckets=context.step_stats["plan"]["files"],
            work=TurnFiles(self, context.setting),
            ignore=self.limits,
            depends=[plan.digest, context.setting.output, context.setting.recipe_fingerprint],
        )
        if not context.dry:
            publish(self, context)


def _turns(op: PackTurns, part: Part, setting: Setting) -> pa.Table:
    """The sequences of a part, or why a row is none, in the order of the rows."""
    layout, told = op.layout(setting), Counter[str]()
    weightings, found = Counter[str](), [SEQUENCES.empty_table()]
    for table in part.groups(["doc_id", "source", "license", "meta"]):
        rows = [
            _row(op, layout, json.loads(meta) if meta else {}, told, weightings)
            for meta in table.column("meta").to_pylist()
        ]
        columns = {name: table.column(name) for name in ("doc_id", "source", "license", ROW)}
        columns[PART] = pa.array([part.index] * len(rows), pa.int32())
        for place, field in enumerate(_MADE):
            columns[field] = pa.array([row[place] for row in rows], SEQUENCES.field(field).type)
        found.append(pa.table(columns).select(SEQUENCES.names).cast(SEQUENCES))
    stats = {**told, "loss_weighting": dict(sorted(weightings.items()))}
    return Stats.attach(pa.concat_tables(found), stats)


def _row(
    op: PackTurns,
    layout: Writes,
    fields: dict[str, Any],
    told: Counter[str],
    weightings: Counter[str],
) -> tuple[Any, ...]:
    """The columns `_MADE` of a row; what is worth telling of it is counted."""
    cut_to = op.length if op.too_long == "cut_document" else None
    made = sequence_of(layout, fields, op.messages, cut_to)
    if isinstance(made, Refused):
        return 0, 0, made.code, made.detail, None, None
    rendered, lost = made
    size = len(rendered.ids)
    told["cut"] += lost > 0
    told["cut_tokens"] += lost
    told["without_context"] += cut_to is not None and size > cut_to and not fields.get("context")
    said = fields.get("loss_weighting")
    weightings.update(name for name in get_args(Weighting) if name == said)
    spans = np.array(rendered.spans, dtype=np.int32).tobytes()
    return size, rendered.targets, None, None, rendered.ids.tobytes(), spans
