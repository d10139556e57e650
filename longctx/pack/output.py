"""Windows as files: one shard assembled, checked, audited and written in every format.

The output folder is the run's own (`io/output_folder.py`), and `manifest.json` vouches for what
lies there: it is withdrawn before the files may change.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.commit import Commit, FileRef
from longctx.engine.op import Setting
from longctx.errors import DamagedFileError, RunError
from longctx.io import paths
from longctx.io.output_folder import MANIFEST, made_by, remove_stale
from longctx.io.parquet_windows import check_ids, parquet_bytes
from longctx.io.window_files import Target
from longctx.pack import audit, formats, verify
from longctx.pack.frame import I32, I64, Placement
from longctx.pack.passes import assert_copies_apart
from longctx.pack.similarity import similarity, window_borders
from longctx.pack.windows import FramedDocuments, assemble


@dataclass(frozen=True)
class Fill:
    """Work of the exchange's solve side: all spans of one shard, written as windows."""

    setting: Setting
    length: int
    output: str

    def __call__(self, payload: tuple[str, pa.Table | None], sink: Any) -> dict[str, Any]:
        name, rows = payload
        number = name.rpartition("-")[2]
        if rows is None or rows.num_rows == 0:
            return {"stats": {}, "formats": {}}
        rows = rows.combine_chunks()
        placement, documents = _documents(rows)
        matrix = _vectors(rows)
        similar = None
        if matrix is not None:
            first = _first_span(rows)[placement.document]
            similar = similarity(replace(placement, document=first), matrix)
        passes = _passes(rows, placement)
        table = assemble(
            placement, documents, length=self.length, similarities=similar, passes=passes
        )
        target = target_of(self.setting, self.length)
        check_ids(table, target.vocab_size)
        sink.write(f"{self.output}/part-{number}.parquet", parquet_bytes(table), table.num_rows)
        notes: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for name, module in formats.chosen(self.setting.formats).items():
            for file in module.shard(table, number, target):
                sink.write(f"{self.output}/{name}/{file.name}", file.data, file.rows)
                if file.note:
                    notes[name].append(file.note)
        return {
            "stats": audit.partial(table, length=self.length, similarity=similar),
            "formats": notes,
        }


def target_of(setting: Setting, length: int) -> Target:
    """What the formats must know of this pack."""
    from longctx.text.tokenize import load_tokenizer

    tokenizer = load_tokenizer(setting.tokenizer)
    return Target(length, tokenizer.eos_id, tokenizer.vocab_size, tokenizer.name)


def _documents(rows: pa.Table) -> tuple[Placement, FramedDocuments]:
    """Every span as a document of its own, of which only the span is at hand.

    Documents lie as the spans came: the placement says where they go, so no token is moved for it.
    """
    start, end = rows.column("start").to_numpy(), rows.column("end").to_numpy()
    tokens, offsets = _tokens(rows.column("tokens").combine_chunks())
    known = [n for n in ("key", "window", "seq") if n in rows.column_names]
    order = pc.sort_indices(rows.select(known), [(n, "ascending") for n in known]).to_numpy()
    placement = Placement(
        rows.column("window").to_numpy()[order], order.astype(np.int64), start[order], end[order]
    )
    text = {n: rows.column(n).combine_chunks() for n in ("doc_id", "source", "license", "tour_id")}
    documents = FramedDocuments(
        text["doc_id"],
        text["source"],
        text["license"],
        tokens,
        offsets,
        tour_id=text["tour_id"],
        base=start,
        length=rows.column("length").to_numpy(),
        origin=rows.column("origin").to_numpy(),
    )
    return placement, documents


def _passes(rows: pa.Table, placement: Placement) -> I32 | None:
    """The pass of each window; None where no mixture copies documents."""
    if "pass" not in rows.column_names:
        return None
    found = rows.column("pass").to_numpy()[placement.document]
    assert_copies_apart(placement, found)
    return found[window_borders(placement.window)[:-1]]


def _tokens(spans: pa.Array) -> tuple[I32, I64]:
    """The ids of all spans, as they lie in the column, and where each begins."""
    _, borders, data = spans.buffers()
    at = np.frombuffer(borders, dtype=np.int64)[spans.offset : spans.offset + len(spans) + 1]
    ids = np.frombuffer(data, dtype=np.uint8)[at[0] : at[-1]].view(np.int32)
    return ids, (at - at[0]) // 4


def _first_span(rows: pa.Table) -> Any:
    """For each span the first one of its document: spans of one document are not compared."""
    code = np.asarray(rows.column("doc_id").combine_chunks().dictionary_encode().indices)
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return first[inverse]


def _vectors(rows: pa.Table) -> Any:
    column = rows.column("vector")
    if column.null_count:
        return None
    values = column.to_pylist()
    return np.frombuffer(b"".join(values), dtype=np.float32).reshape(len(values), -1)


def publish(
    setting: Setting, length: int, commits: Iterable[Commit], plan: dict[str, Any]
) -> dict[str, Any]:
    """Write the indices of the formats and `manifest.json`, remove an earlier plan's; the audit.

    What was written is read back in samples (`pack.verify`) before the manifest vouches for it.
    """
    commits = list(commits)
    sums = audit.merge([plan_sums(plan), *(c.stats["stats"] for c in commits)])
    audit.assert_conserved(sums)
    prefix = setting.output.rstrip("/") + "/"
    files = {f.name.removeprefix(prefix): f for c in commits for f in c.files}
    figures = audit.finish(sums)
    target = target_of(setting, length)
    described = {}
    for name, module in formats.chosen(setting.formats).items():
        notes = [n for c in commits for n in c.stats["formats"].get(name, [])]
        described[name] = module.describe(notes, target)
        _assert_complete(name, described[name]["windows"], figures.get("windows", 0))
        for below, data in module.merge(notes, target).items():
            paths.write_atomic(paths.join(setting.output, name, below), data)
            merged = f"{name}/{below}"
            files[merged] = FileRef(merged, len(data), paths.checksum(data), 0)
    remove_stale(setting.output, set(files))
    _verify(setting, commits, target)
    manifest = {
        **made_by(setting),
        "length": length,
        "windows": figures.get("windows", 0),
        "tokens": figures.get("tokens", 0),
        "audit": figures,
        "formats": described,
        "files": [
            {"name": n, "bytes": f.size, "rows": f.rows, "blake2b_128": f.checksum}
            for n, f in sorted(files.items())
        ],
    }
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    paths.write_atomic(paths.join(setting.output, MANIFEST), data)
    return figures


def publish_lengths(
    setting: Setting, figures: dict[str, dict[str, Any]], shares: dict[str, dict[str, Any]]
) -> None:
    """Write the `manifest.json` over the folders of several window lengths."""
    manifest = {
        **made_by(setting),
        "lengths": [
            {
                "length": int(length),
                "folder": f"length-{length}",
                "windows": found.get("windows", 0),
                "tokens": found.get("tokens", 0),
                "share": shares[length]["share"],
                "share_reached": shares[length]["share_reached"],
            }
            for length, found in figures.items()
        ],
    }
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    paths.write_atomic(paths.join(setting.output, MANIFEST), data)


def _assert_complete(name: str, found: int, windows: int) -> None:
    if found != windows:
        raise RunError(
            f"{found} windows were written as {name}, {windows} as parquet",
            where="pack",
            remedy="this is a fault of the format's writer, please report it",
        )


def _verify(setting: Setting, commits: Iterable[Commit], target: Target) -> None:
    """Read some windows back in every format and compare them. Raises RunError if they differ."""
    prefix = setting.output.rstrip("/") + "/"
    shards = []
    for commit in commits:
        files: dict[str, dict[str, str]] = defaultdict(dict)
        for file in commit.files:
            name = file.name.removeprefix(prefix)
            kind = name.partition("/")[0] if "/" in name else "parquet"
            files[kind][paths.join(setting.output, name)] = file.checksum
        windows = next((f.rows for f in commit.files), 0)
        shards.append(verify.Shard(windows, files))

    def read(url: str) -> bytes:
        data = paths.read_if_exists(url)
        if data is None:
            raise DamagedFileError("no such file", file=url)
        return data

    verify.verify(shards, formats.chosen(setting.formats), target, setting.seed, read)


_PLAN_SUMS = (
    *("documents", "segments", "split_docs", "split_short", "span_tokens"),
    "windows_by_pass",
)


def plan_sums(plan: dict[str, Any]) -> dict[str, Any]:
    """The sums of a plan's counters that the audit adds up."""
    counts = ("tokens_", "dropped_", "separators_", "documents_", "empty_")
    return {k: v for k, v in plan.items() if k in _PLAN_SUMS or k.startswith(counts)}
