"""What no row may hold, on the engine: evaluation texts indexed, documents and rows looked at.

How data flows. With `against`, `held_out` makes the n-grams of all evaluation texts in one place
(8 bytes each), which every process loads once. `screened` looks at the chosen documents, part by
part, and at what a table says of them; those with a hit are rejects and nothing is asked about
them. Ops that draw other documents ask `HeldOut` about these where they read their texts. `cleared`
goes over the rows that were made and turns those with a hit in any column into rejects; the files
count once more what they write, and that is the check of the run.

No step that asks a model depends on either: other evaluation texts have the rows looked at anew. A
document that is turned away moves those behind it to other units, whose answers come from the
cache, unless an op asks about documents together (paths of `synth.longmit`) or deals types out
among them (`synth.in2`). Cost: 4 to 8 MB/s, once for documents, twice for rows, which are stored
once more.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import FileRef
from longctx.engine.corpus import ROW as PLACE
from longctx.engine.corpus import Part, parquet_groups
from longctx.engine.op import Setting
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.engine.units import Sink
from longctx.errors import RunError
from longctx.filter.stages_evaluation import read_sets
from longctx.llm.rejects import StageCount
from longctx.synth.checks import U64, ngram_index, shared_run
from longctx.synth.held_out import looked_for, texts_of
from longctx.synth.rows import Reject
from longctx.synth.stages_work import REJECT, ROW, ROWS, counted, own_reject

if TYPE_CHECKING:
    from longctx.synth.stages_base import Synthesis

HELD_OUT, SCREENED, CLEARED = "held_out", "screened", "cleared"
_GRAMS = "grams.parquet"


class HeldOut(NamedTuple):
    """The finished step `held_out`, light enough to be sent to workers."""

    step: StepRef
    ngram: int

    def shared(self, value: Any) -> str | None:
        """The first run of words that a text of a value shares with an evaluation text."""
        grams = _grams(self.step)
        runs = (shared_run(text, grams, self.ngram) for text in texts_of(value))
        return next((run for run in runs if run is not None), None)

    def depends(self) -> list[Any]:
        """What decides a step that looks for these texts, beside its input."""
        return [self.step.digest, self.ngram]


@lru_cache(maxsize=2)
def _grams(step: StepRef) -> U64:
    """The index of evaluation texts, once a process; uint64[m], ascending."""
    grams: U64 = step.read(["gram"]).column("gram").to_numpy()
    return grams


def finished(context: BarrierContext, step: str) -> StepRef | None:
    """The files of a step that is done; None where the op has not run it."""
    if step not in context.step_commits:
        return None
    commits = context.step_commits[step]
    return StepRef(context.setting.run_dir, tuple((c.unit, c.files) for c in commits))


def held_out_of(op: "Synthesis", context: BarrierContext) -> HeldOut | None:
    """The step `held_out`; None where the recipe names no evaluation texts."""
    if not op.against:
        return None
    ignore = _ignored(op) - {"against", "ngram"}
    return HeldOut(context.single(HELD_OUT, partial(_index, op), ignore=ignore), op.ngram)


def _ignored(op: "Synthesis") -> frozenset[str]:
    return op.own_fields() | {"prompt_version"}


def _index(op: "Synthesis", setting: Setting) -> "dict[str, pa.Table | bytes | memoryview]":
    """The n-grams of the evaluation texts; RunError where none is long enough."""
    found = looked_for(read_sets(op.against, setting.stage), op.ngram)
    if not found.texts:
        raise RunError(
            f"no evaluation set has a text of at least {op.ngram} tokens to look for",
            where=setting.stage,
            remedy="name other fields of them in `against`, or lower ngram",
        )
    grams = ngram_index(found.texts, op.ngram)
    warnings = {
        f"nothing of the evaluation set {name} is long enough to look for": 1 for name in found.idle
    }
    told = {**found.counts, "ngrams": len(grams), "warnings": warnings}
    return {_GRAMS: Stats.attach(pa.table({"gram": grams}), told)}


def screened(
    op: "Synthesis",
    context: BarrierContext,
    held_out: HeldOut | None,
    chosen: Sequence[dict[str, Any]],
    model: str,
) -> list[dict[str, Any]]:
    """The chosen rows that share nothing with evaluation texts; the others are rejects.

    RunError where none is left.
    """
    if held_out is None:
        return list(chosen)
    of_part: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(chosen, key=lambda r: (r["part"], r["id"])):
        of_part.setdefault(row["part"], []).append(row)
    step = context.over_parts(
        SCREENED,
        [[(part, rows)] for part, rows in of_part.items()],
        ["text"],
        ScreenWork(op, context.setting, context.relative(SCREENED), held_out, model),
        depends=[*held_out.depends(), model],
        ignore=_ignored(op) - op.chooses,
    )
    bad = set(step.read(["id"]).column("id").to_pylist())
    clean = [row for row in chosen if row["id"] not in bad]
    if not clean:
        raise RunError(
            f"all {len(chosen):,} chosen documents share a run of {op.ngram} words with an "
            "evaluation text",
            where=context.setting.stage,
            remedy="look whether `against` names the right files and fields, read other documents, "
            "or raise ngram",
        )
    return clean


@dataclass(frozen=True)
class ScreenWork:
    """Work of the step `screened`: rejects for the chosen rows of a part that have a hit."""

    op: "Synthesis"
    setting: Setting
    folder: str
    held_out: HeldOut
    model: str

    def __call__(
        self, payload: tuple[str, list[tuple[Part, list[dict[str, Any]]]]], sink: Sink
    ) -> dict[str, Any]:
        name, [(part, rows)] = payload
        beside = self.op.told_beside(self.setting)
        hits = self._hits(part, {row["row"] for row in rows if row["row"] is not None})
        listed: list[dict[str, Any]] = []
        for row in rows:
            run = hits.get(row["row"]) or self.held_out.shared(beside.get(row["id"]))
            if run is not None:
                described = {"id": row["id"], "file": row["file"]}
                reject = contaminated(run, self.held_out.ngram)
                listed.append(_reject(self.op, SCREENED, described, row["id"], reject, self.model))
        table = pa.Table.from_pylist(listed, schema=ROWS)
        sink.write(f"{self.folder}/{name}.parquet", parquet_groups([table]), table.num_rows)
        return {"stats": _counted(f"{self.setting.stage}/{SCREENED}", len(rows), len(listed))}

    def _hits(self, part: Part, places: set[int]) -> dict[int | None, str]:
        """The first shared run of each document at these places that has one."""
        found: dict[int | None, str] = {}
        for table in part.groups(["text"]) if places else ():
            mine = table.filter(pa.array(np.isin(table.column(PLACE).to_numpy(), list(places))))
            for place, text in zip(
                mine.column(PLACE).to_pylist(), mine.column("text").to_pylist(), strict=True
            ):
                if (run := self.held_out.shared(text)) is not None:
                    found[place] = run
        return found


def cleared(
    op: "Synthesis", context: BarrierContext, held_out: HeldOut | None, rows: StepRef, model: str
) -> StepRef:
    """The rows that were made, those with a hit turned into rejects."""
    if held_out is None:
        return rows
    files = [ref.plain() for ref in rows.files]
    rule = partial(_cleared, op, held_out, model)
    ignore = _ignored(op) - {"ngram"}
    return context.spread(CLEARED, rule, files, [held_out.step], ignore=ignore)


def _cleared(
    op: "Synthesis", held_out: HeldOut, model: str, file: Sequence[Any], setting: Setting
) -> pa.Table:
    listed: list[dict[str, Any]] = []
    made = bad = 0
    for record in read_table(setting.run_dir, FileRef(*file)).to_pylist():
        if record["kind"] == ROW:
            made += 1
            row = json.loads(record["data"])
            if (run := held_out.shared(row)) is not None:
                bad += 1
                row_id, reject = op.reject_id(record["id"], row), contaminated(run, held_out.ngram)
                record = _reject(op, CLEARED, record, row_id, reject, model)
        listed.append(record)
    told = _counted(f"{setting.stage}/{CLEARED}", made, bad)
    return Stats.attach(pa.Table.from_pylist(listed, schema=ROWS), told)


def contaminated(run: str, ngram: int) -> Reject:
    """Why what holds a run of words of an evaluation text is not used."""
    return Reject("contaminated", f"{ngram} words in a row of an evaluation text: {run}")


def _reject(
    op: "Synthesis",
    step: str,
    described: Mapping[str, Any],
    row_id: str,
    reject: Reject,
    model: str,
) -> dict[str, Any]:
    """A record of the step `rows` for a reject."""
    data = json.dumps(own_reject(op, step, row_id, reject, model), ensure_ascii=False)
    kept = {"id": described["id"], "file": described["file"]}
    return {**kept, "kind": REJECT, "facts": None, "data": data}


def _counted(place: str, rows: int, bad: int) -> dict[str, Any]:
    count = StageCount(rows, rows - bad, 0, Counter({"contaminated": bad} if bad else {}))
    count.check(place)
    return counted(count)
