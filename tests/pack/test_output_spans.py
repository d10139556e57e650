import numpy as np
import pyarrow as pa

from longctx.engine.op import Setting
from longctx.pack.output import Fill, _first_span
from longctx.pack.stages_spans import PASS, SPANS


def test_spans_of_one_document_share_the_first_of_them():
    rows = pa.table({"doc_id": ["b", "a", "b", "c", "a"]})
    assert _first_span(rows).tolist() == [0, 1, 0, 3, 1]


def shard() -> pa.Table:
    """Six windows of three spans, with vectors; every third document has a second span elsewhere.

    The spans that do not end their document come with the token after them.
    """
    rng = np.random.default_rng(0)
    rows = []
    for place in range(18):
        doc, second = place - place % 3 // 2, place % 3 == 2
        size = int(rng.integers(2, 9))
        start = 40 if second else 0
        ids = rng.integers(0, 1000, size + 1).astype(np.int32)
        vector = np.random.default_rng(doc).normal(size=4).astype(np.float32)
        rows.append(
            {
                "target": 32,
                "window": place // 3,
                "seq": place % 3,
                "doc_id": f"d{doc:02d}",
                "source": f"s{doc % 2}",
                "license": None,
                "tour_id": f"t{doc % 4}",
                "origin": 0,
                "start": start,
                "end": start + size,
                "length": 100,
                "tokens": ids.tobytes(),
                "vector": (vector / np.linalg.norm(vector)).tobytes(),
                "pass": place // 9,
            }
        )
    return pa.Table.from_pylist(rows, schema=SPANS.append(PASS))


def test_a_shard_has_the_same_bytes_whatever_the_order_in_which_its_spans_came():
    class Files(dict):
        def write(self, name: str, data: bytes, rows: int) -> None:
            self[name] = bytes(data)

    fill = Fill(Setting(0, "embedded", "03-pack", "/run", "/out", ("jsonl",)), 32, "/out")
    rows, found = shard(), []
    halves = pa.concat_tables([rows.slice(9), rows.slice(0, 9)])
    for came in (rows, rows.take(np.random.default_rng(1).permutation(18)), halves):
        files = Files()
        found.append((fill(("bucket-00000", came), files), files))
    (told, files), *others = found
    assert len(files) > 1
    assert told["stats"]["windows"] == 6
    assert told["stats"]["pairs"] > 0
    assert all(other == (told, files) for other in others)
