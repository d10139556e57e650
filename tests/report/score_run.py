"""A run folder with every kind of score stage, written by hand, with text planted anywhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from longctx.engine import commit
from longctx.engine.commit import Commit, FileRef
from longctx.engine.op import DROP_REASON
from longctx.io import paths
from tests.engine.parts import put
from tests.report.scored import write_run

ROWS = 12
GROUPS = (8, 4)
SECRET = "jane.doe@post.example-mail.org"
SHARED = " ".join(f"shared{i}" for i in range(60))


def text(prefix: str, part: int, row: int) -> str:
    """A document that begins as its id says; those of p0-1 and p1-2 have a passage in common."""
    words = " ".join(f"word{part}{row}x{i}" for i in range(300))
    shared = SHARED if (part, row) in ((0, 1), (1, 2)) else ""
    begin = f"{prefix}Document {part}-{row}. Write to {SECRET} about it."
    return f"{begin} Number{part}{row}. {shared} {words} {prefix}"


def documents(prefix: str, part: int) -> dict[str, Any]:
    texts = [text(prefix, part, row) for row in range(ROWS)]
    meta = json.dumps({"instruction": f"{prefix}Why? {SECRET}", "response": f"{prefix}Because."})
    return {
        "doc_id": [f"{prefix}p{part}-{row}" for row in range(ROWS)],
        "text": pa.array(texts, pa.large_string()),
        "source": [f"{prefix}{'web' if row % 3 else 'books'}" for row in range(ROWS)],
        "license": ["MIT"] * ROWS,
        "meta": [meta] * ROWS,
    }


def scores(prefix: str, part: int) -> dict[str, dict[str, Any]]:
    """Sidecars of a part by op."""
    rng = np.random.default_rng(part)
    random = rng.random(ROWS)
    some = [None if row == 3 else float(v) for row, v in enumerate(random)]
    status = [f"{prefix}too_short" if v is None else "ok" for v in some]
    at = text(prefix, part, 0).index(SECRET)
    span = {"start_char": at, "end_char": at + len(SECRET), "kind": f"{prefix}email"}
    set_ = {
        "start_char": 0,
        "end_char": 10,
        "set": f"{prefix}quiz",
        "row": 4,
        "field": f"{prefix}q",
    }
    window = {"start_char": 30, "end_char": 60, "lang": f"{prefix}de", "confidence": 0.9}
    return {
        "score.heuristics": {
            "n_tokens": rng.integers(10, 5000, ROWS),
            "h_alpha": random,
            "h_dup_5": random**2,
            "h_lorem": [False] * ROWS,
        },
        "score.language": {
            "lang": ["en"] * (ROWS - 1) + [f"{prefix}fr"],
            "lang_mixed_share": random,
            "lang_windows": pa.array([[window]] * ROWS),
            "lang_status": ["ok"] * ROWS,
        },
        "filter.pii": {
            "pii_count": [1 + row % 3 for row in range(ROWS)],
            "pii_spans": pa.array([[{**span, "masked_start": None, "masked_end": None}]] * ROWS),
        },
        "filter.decontaminate": {
            "decon_share": some,
            "decon_spans": pa.array([[set_]] * ROWS),
            "decon_status": status,
        },
        "score.longattn": {
            "la_ds": some,
            "la_windows": pa.array([[{"start": 0, "end": 9, "ds": 0.4}]] * ROWS),
            "la_status": status,
        },
        "select.gateau": {"ga_hmg": some, "ga_cas": random, "ga_status": status},
        "dedup.containment": {"ct_best_share": random, "ct_status": ["ok"] * ROWS},
        "decide": {
            "cut_longattn": [None if v is None else -v for v in some],
            DROP_REASON: pa.array(
                [f"{prefix}h_alpha < 0.2" if v < 0.2 else None for v in random], pa.string()
            ),
        },
        "score.strange": {"x_first": random, "x_words": [f"{prefix}words"] * ROWS},
    }


OPS = tuple(scores("", 0))


def whole_run(folder: Path, prefix: str = "") -> str:
    """The run folder; `prefix` stands before every text, id, source, status, set and name."""
    run = write_run(
        folder,
        [(op, lambda part, op=op: scores(prefix, part)[op]) for op in OPS],  # type: ignore[misc]
        groups=GROUPS,
        columns=lambda part: documents(prefix, part),
        settings={
            "score.longattn": {"model": "${LONGCTX_NO_SUCH_FOLDER}"},
            "decide": {
                "rules": {"h_alpha": {"min": 0.2}, f"{prefix}gone": {"max": 1}},
                "per_source": {f"{prefix}web": {"n_tokens": {"max": 3000}}},
            },
        },
        steps={
            "filter.decontaminate": {
                "": {"sets": {f"{prefix}quiz": {"documents": 24, "spans": 24}}}
            }
        },
        name=f"{prefix}every score",
    )
    _groups(run)
    _pairs(run, prefix)
    _matches(run, prefix)
    _cut(run, prefix)
    return run


def stage_of(op: str) -> str:
    return f"{OPS.index(op) + 1:02d}-{op}"


def _groups(run: str) -> None:
    """The parts in the order in which stages number them."""
    files = tuple(FileRef(f"documents/s-{p:04d}.parquet", 1, "", ROWS) for p in range(2))
    folder = paths.join(run, "stages", "00-read", "groups")
    commit.finish(folder, [Commit("s", "f", files)])


def _pairs(run: str, prefix: str) -> None:
    """Document 1 of part 0 is contained in document 2 of part 1."""
    table = pa.table(
        {
            "doc_id": [f"{prefix}p0-1"],
            "other_id": [f"{prefix}p1-2"],
            "cov_share": [0.92],
            "words": [60],
            "part": pa.array([0], pa.int32()),
            "row": pa.array([1], pa.int32()),
        }
    )
    put(run, f"stages/{stage_of('dedup.containment')}/pairs/bucket-00001.parquet", table, [1])


def _matches(run: str, prefix: str) -> None:
    names = ("doc_id", "source", "set", "field", "text", "item_text")
    row: dict[str, Any] = {name: [f"{prefix}{name} of a match"] for name in names}
    row |= {name: [f"{row[name][0]} {SECRET}"] for name in ("text", "item_text")}
    table = pa.table({**row, "row": [4]})
    put(run, f"stages/{stage_of('filter.decontaminate')}/sample/sample.parquet", table, [1])


def _cut(run: str, prefix: str) -> None:
    """A rule of `keep` with its figures, and the documents next to its border."""
    folder = f"stages/{stage_of('decide')}/cut"
    group = {
        "n": 20,
        "nulls": 2,
        "tokens": 9000,
        "kept": 5,
        "kept_tokens": 4000,
        "border": {"low": -0.3},
        "rule": {"top": 0.25},
    }
    said = {
        f"{prefix}longattn": {"per": "source", "groups": {f"{prefix}web": group}},
        f"{prefix}gateau": {"per": "all", "groups": {"": group}},
    }
    data = json.dumps({"scores": said}).encode()
    paths.write_atomic(paths.join(run, folder, "cut_meta.json"), data)
    # Both cuts have the same documents next to their border, with scores of their own.
    near = [("longattn", "web", True, 1, -0.29), ("longattn", "web", False, 2, -0.31)]
    near += [("gateau", "", True, row, 1.5 + row / 10) for row in (1, 2, 3, 4)]
    table = pa.table(
        {
            "name": [f"{prefix}{name}" for name, *_ in near],
            "group": [f"{prefix}{group}" if group else "" for _, group, *_ in near],
            "edge": ["low"] * len(near),
            "kept": [kept for _, _, kept, _, _ in near],
            "doc_id": [f"{prefix}p0-{row}" for *_, row, _ in near],
            "score": [score for *_, score in near],
        }
    )
    put(run, f"{folder}/closest.parquet", table, [len(near)])
    rows = [1, 2, 3, 4]
    ids = [f"{prefix}p0-{row}" for row in rows]
    places = pa.table({"doc_id": ids, "part": ["s-0000"] * 4, "row": rows})
    put(run, f"{folder}/places.parquet", places, [4])
