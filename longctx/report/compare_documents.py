"""Documents of run folders for the yardstick: what is alive after the last stage, and its text.

A filter can so be judged before anything is packed. Ids of all living documents are read (24 bytes
each are kept), texts only of those that are looked at.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longctx.compare.excerpt import I64
from longctx.engine import manifest
from longctx.engine.commit import FileRef
from longctx.engine.corpus import ROW, intact, open_parquet
from longctx.engine.finished import finished_corpus
from longctx.ids import U64, doc_keys
from longctx.io import paths
from longctx.report.compare_gain import Pool
from longctx.report.compare_sources import Source, run_folders
from longctx.report.run_shape import check
from longctx.report.texts import TEXT, text_files


def document_pools(runs: Sequence[str]) -> list[Pool]:
    """The living documents of runs, `[NAME=]RUN_DIR` each.

    Raises RecipeError for what is no folder of a finished run, RunError for damaged files.
    """
    found = run_folders(runs)
    for source, run in found:
        check("run", run, paths.join(source.place, manifest.FILE))
    return [_pool(source, run) for source, run in found]


@dataclass(frozen=True)
class _Places:
    """Where living documents lie: `part` and `row` int64 [n], and the file of each part's texts."""

    run_dir: str
    files: list[FileRef]
    keys: U64
    part: I64
    row: I64

    def texts(self, picked: I64) -> Iterator[tuple[int, list[tuple[int, str]]]]:
        """Each picked document with its key and text."""
        for part in np.unique(self.part[picked]).tolist():
            here = picked[self.part[picked] == part]
            yield from self._of_part(part, here[np.argsort(self.row[here])])

    def _of_part(self, part: int, picked: I64) -> Iterator[tuple[int, list[tuple[int, str]]]]:
        """The same of one part: only row groups that hold any are read."""
        file = open_parquet(self.run_dir, self.files[part])
        first = 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            here = picked[(self.row[picked] >= first) & (self.row[picked] < last)]
            if len(here):
                with intact(paths.inside(self.run_dir, self.files[part].name)):
                    column = file.read_row_group(group, columns=[TEXT]).column(0)
                for number, text in zip(
                    here.tolist(), column.take(self.row[here] - first).to_pylist(), strict=True
                ):
                    yield number, [(int(self.keys[number]), text)]
            first = last


def _pool(source: Source, run: dict[str, Any]) -> Pool:
    corpus = finished_corpus(source.place, run["stages"])
    keys, parts, rows = [], [], []
    for number in range(len(corpus)):
        for table in corpus.part(number).groups(["doc_id"]):
            keys.append(doc_keys(table["doc_id"].to_pylist()))
            parts.append(np.full(table.num_rows, number, dtype=np.int64))
            rows.append(table[ROW].to_numpy().astype(np.int64))
    documents = np.concatenate([np.zeros(0, np.uint64), *keys])
    files = text_files(source.place, run["stages"])
    places = _Places(source.place, files, documents, _joined(parts), _joined(rows))
    return Pool(source.name, source.place, documents, documents, places.texts)


def _joined(arrays: list[I64]) -> I64:
    return np.concatenate([np.zeros(0, np.int64), *arrays])
