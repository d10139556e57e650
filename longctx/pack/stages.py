"""`pack` on the engine: plan on lengths, send token spans to their shard, write windows once.

The plan is one process over lengths and addresses (`stages_plan`), or blocks of the order where
there are too many documents (`stages_blocks`); it says which span of which document lies where and
in which order the windows are written. Every part then cuts its spans
(`stages_spans`), an exchange brings them to their shard, and the shard is assembled, audited and
written in every format of the output. Windows of several lengths are one plan and one exchange for
each length, and lie in folders of their own.
"""

from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.steps import StepRef
from longctx.pack.stages_blocks import cut_and_count, plan_blocks, plan_stats
from longctx.pack.stages_plan import Frame, make_plan, sentences
from longctx.pack.stages_spans import SPANS, cut_spans, to_shard, to_shard_by_key
from longctx.pack.stream import COPIES, MIXTURE

_SHARD_TOKENS = 2**24
_Tokens = Annotated[int, Field(ge=1, le=2**24)]
_TokenId = Annotated[int, Field(ge=0)]
# Fields that decide which documents are longer than a window.
_FRAMES = {"op", "length", "lengths", "reserve", "bos", "eos", "prefix", "separator"}


class WindowLength(BaseModel):
    """Windows of one length: `length` in tokens, and the share of all tokens that go to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: _Tokens
    share: float = Field(gt=0, le=1)


class Pack(Barrier):
    """Packs the tours into windows of at most `length` tokens and writes them.

    `window` fills each window from the next `look_ahead` pieces and cuts only documents longer than
    a window; `best_fit` wastes least room and drops the order; `concat` lays documents end to end
    and cuts anywhere. `rule` says which fitting piece a window takes: the `first`, the `largest`,
    the most `similar`, or similarity `weighed` with size. `auto` (both) plans with several and
    keeps the plan with most fill times coherence, by lengths alone where documents have no
    vectors. `split_at: sentence` cuts documents longer than a window between sentences where one
    ends in the last tenth of the piece.

    `lengths` (in place of `length`) makes windows of several lengths, each with its share of the
    tokens, in folders `length-N`. `separator` (default: the tokenizer's EOS) ends every document,
    `prefix` begins it; both are token ids. Windows are shuffled after packing (`shuffle_windows`),
    documents never. `reserve` leaves that many tokens of every window free: with 1, Megatron's
    files end each window with EOD, so that no loss crosses windows.

    More than `one_place_up_to` documents are planned in blocks of consecutive ones: no window holds
    documents of two blocks.

    After a mixture, copy k of a document is packed in pass k, whose windows hold only documents
    with more than k copies, so no window holds two copies of one; its column `pass` says k.
    """

    op: Literal["pack"]
    length: _Tokens = 8192
    lengths: list[WindowLength] | None = Field(None, min_length=1)
    reserve: int = Field(0, ge=0)
    strategy: Literal["window", "concat", "best_fit"] = "window"
    look_ahead: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    rule: Literal["auto", "first", "largest", "similar", "weighed"] = "auto"
    fill_policy: Literal["none", "split", "crop"] = "none"
    long_documents: Literal["split", "truncate", "drop"] = "split"
    split_at: Literal["token", "sentence"] = "token"
    min_tail: int = Field(1, ge=1)
    cross_tours: bool = True
    drop_last: bool = False
    bos: bool = False
    eos: bool = True
    prefix: list[_TokenId] = Field([])
    separator: list[_TokenId] | None = None
    inner_order: Literal["tour", "reverse", "shuffle"] = "tour"
    shuffle_windows: bool = True
    shard_tokens: int = Field(_SHARD_TOKENS, ge=1)
    one_place_up_to: int = Field(5_000_000, ge=1)

    summary: ClassVar[str] = "pack tours into windows and write them"
    source: ClassVar[str] = (
        "concat: ICP 2310.10638 and others; best_fit: 2404.10830; window: longctx"
    )
    cost: ClassVar[str] = (
        "tokens move once; plan about 450 bytes a document in one process, and their vectors "
        "(float32) where a rule compares documents"
    )
    code_version: ClassVar[int] = 2
    limits: ClassVar[frozenset[str]] = frozenset({"one_place_up_to"})
    reads: ClassVar[tuple[str, ...]] = ("tour_id", "rank")
    ends: ClassVar[str] = "windows"

    @model_validator(mode="after")
    def _is_possible(self) -> "Pack":
        if self.reserve >= min(self.windows):
            raise ValueError(
                f"`reserve` {self.reserve} leaves no room in {min(self.windows)} tokens"
            )
        if self.lengths is not None:
            self._check_lengths()
        if self.split_at == "sentence" and self.strategy == "concat":
            raise ValueError("`strategy: concat` cuts anywhere: leave `split_at: token`")
        if self.bos and self.prefix:
            raise ValueError("`bos` and `prefix` both say what begins a document: give one")
        if not self.eos and self.separator:
            raise ValueError("`eos: false` and `separator` contradict each other: give one")
        return self

    def _check_lengths(self) -> None:
        assert self.lengths is not None
        if "length" in self.model_fields_set:
            raise ValueError("give `length` or `lengths`, not both")
        if len(set(self.windows)) < len(self.windows):
            raise ValueError("each of `lengths` is named once")
        total = sum(w.share for w in self.lengths)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of `lengths` sum to {total:g}, not 1")

    @property
    def windows(self) -> list[int]:
        """Window lengths in tokens, as the recipe lists them."""
        return [self.length] if self.lengths is None else [w.length for w in self.lengths]

    def context_length(self) -> int:
        return max(self.windows) - self.reserve

    def compares(self) -> bool:
        """Whether the plan looks at the documents' vectors, if they have any."""
        chooses = self.rule == "auto" or self.look_ahead == "auto"
        return self.strategy == "window" and (chooses or self.rule in ("similar", "weighed"))

    def reads_columns(self) -> tuple[str, ...]:
        needs = self.strategy == "window" and self.rule in ("similar", "weighed")
        return (*self.reads, "embedding") if needs else self.reads

    def folder(self, output: str, length: int) -> str:
        """Where windows of a length are written."""
        from longctx.io import paths

        return output if self.lengths is None else paths.join(output, f"length-{length}")

    def check(self, setting: Setting) -> None:
        from longctx.io.output_folder import claim

        framing(self, setting)
        claim(setting)
        for length in self.windows:
            claim(replace(setting, output=self.folder(setting.output, length)))

    def run(self, context: BarrierContext) -> None:
        from longctx.io.output_folder import withdraw

        if not context.dry:
            withdraw(context.setting)
        if not context.corpus.has("tokens"):
            context.sidecar(
                "tokens",
                [],
                _tokenise,
                pa.schema([(ROW, pa.int32())]),
                ("tokens", "n_tokens"),
                columns=["text"],
                ignore=Pack.own_fields(),
            )
        optional = [c for c in ("embedding",) if context.corpus.has(c)]
        columns = ["doc_id", "source", "license", "tokens", *optional]
        frame = framing(self, context.setting)
        plan = self._plan(context, frame)
        if self._in_blocks(context):
            copies = [COPIES] if context.corpus.has(COPIES) else []
            rule, columns = partial(cut_and_count, frame, plan), [*columns, "n_tokens", *copies]
        else:
            rule = partial(cut_spans, frame, plan)
        spans = context.per_part(
            "spans", rule, columns, inputs=[plan], ignore=self._unreached(context)
        )
        if self._in_blocks(context):
            context.step_stats["plan"] = plan_stats(self, context)
        self._write(context, spans)

    def _in_blocks(self, context: BarrierContext) -> bool:
        return context.rows > self.one_place_up_to

    def _unreached(self, context: BarrierContext) -> frozenset[str]:
        """Limits that decide nothing, because there are fewer documents."""
        return frozenset() if self._in_blocks(context) else self.limits

    def _plan(self, context: BarrierContext, frame: Frame) -> StepRef:
        """The step `plan`, after the ends of sentences in documents that it may cut."""
        cuts = []
        if self.split_at == "sentence":
            shortest = min(self.windows) - self.reserve - sum(map(len, frame))
            ends = partial(sentences, shortest)
            cuts.append(
                context.per_part(
                    "sentences", ends, ["text", "tokens"], ignore=set(Pack.model_fields) - _FRAMES
                )
            )
        wanted = ["spans"] + ["embedding"] * self.compares()
        columns = ["doc_id", "tour_id", "rank", "n_tokens", "source", "license"]
        columns += [c for c in (*wanted, *MIXTURE) if context.corpus.has(c)]
        if self._in_blocks(context):
            return plan_blocks(self, context, frame, columns, cuts)
        rule = partial(make_plan, self, frame, context.parts(), columns, cuts)
        return context.single("plan", rule, cuts, columns=columns, ignore=self.limits)

    def _write(self, context: BarrierContext, spans: StepRef) -> None:
        """The windows of every length, then what vouches for them."""
        from longctx.io.output_folder import remove_other_lengths
        from longctx.pack import audit, output

        stats, setting = context.step_stats["plan"], context.setting
        shuffled = self._in_blocks(context) and self.shuffle_windows
        written = {}
        for length in self.windows:
            target = stats["targets"][str(length)]
            step = "windows" if self.lengths is None else f"windows-{length}"
            own = replace(setting, output=self.folder(setting.output, length))
            to = partial(to_shard, length, target["windows_per_shard"])
            if shuffled:
                to = partial(to_shard_by_key, length, max(1, target["shards"]))
            context.exchange(
                step,
                [(spans, to)],
                None,
                SPANS,
                buckets=max(1, target["shards"]),
                work=output.Fill(own, length, own.output),
                depends=[sorted({*setting.formats}), own.output],
                ignore=self._unreached(context),
            )
            written[length] = own, context.step_commits[step]
        if context.dry:
            return
        figures = {}
        for length, (own, commits) in written.items():
            figures[str(length)] = output.publish(
                own, length, commits, stats["targets"][str(length)]
            )
        found = figures[str(self.length)] if self.lengths is None else {}
        if self.lengths is not None:
            shards = (c.stats["stats"] for _, commits in written.values() for c in commits)
            sums = audit.merge([output.plan_sums(stats), *shards])
            audit.assert_conserved(sums)
            found = {**audit.finish(sums), "by_length": figures}
            shares = {n: stats["targets"][n] for n in figures}
            output.publish_lengths(setting, figures, shares)
        remove_other_lengths(setting, [own.output for own, _ in written.values()])
        context.step_stats["audit"] = found
        context.outcome = {
            "rows_in": context.rows,
            "rows_out": stats["placed_documents"],
            "dropped": {k: n for k, n in stats["left"].items() if n},
            "quarantined": 0,
            "quarantine": {},
            "tokens": stats["doc_tokens"],
            **{k: stats[k] for k in ("by_source", "by_license", "lengths")},
        }


def framing(op: Pack, setting: Setting) -> tuple[list[int], list[int]]:
    """Ids before and after every document. Raises RunError where the tokenizer lacks them."""
    from longctx.errors import RunError
    from longctx.text.tokenize import load_tokenizer

    tokenizer = load_tokenizer(setting.tokenizer)
    if op.bos and tokenizer.bos_id is None:
        raise RunError(
            f"the tokenizer {tokenizer.name} has no BOS token",
            where=setting.stage,
            remedy="set `bos: false` in the pack stage",
        )
    for name, ids in (("prefix", op.prefix), ("separator", op.separator or [])):
        if ids and max(ids) >= tokenizer.vocab_size:
            raise RunError(
                f"`{name}` holds the id {max(ids)}, but the tokenizer {tokenizer.name} has "
                f"{tokenizer.vocab_size} tokens",
                where=setting.stage,
                remedy=f"give ids below {tokenizer.vocab_size}",
            )
    prefix = [tokenizer.bos_id] if op.bos and tokenizer.bos_id is not None else list(op.prefix)
    if op.separator is not None:
        return prefix, list(op.separator)
    return prefix, [tokenizer.eos_id] if op.eos else []


def _tokenise(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    from longctx.text.columns import token_columns
    from longctx.text.tokenize import load_tokenizer

    table = token_columns(load_tokenizer(setting.tokenizer), base.column("text").to_pylist())
    return table.append_column(DROP_REASON, pa.nulls(table.num_rows, pa.string()))
