import json
from pathlib import Path

import numpy as np
import pytest

from jobs.bench import order_scale
from jobs.bench.datasets import flat
from longctx.engine.commit import FileRef
from longctx.engine.corpus import Corpus, Sidecar
from longctx.engine.rows import vectors


def test_the_corpus_holds_the_named_set_whatever_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_scale, "PART_ROWS", 50)
    monkeypatch.setattr(order_scale, "GROUP_ROWS", 20)
    order_scale.build(tmp_path, 120)
    refs = json.loads((tmp_path / "built").read_text())
    documents, embedded = (tuple(FileRef(**f) for f in files) for files in refs.values())
    corpus = Corpus(str(tmp_path), documents, (Sidecar("e", ("embedding",), False, embedded),))
    tables = [corpus.part(i).table(["doc_id", "embedding"]) for i in range(3)]
    assert [t.num_rows for t in tables] == [50, 50, 20]
    assert corpus.part(0).group_sizes() == [20, 20, 10]
    found = np.concatenate([vectors(t.column("embedding")) for t in tables])
    np.testing.assert_array_equal(found, flat(120))
    ids = [i for t in tables for i in t.column("doc_id").to_pylist()]
    assert len(set(ids)) == 120
    assert ids != sorted(ids)
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.parquet")}
    order_scale.build(tmp_path, 120)
    assert before == {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.parquet")}
