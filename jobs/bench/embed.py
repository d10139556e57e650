"""The stage `embed` against its model's bare forward pass and against SentenceTransformer.encode.

    python -m jobs.bench.embed [--passages 600] [--corpus DIR] [--json] [--write]

Documents are passages of at most 1,000 characters, up to 8 from each document of the corpus, so
that all three read the same texts. The stage is the engine's own, as a run does it on a local Ray,
with one worker: CPU seconds of its units as their commits record them, with reading the part,
tokenising, batches, pooling, Arrow and the committed file, without loading the model. Bare is
`model(**features)` alone, one thread, on the batches that the stage makes, prepared before. The
static encoder has no forward pass apart from its text: bare is its tokenizer and the sum of the
table's rows. `encode` runs with its defaults and one thread; the smallest cosine of its vectors
with those of the stage is told. On a machine with a GPU: which share of its dense bf16 peak the
passes reach, alone and with the tokenising overlapped, and how many cores keep it busy.

Exit code 1 when a stage is below 0.95 of bare, or the default of the packaged transformer for
speed, bfloat16, and the static encoder are below 1.3 times `encode`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow.parquet as pq

from jobs.bench.embed_gpu import on_gpu
from jobs.bench.machine import describe
from jobs.bench.report import table, write_section
from longctx.embed.chunked import F32, Chunk, minilm_folder
from longctx.embed.encoders import load_encoder, static_folder
from longctx.text.chunks import evenly_spaced, snapped_span

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "dev"
PASSAGE, PER_DOCUMENT = 1000, 8
LEAST_OF_BARE, LEAST_OF_PEER = 0.95, 1.3
KNOWN = ("en", "code", None)
MODELS = (("minilm", "float32"), ("minilm", "bfloat16"), ("static", "float32"))
# So many times the passages for the static encoder, which is a hundred times as fast.
MORE_STATIC = 20
T = TypeVar("T")


class Row(NamedTuple):
    """One model: tokens a CPU second of the stage, of the bare pass and of `encode`."""

    model: str
    dtype: str
    passages: int
    tokens: int
    stage: float
    bare: float
    peer: float
    least_cosine: float

    @property
    def of_bare(self) -> float:
        """The stage's speed as a share of the bare pass."""
        return self.stage / self.bare

    @property
    def of_peer(self) -> float:
        """How many times as fast as `encode`."""
        return self.stage / self.peer

    @property
    def held(self) -> bool:
        """Whether the limits hold; fp32 against fp32 only has to be no slower than `encode`."""
        least = 1.0 if (self.model, self.dtype) == MODELS[0] else LEAST_OF_PEER
        return self.of_bare >= LEAST_OF_BARE and self.of_peer >= least


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The stage embed against its model alone.")
    parser.add_argument("--passages", type=int, default=600)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of Parquet files")
    parser.add_argument("--models", default="minilm,static", help="which of minilm, static")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    args = parser.parse_args(argv)
    wanted = args.models.split(",")
    with tempfile.TemporaryDirectory(prefix="bench-embed-") as folder:
        files = corpus_files(args.corpus, Path(folder))
        few = passages(files, args.passages)
        many = passages(files, MORE_STATIC * args.passages)
        rows = [
            measure(model, dtype, many if model == "static" else few, Path(folder))
            for model, dtype in MODELS
            if model in wanted
        ]
        device = on_gpu(few)
    text = f"{_page(rows)}\n\n{device}"
    if args.json:
        values = [
            {**row._asdict(), "of bare": row.of_bare, "of encode": row.of_peer} for row in rows
        ]
        print(json.dumps({"machine": describe(), "rows": values, "gpu": device}, indent=1))
    else:
        print(text)
    if args.write:
        write_section("Embedding", text)
    return int(not all(row.held for row in rows))


def corpus_files(corpus: Path, scratch: Path) -> list[Path]:
    """Parquet files of a corpus; where it is absent, of the texts of this machine's packages."""
    files = sorted(corpus.glob("*.parquet"))
    if files:
        return files
    from longctx.sample_corpus import build

    build(scratch / "corpus")
    return sorted((scratch / "corpus").rglob("*.parquet"))


def passages(files: list[Path], count: int) -> list[str]:
    """The first `count` passages of the documents whose language the packaged models know."""
    found: list[str] = []
    for file in files:
        batches = pq.ParquetFile(file).iter_batches(batch_size=64, columns=["text", "language"])
        for row in (row for batch in batches for row in batch.to_pylist()):
            if row["language"] in KNOWN:
                found += cut(row["text"])
            if len(found) >= count:
                return found[:count]
    return found


def cut(text: str) -> list[str]:
    """Evenly spaced passages of a document, from its first to its last character."""
    spans = [
        snapped_span(text, start, min(start + PASSAGE, len(text)))
        for start in evenly_spaced(len(text), PASSAGE, PER_DOCUMENT).tolist()
    ]
    return [text[start:end] for start, end in spans if text[start:end].strip()]


def measure(model: str, dtype: str, texts: list[str], folder: Path) -> Row:
    """One model on the same texts three times: its bare pass, the stage, and `encode`."""
    encoder = load_encoder(model, dtype=dtype, max_chunks=1, device="cpu")
    chunks = list(encoder.chunks(texts))
    tokens = sum(len(chunk.ids) for chunk in chunks)
    bare = _bare_table(encoder, texts) if model == "static" else _bare_transformer(encoder, chunks)
    seconds, vectors = stage(model, dtype, texts, folder / f"{model}-{dtype}")
    peer, theirs = _encode(model, texts)
    both = (np.linalg.norm(vectors, axis=1) > 0) & (np.linalg.norm(theirs, axis=1) > 0)
    cosines = np.einsum("ij,ij->i", vectors[both], theirs[both])
    cosines /= np.linalg.norm(vectors[both], axis=1) * np.linalg.norm(theirs[both], axis=1)
    rates = (tokens / seconds, tokens / bare, tokens / peer)
    return Row(model, dtype, len(texts), tokens, *rates, float(cosines.min()))


def stage(model: str, dtype: str, texts: list[str], folder: Path) -> tuple[float, F32]:
    """CPU seconds of the units of a run's stage, and its vectors in the order of the texts."""
    from longctx.engine.api import run
    from longctx.engine.rows import vectors

    folder.mkdir()
    lines = (json.dumps({"id": f"{i:08d}", "text": text}) for i, text in enumerate(texts))
    (folder / "passages.jsonl").write_text("\n".join(lines))
    op = {"op": "embed", "model": model, "dtype": dtype, "max_chunks": 1, "device": "cpu"}
    recipe = {
        "name": "bench-embed",
        "input": [{"path": f"{folder}/passages.jsonl", "source": "bench", "id": "id"}],
        "run_dir": str(folder / "run"),
        "stages": [op],
        "engine": {"workers": 1},
    }
    run(recipe)
    made = folder / "run" / "stages" / "01-embed"
    commits = [json.loads(f.read_text()) for f in made.glob("*.commit.json")]
    parts = [(folder / "run" / "documents" / f.name, f) for f in sorted(made.glob("*.parquet"))]
    ids = [i for d, _ in parts for i in pq.read_table(d, columns=["doc_id"])[0].to_pylist()]
    found = np.concatenate([vectors(pq.read_table(f)["embedding"]) for _, f in parts])
    return sum(c["stats"]["used"]["cpu"] for c in commits), found[np.argsort(ids)]


def _bare_transformer(encoder: Any, chunks: list[Chunk]) -> float:
    """CPU seconds of the model alone on the batches that the stage makes of these chunks."""
    import torch

    reader = encoder.reader
    ready = [batch.features for batch in reader.batches(chunks)]
    bare = reader.model[0].auto_model
    with torch.inference_mode():
        bare(**ready[-1])
        return _cpu(lambda: [bare(**features) for features in ready])[0]


def _bare_table(encoder: Any, texts: list[str]) -> float:
    """CPU seconds of the tokenizer and the sum of the rows of every text's tokens."""
    tokenizer, vectors, size = encoder.tokenizer, encoder.reader.rows, encoder.chunk_tokens

    def work() -> None:
        for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            vectors[np.array(encoding.ids[:size], dtype=np.int64)].sum(axis=0)

    return _cpu(work)[0]


def _encode(model: str, texts: list[str]) -> tuple[float, F32]:
    """CPU seconds and vectors of `SentenceTransformer.encode` with its defaults, fp32."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    if model == "static":
        modules: list[Any] = [StaticEmbedding.from_model2vec(str(static_folder()))]
        peer = SentenceTransformer(modules=modules, device="cpu")
    else:
        peer = SentenceTransformer(minilm_folder(), device="cpu")
    peer.encode(texts[:1])
    return _cpu(lambda: peer.encode(texts, show_progress_bar=False))


def _cpu(work: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def _page(rows: list[Row]) -> str:
    header = ["model", "dtype", "passages", "tokens", "stage, tokens/CPU s", "bare", "encode"]
    header += ["of bare", "of encode", "least cosine to encode", "limits"]
    lines = [
        [
            row.model,
            row.dtype,
            f"{row.passages:,}",
            f"{row.tokens:,}",
            f"{row.stage:,.0f}",
            f"{row.bare:,.0f}",
            f"{row.peer:,.0f}",
            f"{row.of_bare:.3f}",
            f"{row.of_peer:.2f}",
            f"{row.least_cosine:.5f}",
            "held" if row.held else "MISSED",
        ]
        for row in rows
    ]
    about = (
        f"One thread. Limits: {LEAST_OF_BARE} of the bare pass; {LEAST_OF_PEER} times `encode` "
        "(which is fp32), for fp32 itself 1."
    )
    return f"{about}\n\n{table(header, lines)}"


if __name__ == "__main__":
    sys.exit(main())
