"""A corpus of many documents without text: what each one costs, by vectors, scores, few tokens."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.bench.datasets import flat_blocks
from longctx.engine.commit import FileRef
from longctx.engine.corpus import Corpus, Sidecar, parquet_groups
from longctx.engine.op import DROP_REASON
from longctx.ids import mix64
from longctx.io import paths
from longctx.schema import DOCUMENTS

PART_ROWS, GROUP_ROWS, D, TOKENS = 15_000, 5000, 256, 16
COLUMNS = {
    "01-score.heuristics": ("tokens", "n_tokens"),
    "01-scores": ("lf_score", "la_ds", "la_var"),
    "02-embed": ("embedding", "emb_cover"),
}


def wide_corpus(folder: Path, n: int) -> Corpus:
    """n documents in `n / 50` topics with unit vectors float32[D] and `TOKENS` tokens each."""
    built = folder / "built"
    if not built.exists():
        refs = [_part(folder, i, X) for i, X in enumerate(flat_blocks(n, PART_ROWS, D))]
        built.write_text(json.dumps([[vars(f) for f in part] for part in refs]))
    files = [tuple(FileRef(**f) for f in part) for part in json.loads(built.read_text())]
    documents, *beside = zip(*files, strict=True)
    sidecars = tuple(
        Sidecar(label, columns, False, refs)
        for (label, columns), refs in zip(COLUMNS.items(), beside, strict=True)
    )
    return Corpus(str(folder), documents, sidecars)


def _part(folder: Path, i: int, X: np.ndarray) -> list[FileRef]:
    n = len(X)
    rows = np.arange(i * PART_ROWS, i * PART_ROWS + n, dtype=np.uint64)
    ids = pa.array([f"{key:016x}" for key in mix64(rows + np.uint64(1))], pa.string())
    fixed = {"text": "", "source": "wide"}
    documents = pa.table(
        [
            ids if f.name == "doc_id" else pa.array([fixed.get(f.name)] * n, f.type)
            for f in DOCUMENTS
        ],
        schema=DOCUMENTS,
    )
    tokens = np.tile(np.arange(TOKENS, dtype=np.int32), n)
    offsets = pa.array(np.arange(n + 1, dtype=np.int64) * TOKENS)
    none = pa.nulls(n, pa.string())
    scores = pa.table(
        {
            "tokens": pa.LargeListArray.from_arrays(offsets, pa.array(tokens)),
            "n_tokens": pa.array(np.full(n, TOKENS, dtype=np.int64)),
            DROP_REASON: none,
        }
    )
    drawn = {
        name: mix64(rows * np.uint64(3) + np.uint64(i)).astype(np.float64) / 2**64
        for i, name in enumerate(COLUMNS["01-scores"])
    }
    said = pa.table({**drawn, DROP_REASON: none})
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), D)
    cover = pa.array(np.ones(n, dtype=np.float32))
    embedded = pa.table({"embedding": vectors, "emb_cover": cover, DROP_REASON: none})
    names = ("documents", *(f"stages/{label}" for label in COLUMNS))
    tables = (documents, scores, said, embedded)
    return [
        _write(folder, f"{name}/{i:04d}.parquet", table)
        for name, table in zip(names, tables, strict=True)
    ]


def _write(folder: Path, name: str, whole: pa.Table) -> FileRef:
    groups = [whole.slice(at, GROUP_ROWS) for at in range(0, len(whole), GROUP_ROWS)]
    data = parquet_groups(groups)
    paths.write_atomic(str(folder / name), data)
    return FileRef(name, len(data), paths.checksum(data), len(whole))
