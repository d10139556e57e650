"""The parts of the speed benches that need neither a clock nor Ray."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.bench import counted, embed, embed_gpu, pack_text, semantic, vocabulary
from jobs.bench.datasets import flat
from longctx.engine.rows import vectors


def test_passages_run_from_the_first_to_the_last_character():
    words = " ".join(f"word{i}" for i in range(5000))
    found = embed.cut(words)
    assert len(found) == embed.PER_DOCUMENT
    assert all(embed.PASSAGE - 130 <= len(p) <= embed.PASSAGE for p in found)
    assert words.startswith(found[0])
    assert words.endswith(found[-1])
    assert embed.cut("short") == ["short"]
    assert embed.cut("  \n ") == []


def test_passages_are_of_known_languages(tmp_path: Path):
    rows = [("a", "en"), ("b", "ko"), ("c", None), ("d", "code"), ("e", "en")]
    table = pa.table({"text": [t for t, _ in rows], "language": [n for _, n in rows]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert embed.passages([tmp_path / "x.parquet"], 3) == ["a", "c", "d"]


def test_limits_of_a_row():
    row = embed.Row("minilm", "bfloat16", 1, 1, stage=95, bare=100, peer=70, least_cosine=1)
    assert row.held
    assert not row._replace(stage=94).held
    assert not row._replace(peer=80).held
    assert row._replace(dtype="float32", peer=90).held


def test_flops_of_a_forward_pass():
    """Twice the weights for each token, and two products with the width."""
    layers, hidden, inner, width = 6, 384, 1536, 256
    weights = layers * (4 * hidden**2 + 2 * hidden * inner)
    expected = 2 * weights + 4 * layers * width * hidden
    found = embed_gpu.forward_flops(3, width, layers=layers, hidden=hidden, inner=inner)
    assert found == 3 * width * expected


def test_peaks_by_the_name_of_the_device():
    assert embed_gpu.peak_of("NVIDIA H200") == embed_gpu.PEAKS["H200"]
    assert embed_gpu.peak_of("NVIDIA H100 PCIe") == embed_gpu.PEAKS["H100 PCIe"]
    assert embed_gpu.peak_of("NVIDIA H100 80GB HBM3") == embed_gpu.PEAKS["H100"]
    assert embed_gpu.peak_of("unheard of") is None
    assert embed_gpu.share(98.9e12, 989e12) == "10.0%"
    assert embed_gpu.share(5e12, None) == "5.0 TFLOP/s"


def test_members_of_clusters():
    found = semantic.members(np.array([2, 0, 2, 3, 0]), 5)
    assert [rows.tolist() for rows in found] == [[1, 4], [0, 2], [3]]


def test_a_corpus_of_vectors_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(semantic, "PART_ROWS", 50)
    monkeypatch.setattr(semantic, "GROUP_ROWS", 20)
    X = flat(120)
    corpus = semantic.write_corpus(tmp_path, X, [f"{i:03d}" for i in range(120)])
    tables = [corpus.part(i).table(["doc_id", "embedding", "emb_cover"]) for i in range(3)]
    assert [t.num_rows for t in tables] == [50, 50, 20]
    np.testing.assert_array_equal(
        np.concatenate([vectors(t.column("embedding")) for t in tables]), X
    )
    assert tables[2].column("doc_id")[0].as_py() == "100"


def test_documents_come_from_every_file_in_turn(tmp_path: Path):
    for name in "ab":
        rows = [
            {"id": f"{name}{i}", "text": "x" * 1000, "source": name, "language": None}
            for i in range(300)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    found = pack_text.documents(sorted(tmp_path.glob("*.parquet")), 0.25)
    assert [row["id"] for row in found[99:102]] == ["a99", "b0", "b1"]
    assert len(found) == 300
    assert len(pack_text.documents(sorted(tmp_path.glob("*.parquet")), 1e3)) == 600


def test_speed_limits_and_a_stage_that_tokenises_again():
    speed = {"tokens": 9e6, "bare": 1.9, "steps": {"tokens": 1.5, "windows": 0.5}}
    once = {"01-score.heuristics": 5}
    fast = {"accelerated": True, "documents that differ": 0}
    assert pack_text._held(speed, once, fast)
    assert not pack_text._held(speed | {"bare": 1.5}, once, fast)
    assert not pack_text._held(speed | {"tokens": 5e6}, once, fast)
    assert not pack_text._held(speed, once | {"09-pack/tokens": 5}, fast)
    assert not pack_text._held(speed, once, fast | {"documents that differ": 1})


def test_characters_by_step(tmp_path: Path):
    (tmp_path / "1.jsonl").write_text('["01-a", 5]\n["02-b/x", 1]\n')
    (tmp_path / "2.jsonl").write_text(json.dumps(["01-a", 2]) + "\n")
    assert counted.characters(tmp_path) == {"01-a": 7, "02-b/x": 1}


def test_a_vocabulary_of_tiktoken_as_tokenizer_json(tmp_path: Path):
    import tiktoken

    from longctx.text.probes import PROBES
    from longctx.text.tokenize import load_tokenizer

    letters = {bytes([b]): b for b in range(256)}
    learnt = [b"th", b"the", b" the", b"in", b"ing", b"\n\n", b" d", b"lo", b"xyzzy"]
    encoding = tiktoken.Encoding(
        "small",
        pat_str=r"\s?\p{L}+|\s+|[^\s\p{L}]+",
        mergeable_ranks=letters | {token: 256 + i for i, token in enumerate(learnt)},
        special_tokens={"<|endoftext|>": 265},
    )
    assert vocabulary.pairs(b" the", encoding._mergeable_ranks) == [(b" ", b"the")]
    assert vocabulary.pairs(b"ing", encoding._mergeable_ranks) == [(b"in", b"g")]
    assert vocabulary.pairs(b"xyzzy", encoding._mergeable_ranks) == []
    tokenizer = load_tokenizer(str(vocabulary.write_json(encoding, tmp_path)))
    texts = [unicodedata.normalize("NFC", text) for text in (*PROBES, "xyzzy xyzzy xyzzyx")]
    assert [i.tolist() for i in tokenizer.by_tokenizers(texts)] == [
        encoding.encode(text, disallowed_special=()) for text in texts
    ]
    assert tokenizer.accelerated
