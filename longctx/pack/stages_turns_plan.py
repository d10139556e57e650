"""The plan of `pack.turns`: where every sequence goes, made in one place on ids and lengths."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine import summary
from longctx.engine.corpus import ROW
from longctx.engine.op import Setting
from longctx.engine.rows import PART
from longctx.engine.steps import Stats, StepRef
from longctx.errors import RunError
from longctx.pack.turn_packs import Packs, left_out, padding, plan_packs
from longctx.pack.turns import TOO_LONG

if TYPE_CHECKING:
    from longctx.pack.stages_turns import PackTurns

REMAINDER = "remainder"
_READ = ["doc_id", "source", "license", PART, ROW, "n_tokens", "targets", "code", "detail"]
# What the exchange has to know of a row, beside its sequence.
PLACES = pa.schema(
    [
        ("file", pa.int32()),
        ("pack", pa.int64()),
        ("place", pa.int32()),
        ("pack_id", pa.string()),
        ("batch_id", pa.int32()),
        ("scale", pa.float32()),
        ("code", pa.string()),
        ("detail", pa.string()),
    ]
)


def make_plan(op: "PackTurns", turns: StepRef, setting: Setting) -> dict[str, Any]:
    """One file of PLACES for each part, a line for each row of its sequences, and counters.

    Raises RunError where there is nothing to pack.
    """
    rows = turns.read(_READ).combine_chunks()
    rows = rows.take(pc.sort_indices(rows, sort_keys=[("doc_id", "ascending")])).combine_chunks()
    code, detail = rows.column("code").to_pylist(), rows.column("detail").to_pylist()
    size = rows.column("n_tokens").to_numpy()
    ids = rows.column("doc_id").to_pylist()
    for i in np.flatnonzero(size > op.length).tolist():
        code[i], detail[i] = TOO_LONG, f"{size[i]:,} tokens, {op.length:,} fit"
    good = [i for i, found in enumerate(code) if found is None]
    rest = [good[i] for i in left_out([ids[i] for i in good], op.rules, setting.seed)]
    for i in rest:
        code[i], detail[i] = REMAINDER, f"fills no batch of {op.batch_packs}"
    good = [i for i in good if code[i] is None]
    if not good:
        _nothing(Counter(c for c in code if c is not None), setting)
    targets = rows.column("targets").to_numpy()
    packs = plan_packs(
        [ids[i] for i in good], size[good].tolist(), targets[good].tolist(), op.rules, setting.seed
    )
    placed = _placed(np.array(good), packs, code, detail)
    stats = _stats(op, rows, code, size, targets, np.array(good), packs)
    # Back to the order in which parts hold their rows.
    back = pc.sort_indices(rows.select([PART, ROW]), [(PART, "ascending"), (ROW, "ascending")])
    placed = placed.take(back).combine_chunks()
    part = rows.column(PART).take(back).to_numpy()
    borders = np.searchsorted(part, np.arange(len(turns.units) + 1))
    files: dict[str, Any] = {
        f"{i:06d}.parquet": placed.slice(borders[i], borders[i + 1] - borders[i])
        for i in range(len(turns.units))
    }
    files["000000.parquet"] = Stats.attach(files["000000.parquet"], stats)
    return files


def _nothing(codes: Counter[str], setting: Setting) -> None:
    said = ", ".join(f"{code} {n:,}" for code, n in codes.most_common())
    raise RunError(
        f"no conversation can be packed ({said or 'there is none'})",
        where=setting.stage,
        remedy="give the input `meta: [messages]`, or name the field with the turns in "
        "`messages`; raise `length` for too_long, lower `batch_packs` for remainder",
    )


def _placed(
    good: np.ndarray, packs: Packs, code: list[str | None], detail: list[str | None]
) -> pa.Table:
    """PLACES of all rows, in ascending order of their ids."""
    rows, files = len(code), int(packs.file.max()) + 1
    pack, place = np.full(rows, -1, np.int64), np.full(rows, -1, np.int32)
    pack[good], place[good] = packs.pack, packs.place
    refused = np.array([found is not None for found in code])
    file = np.zeros(rows, dtype=np.int32)
    file[good] = packs.file[packs.pack]
    # Rejects are spread evenly over the files, in ranges of ids.
    file[refused] = np.arange(refused.sum()) * files // max(1, refused.sum())
    names = pa.array(packs.names, pa.string()).take(pa.array(pack, mask=refused))
    return pa.table(
        {
            "file": file,
            "pack": pack,
            "place": place,
            "pack_id": names,
            "batch_id": np.where(refused, -1, packs.batch[pack]),
            "scale": packs.scale[pack],
            "code": pa.array(code, pa.string()),
            "detail": pa.array(detail, pa.string()),
        }
    ).cast(PLACES)


def _stats(
    op: "PackTurns",
    rows: pa.Table,
    code: list[str | None],
    size: np.ndarray,
    targets: np.ndarray,
    good: np.ndarray,
    packs: Packs,
) -> dict[str, Any]:
    """What is planned, and what became of all rows: counted in tokens of their sequences."""
    reasons = pa.chunked_array([pa.array(code, pa.string())])
    rejected: Counter[str] = Counter()
    for found, n in zip(code, size.tolist(), strict=True):
        if found is not None:
            rejected[found] += n
    counted = rows.select(["source", "license", "n_tokens"])
    stats: dict[str, Any] = {
        "files": int(packs.file.max()) + 1,
        "packs": len(packs.names),
        "sequences": len(good),
        "tokens": int(size[good].sum()),
        "targets": int(targets[good].sum()),
        "rejected_tokens": dict(sorted(rejected.items())),
        "summary": summary.summarise(counted, reasons),
    }
    if op.batch_packs is not None:
        stats["batches"] = int(packs.batch.max()) + 1
    if op.strategy == "sorted_batches":
        order = np.argsort(packs.pack)
        stats["padding_share"] = round(padding(size[good][order].tolist(), packs.batch), 6)
    return stats
