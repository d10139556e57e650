"""A run folder that ended in pairs of a better and a worse text, written by hand."""

import json
from pathlib import Path

import pyarrow as pa

from longctx.llm.rejects import REJECT_SCHEMA
from longctx.prefer.longdpo_tree import NODES
from longctx.prefer.pairs import PAIRS, ContextRef, Group, Side, build
from tests.engine.parts import put
from tests.report.recorded import Json, record, stage
from tests.report.synthesised import SECRET, filler, rejects, synthesis, vouch

ROWS = 20
STAGE = "02-prefer.longreward"


def pair(mark: str, i: int) -> Json:
    """Pair i: the chosen text is i / 2 and 4 points better, most of all in faithfulness."""
    group = Group(
        system="longreward",
        group_id=f"{mark}prompt{i}",
        lang="en",
        source=f"{mark}books",
        seed=7,
        prompt_version="longreward-1",
        messages=[{"role": "user", "content": f"{mark}Why {i}? Write to {SECRET}."}],
        model=f"{mark}policy",
        judge_model=f"{mark}judge",
        doc_id=f"{mark}doc",
        context_ref=ContextRef(f"{mark}doc", 0, 4_321),
    )
    made = build(
        group,
        Side(text=f"{mark}Good {filler(i, 60)}.", score=30.0 + i / 2, dims=_marks(mark, 9.5, 8.0)),
        Side(text=f"{mark}Bad {filler(i + 99, 60)}.", score=26.0, dims=_marks(mark, 2.5, 7.0)),
        rule="min",
        prefix=f"{mark}So far {SECRET}" if i % 2 else "",
        rejected_2=f"{mark}Worse {i}." if i % 3 == 0 else None,
        checks={f"{mark}kept": False},
    )
    assert isinstance(made, dict)
    return made


def _marks(mark: str, faithful: float, other: float) -> dict[str, float]:
    return {"faithfulness": faithful, f"{mark}tone": other}


def told(mark: str = "") -> Json:
    """What run.json says of it."""
    judged: list[Json] = [
        {"name": "constant_judge", "value": 0.9, "passed": True, "n": 20, "hard": True},
        {"name": f"{mark}shuffled", "value": 0.5, "passed": False, "n": 20, "hard": True},
        {"name": "contradiction", "value": None, "passed": None, "n": 0, "hard": False},
    ]
    controls = [{**one, "wanted": f"{mark}at least 3"} for one in judged]
    judge = {"judge": f"{mark}judge-1", "weak": [], "controls": controls, "prompts": 20}
    return {**synthesis("longreward", mark), "rows": ROWS, "judge": judge}


def tree(mark: str = "", prompt: str = "t1") -> list[Json]:
    """A prompt with two candidates, of which the first one goes on."""
    usual: Json = dict.fromkeys(NODES.names) | {"id": f"{mark}{prompt}", "N": 2, "W": 1.5, "R": 4.0}
    usual |= {"status": "scored", "finish": "length", "detail": f"{mark}why"}
    nodes = [(0, None, 0, ""), (1, 0, 1, "chosen"), (2, 0, 1, "rejected"), (3, 1, 2, "chosen")]
    return [
        usual
        | {"node": n, "parent": p, "depth": d, "role": role, "text": f"{mark}Step {n} {SECRET}"}
        for n, p, d, role in nodes
    ]


def write_run(
    folder: Path,
    mark: str = "",
    rows: list[Json] | None = None,
    trees: list[Json] | None = None,
) -> str:
    """The run folder; returns its path."""
    root, output = str(folder / "run"), str(folder / "run" / "output")
    made = [pair(mark, i) for i in range(ROWS)] if rows is None else rows
    table = pa.Table.from_pylist(made, schema=PAIRS)
    files = [put(output, "part-00000.parquet", table, (len(made),))]
    lost = pa.Table.from_pylist(rejects("longreward", mark), schema=REJECT_SCHEMA)
    files.append(put(output, "calls-00000.parquet", lost, (4,)))
    nodes = pa.Table.from_pylist(tree(mark) if trees is None else trees, schema=NODES)
    files.append(put(output, "tree-00000.parquet", nodes, (nodes.num_rows,)))
    vouch(output, root, files)
    last = stage(2, "prefer.longreward", ROWS)
    last["summary"]["synthesis"] = told(mark)
    last["steps"] = {"files": {"files": 1, "rows": ROWS, "rejects": 4, "bytes": 9_000}}
    stages = [stage(0, "read"), stage(1, "score.heuristics"), last]
    run = record(stages, name=f"{mark}small", run_dir=root, output=output)
    (folder / "run" / "run.json").write_text(json.dumps(run))
    return root
