"""Windows of real text for tests, as longctx writes them and as other packers do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from longctx.schema import WINDOWS
from longctx.text.tokenize import load_tokenizer
from tests.conftest import TOPICS

Documents = dict[str, str]


def topical(count: int, seed: int = 0) -> Documents:
    """Short documents on four topics by id; ids begin with the topic."""
    g = np.random.default_rng(seed)
    found = {}
    for i in range(count):
        topic = list(TOPICS)[i % len(TOPICS)]
        words = g.choice(TOPICS[topic].split(), int(g.integers(8, 40)))
        found[f"{topic}-{i:03d}"] = " ".join(["The", *words, f"of number{i}."])
    return found


def dealt(documents: Documents, order: list[str], size: int) -> list[list[str]]:
    """Windows of `size` documents each in this order."""
    return [order[i : i + size] for i in range(0, len(order), size)]


def written(documents: Documents, windows: list[list[str]]) -> pa.Table:
    """Windows of `schema.WINDOWS`: each document whole, followed by the end-of-text token."""
    tokenizer = load_tokenizer("embedded")
    rows = []
    for number, names in enumerate(windows):
        ids: list[int] = []
        segments = []
        for name in names:
            start = len(ids)
            ids += [*tokenizer.encode_batch([documents[name]])[0].tolist(), tokenizer.eos_id]
            segments.append(
                {
                    "doc_id": name,
                    "start": start,
                    "end": len(ids),
                    "doc_start": 0,
                    "source": name.partition("-")[0],
                    "license": None,
                }
            )
        rows.append(
            {
                "window_id": f"w{number:04d}",
                "input_ids": ids,
                "n_tokens": len(ids),
                "segments": segments,
                "tour_id": None,
                "next_token": None,
                "stats": None,
            }
        )
    return pa.Table.from_pylist(rows, schema=WINDOWS)


def ends(table: pa.Table) -> list[list[int]]:
    """Ends of the segments of each window."""
    return [[s["end"] for s in row] for row in table["segments"].to_pylist()]


def foreign(table: pa.Table, documents: Documents) -> dict[str, pa.Table]:
    """The same windows in the forms of other packers, by a name for each form."""
    ids = table["input_ids"]
    stops = ends(table)
    names = [[s["doc_id"] for s in row] for row in table["segments"].to_pylist()]
    texts = [[documents[name] for name in row] for row in names]
    lengths = [np.diff([0, *row]).tolist() for row in stops]
    positions = [[i for n in row for i in range(n)] for row in lengths]
    padded = [[*row.as_py(), 7, 7, 7] for row in ids]
    mask = [[1] * len(row) + [0] * 3 for row in ids]

    def of(**columns: Any) -> pa.Table:
        return pa.table({"input_ids": ids, **columns})

    return {
        "lengths": of(seq_lengths=pa.array(lengths, pa.list_(pa.int32()))),
        "ends": of(cu_seqlens=pa.array([[0, *row] for row in stops])),
        "ends without 0": of(cu_seqlens=stops),
        "positions": of(position_ids=pa.array(positions, pa.large_list(pa.int64()))),
        "end of text": of(),
        "large lists": pa.table(
            {"tokens": ids.cast(pa.large_list(pa.int64())), "seq_lengths": lengths}
        ),
        "masked padding": pa.table(
            {
                "input_ids": padded,
                "attention_mask": mask,
                "position_ids": [[*row, 0, 0, 0] for row in positions],
            }
        ),
        "texts": pa.table({"documents": texts}),
    }


def save(folder: Path, *tables: pa.Table) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"part-{i:05d}.parquet")
    return folder


def output(folder: Path, table: pa.Table, **manifest: Any) -> Path:
    """An output folder of longctx."""
    save(folder, table)
    said = {"tokenizer": "embedded", "length": 512, **manifest}
    (folder / "manifest.json").write_text(json.dumps(said))
    return folder


def run_folder(folder: Path, table: pa.Table, order: str, status: str = "done") -> Path:
    written_to = output(folder / "output", table)
    stages = [{"op": "embed"}, {"op": order}, {"op": "pack"}]
    places = {"run_dir": str(folder), "output": str(written_to)}
    run = {"name": "small", "status": status, **places, "stages": stages}
    (folder / "run.json").write_text(json.dumps(run))
    (written_to / "_longctx.json").write_text(json.dumps({"run_dir": str(folder)}))
    return folder
