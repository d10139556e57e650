"""The files of `pack.turns`: packs and rejects, and the manifest that vouches for them."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import parquet_groups
from longctx.engine.op import Setting
from longctx.engine.rows import PART
from longctx.engine.steps import BUCKET, StepRef, read_table
from longctx.engine.units import Sink
from longctx.errors import RunError
from longctx.io.output_folder import vouch
from longctx.llm.rejects import REJECT_SCHEMA, reject_table
from longctx.pack.stages_turns_plan import PLACES
from longctx.pack.turn_packs import weighed
from longctx.pack.turns import labels_of
from longctx.synth.longalign import TokenRow, one_pack
from longctx.synth.rows import PACKS

if TYPE_CHECKING:
    from longctx.pack.stages_turns import PackTurns

_GROUP_TOKENS = 2**20
_EXACT = 1e-5
BATCH = pa.field("batch_id", pa.int32())


def to_file(plan: StepRef, table: pa.Table, setting: Setting) -> pa.Table:
    """The sequences and rejects of a part, each with its place and its file as the bucket."""
    kept = table.select(["doc_id", "tokens", "spans"])
    if table.num_rows:
        places = read_table(plan.run_dir, plan.files[table.column(PART)[0].as_py()])
    else:
        places = PLACES.empty_table()
    for name in PLACES.names[1:]:
        kept = kept.append_column(name, places.column(name))
    return kept.append_column(BUCKET, places.column("file"))


@dataclass(frozen=True)
class TurnFiles:
    """Work of one file: its packs and rejects, as an exchange brought them."""

    op: "PackTurns"
    setting: Setting

    def __call__(self, payload: tuple[str, pa.Table | None], sink: Sink) -> dict[str, Any]:
        name, brought = payload
        if brought is None:
            return {"stats": {}}
        number, output = int(name.rpartition("-")[2]), self.setting.output
        told: dict[str, Any] = {"weights": 0.0}
        told |= dict.fromkeys(("packs", "sequences", "tokens", "targets", "bytes"), 0)
        packed = brought.filter(pc.is_null(brought.column("code")))
        if packed.num_rows:
            schema = PACKS if self.op.batch_packs is None else PACKS.append(BATCH)
            groups = [_table(group, schema) for group in self._groups(packed, told)]
            data = parquet_groups(groups, plain=True)
            sink.write(f"{output}/part-{number:05d}.parquet", data, told["packs"])
            told["bytes"] = len(data)
        rejects = self._rejects(brought.filter(pc.is_valid(brought.column("code"))))
        if rejects.num_rows:
            data = parquet_groups([rejects], plain=True)
            sink.write(f"{output}/rejects-{number:05d}.parquet", data, rejects.num_rows)
        told["rejects"] = rejects.num_rows
        return {"stats": told}

    def _groups(self, packed: pa.Table, told: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
        """The packs of a file in the order of the plan, some at a time; they are counted."""
        packed = packed.sort_by([("pack", "ascending"), ("place", "ascending")]).combine_chunks()
        pack = packed.column("pack").to_numpy()
        borders = np.append(np.flatnonzero(np.diff(pack, prepend=-1)), len(pack)).tolist()
        group: list[dict[str, Any]] = []
        held = 0
        for first, stop in itertools.pairwise(borders):
            made = self._pack(packed.slice(first, stop - first))
            told["packs"] += 1
            told["sequences"] += len(made["seq_ids"])
            told["tokens"] += len(made["input_ids"])
            told["targets"] += int(np.count_nonzero(made["loss_weight"]))
            told["weights"] += float(made["loss_weight"].sum(dtype=np.float64))
            group.append(made)
            held += len(made["input_ids"])
            if held >= _GROUP_TOKENS:
                yield group
                group, held = [], 0
        if group:
            yield group

    def _pack(self, members: pa.Table) -> dict[str, Any]:
        """One pack of its sequences, which stand in their order."""
        rows = []
        for doc_id, tokens, spans in zip(
            *(members.column(n).to_pylist() for n in ("doc_id", "tokens", "spans")), strict=True
        ):
            ids = np.frombuffer(tokens, dtype=np.int32)
            found = np.frombuffer(spans, dtype=np.int32).reshape(-1, 2).tolist()
            rows.append(TokenRow(doc_id, ids, labels_of(ids, found)))  # type: ignore[arg-type]
        scale = members.column("scale")[0].as_py()
        known = {n: members.column(n)[0].as_py() for n in ("pack_id", "batch_id")}
        return weighed(one_pack(rows), self.op.weighting, scale) | known

    def _rejects(self, rows: pa.Table) -> pa.Table:
        empty = dict.fromkeys(REJECT_SCHEMA.names)
        known = {"run_id": self.setting.recipe_fingerprint, "system": self.op.op}
        known["stage"] = self.setting.stage
        columns = (rows.column(n).to_pylist() for n in ("doc_id", "code", "detail"))
        return reject_table(
            {**empty, **known, "row_id": row_id, "code": code, "detail": detail}
            for row_id, code, detail in zip(*columns, strict=True)
        )


def _table(packs: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = {f.name: pa.array([pack[f.name] for pack in packs], f.type) for f in schema}
    return pa.table(columns, schema=schema)


def publish(op: "PackTurns", context: BarrierContext) -> None:
    """Check that nothing was lost, remove an earlier run's files, and let the manifest vouch."""
    setting, plan, told = context.setting, context.step_stats["plan"], context.step_stats["files"]
    figures = _figures(op, context)
    wrong = [name for name, check in figures["checks"].items() if not check["ok"]]
    if wrong:
        said = "; ".join(f"{name}: {figures['checks'][name]}" for name in wrong)
        raise RunError(
            f"the packs do not hold what was planned ({said})",
            where=setting.stage,
            remedy="this is a fault of longctx, please report it with run.json",
        )
    rules = {n: getattr(op, n) for n in ("length", "format", "strategy", "weighting")}
    vouch(setting, context.step_commits["files"], {**rules, **figures})
    files = {"files": plan["files"], "length": op.length}
    files |= {n: told[n] for n in ("bytes", "rejects")}
    context.step_stats["files"] = {**files, **figures, "warnings": _warnings(op, context)}
    context.outcome = plan["summary"]


def _warnings(op: "PackTurns", context: BarrierContext) -> dict[str, int]:
    turns, found = context.step_stats["turns"], {}
    for said, n in turns.get("loss_weighting", {}).items():
        if said != op.weighting:
            found[
                f"{n:,} conversations say `loss_weighting: {said}` of themselves: pack them in a "
                f"recipe of their own, with `weighting: {said}`."
            ] = 1
    if n := turns.get("without_context", 0):
        found[
            f"{n:,} conversations are too long and have no `context` to cut: name it in `meta` of "
            "the input where rows have it."
        ] = 1
    return found


def _figures(op: "PackTurns", context: BarrierContext) -> dict[str, Any]:
    """What run.json and the manifest say of the packs, with the checks of the whole."""
    plan, told = context.step_stats["plan"], context.step_stats["files"]
    cut = context.step_stats["turns"].get("cut_tokens", 0)
    rejected = sum(plan["rejected_tokens"].values())
    every = told["sequences"] if op.weighting == "sequence" else told["targets"]
    weights = told["packs"] if op.batch_packs is not None else every
    room = told["packs"] * op.length
    found: dict[str, Any] = {n: told[n] for n in ("packs", "sequences", "tokens", "targets")}
    found |= {n: plan[n] for n in ("batches", "padding_share") if n in plan}
    found |= {"fill": told["tokens"] / room, "batch_packs": op.batch_packs}
    found["tokens_in"] = plan["tokens"] + rejected + cut
    found["tokens_cut"] = cut
    found["tokens_rejected"] = {c: n for c, n in plan["rejected_tokens"].items() if n}
    found["sequences_cut"] = context.step_stats["turns"].get("cut", 0)
    found["checks"] = {
        "tokens": _check(told["tokens"], found["tokens_in"] - cut - rejected),
        "targets": _check(told["targets"], plan["targets"]),
        "sequences": _check(told["sequences"], plan["sequences"]),
        "packs": _check(told["packs"], plan["packs"]),
        "rows": _check(told["sequences"] + told["rejects"], context.rows),
        "weights": _check(round(told["weights"], 6), weights, _EXACT),
    }
    return found


def _check(found: float, wanted: float, slack: float = 0.0) -> dict[str, Any]:
    return {"found": found, "wanted": wanted, "ok": abs(found - wanted) <= slack * wanted}
