"""Packing from text to written windows, against the bare encoder.

    python -m jobs.bench.pack_text [--corpus DIR] [--megabytes 60] [--json] [--write]

The documents of the corpus, in the order of their sources, into windows of 8,192 tokens: `pack`
without an earlier stage that kept tokens makes them itself, so its units are all there is between
text and windows: reading the parts, tokenising, keeping the tokens, planning, cutting, and
assembling, checking and writing the shards. Their CPU seconds are those of the commits; the bytes
that the exchange moves between them are not in units and stand beside as what all processes took.
Bare is tiktoken on the same texts, one call for each document, one thread, its vocabulary loaded;
beside it stands the encoder of the library (`text.bpe`) on the same terms.

Then the whole job of `jobs/recipes/dev.yaml` on a few of the documents, with every call of the
tokenizer counted in the workers: the characters encoded by stage. Last, what an accelerated
encoder is worth: the same vocabulary as a `tokenizer.json`, through `tokenizers` and through
`text.byte_level`, and whether their ids are the same on these texts.

Exit code 1 below 0.9 of bare or below 3 M tokens a CPU second, when any stage but
`score.heuristics` encodes text, or when ids differ.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
import yaml

from jobs.bench import counted
from jobs.bench.embed import corpus_files
from jobs.bench.machine import describe
from jobs.bench.report import table, write_section
from jobs.bench.vocabulary import write_json
from longctx.text.slices import Ids
from longctx.text.tokenize import load_tokenizer

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "dev"
RECIPE = Path(__file__).parents[1] / "recipes" / "dev.yaml"
LEAST_OF_BARE, LEAST_RATE = 0.9, 3e6
COUNTED_MB, COMPARED_MB = 4, 4
TOKENISES = "score.heuristics"
T = TypeVar("T")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Packing from text to written windows.")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of Parquet files")
    parser.add_argument("--megabytes", type=float, default=60, help="text to pack")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-pack-") as name:
        folder = Path(name)
        rows = documents(corpus_files(args.corpus, folder), args.megabytes)
        speed = packed(rows, folder / "packed")
        encoded = counted_job(_first(rows, COUNTED_MB), folder / "counted")
        fast = accelerated(
            [row["text"] for row in _first(rows, COMPARED_MB)], folder / "vocabulary"
        )
    found: dict[str, Any] = {"speed": speed, "encoded": encoded, "fast": fast}
    print(json.dumps({"machine": describe(), **found}, indent=1) if args.json else _page(**found))
    if args.write:
        write_section("Packing, from text to windows", _page(**found))
    return int(not _held(**found))


def documents(files: list[Path], megabytes: float) -> list[dict[str, Any]]:
    """The first documents of a corpus, each with `id`, `text` and `source`, so many MB of UTF-8.

    Files are taken a batch in turn, so that a part of the corpus has all of its sources.
    """
    columns = ["id", "text", "source", "language"]
    streams = [pq.ParquetFile(f).iter_batches(batch_size=100, columns=columns) for f in files]
    found: list[dict[str, Any]] = []
    left = megabytes * 1e6
    while streams and left > 0:
        for stream in list(streams):
            batch = next(stream, None)
            if batch is None:
                streams.remove(stream)
                continue
            found += batch.to_pylist()
            left -= batch.column("text").nbytes
            if left <= 0:
                break
    return found


def _first(rows: list[dict[str, Any]], megabytes: float) -> list[dict[str, Any]]:
    total, chosen = 0.0, []
    for row in rows[:: max(1, len(rows) // 4000)]:
        total += len(row["text"]) / 1e6
        chosen.append(row)
        if total >= megabytes:
            break
    return chosen


def packed(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Tokens, CPU seconds of the units of `pack` by step, and of two encoders on its texts."""
    from longctx.engine.api import run

    stages: list[dict[str, Any]] = [{"op": "order.source"}, {"op": "pack", "length": 8192}]
    record = run(_recipe(rows, folder, stages, {"format": ["parquet"]}))
    run_dir = Path(record.run_dir)
    steps = {
        step.name: sum(
            json.loads(f.read_text())["stats"]["used"]["cpu"] for f in step.glob("*.commit.json")
        )
        for step in sorted((run_dir / "stages" / "02-pack").iterdir())
        if step.is_dir()
    }
    texts = [
        text
        for file in sorted((run_dir / "documents").glob("*.parquet"))
        for text in pq.read_table(file, columns=["text"])["text"].to_pylist()
    ]
    tokenizer: Any = load_tokenizer("embedded")
    encode = tokenizer._encoding.encode_to_numpy
    encode(texts[0], disallowed_special=())
    bare, counts = _cpu(lambda: [len(encode(text, disallowed_special=())) for text in texts])
    tokenizer.encode_batch(texts[:1])
    own, _ = _cpu(lambda: [len(ids) for ids in tokenizer.encode_batch(texts)])
    written = json.loads((run_dir / "output" / "manifest.json").read_text())["tokens"]
    return {
        "documents": len(texts),
        "tokens": sum(counts),
        "tokens written": written,
        "bare": bare,
        "own": own,
        "steps": steps,
    }


def _recipe(
    rows: list[dict[str, Any]], folder: Path, stages: list[dict[str, Any]], output: dict[str, Any]
) -> dict[str, Any]:
    folder.mkdir(parents=True)
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(rows), folder / "documents.parquet")
    return {
        "name": "bench-pack",
        "input": [{"path": f"{folder}/documents.parquet", "source_field": "source", "id": "id"}],
        "run_dir": str(folder / "run"),
        "stages": stages,
        "output": output,
        "engine": {"workers": 1},
    }


def counted_job(rows: list[dict[str, Any]], folder: Path) -> dict[str, int]:
    """Characters that each step of the whole job encodes with the recipe's tokenizer."""
    import ray

    from longctx.engine.api import run

    whole = yaml.safe_load(RECIPE.read_text())
    if ray.is_initialized():
        ray.shutdown()
    counted.start(folder / "counts")
    try:
        run(_recipe(rows, folder / "job", whole["stages"], whole["output"]))
    finally:
        ray.shutdown()
    return counted.characters(folder / "counts")


def accelerated(texts: list[str], folder: Path) -> dict[str, Any]:
    """Tokens a CPU second through `tokenizers` and through the fast encoder, and whether equal."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    embedded: Any = load_tokenizer("embedded")
    tokenizer: Any = load_tokenizer(str(write_json(embedded._encoding, folder)))
    slow_s, slow = _cpu(lambda: tokenizer.by_tokenizers(texts))
    fast_s, fast = _cpu(lambda: tokenizer.encode_batch(texts))
    tokens = sum(map(len, slow))
    return {
        "accelerated": tokenizer.accelerated,
        "tokens": tokens,
        "tokenizers": tokens / slow_s,
        "fast": tokens / fast_s,
        "documents that differ": _different(slow, fast),
    }


def _different(one: list[Ids], two: list[Ids]) -> int:
    return sum(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def _cpu(work: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def _rate(speed: dict[str, Any]) -> float:
    return float(speed["tokens"] / sum(speed["steps"].values()))


def _held(speed: dict[str, Any], encoded: dict[str, int], fast: dict[str, Any]) -> bool:
    rate, bare = _rate(speed), speed["tokens"] / speed["bare"]
    once = all(TOKENISES in step for step in encoded)
    equal = fast["accelerated"] and not fast["documents that differ"]
    return rate >= max(LEAST_RATE, LEAST_OF_BARE * bare) and once and equal


def _page(speed: dict[str, Any], encoded: dict[str, int], fast: dict[str, Any]) -> str:
    rate, bare = _rate(speed), speed["tokens"] / speed["bare"]
    own, tokens = speed["own"], speed["tokens"]
    lines = [
        ["bare encoder", f"{speed['bare']:.2f}", f"{bare / 1e6:.2f}", "1"],
        ["own encoder", f"{own:.2f}", f"{tokens / own / 1e6:.2f}", f"{own / speed['bare']:.3f}"],
    ]
    lines += [
        [f"pack/{name}", f"{seconds:.2f}", "", f"{seconds / speed['bare']:.3f}"]
        for name, seconds in speed["steps"].items()
    ]
    seconds = sum(speed["steps"].values())
    lines += [["text to windows", f"{seconds:.2f}", f"{rate / 1e6:.2f}", f"{rate / bare:.3f}"]]
    counts = [[step, f"{count:,}"] for step, count in encoded.items()]
    return "\n\n".join(
        [
            f"{speed['documents']:,} documents, {speed['tokens']:,} tokens. Limits: "
            f"{LEAST_OF_BARE} of the bare encoder (tiktoken), {LEAST_RATE / 1e6:g} M tokens a CPU "
            "second. The share of a line is its seconds over those of the bare encoder, of the "
            "last one its speed over that of the bare encoder. `tokens` holds what a process pays "
            "once: the vocabulary's tables, and loading compiled code.",
            table(["", "CPU s", "M tokens/CPU s", "of bare"], lines),
            "### Text encoded by the whole job",
            table(["step", "characters"], counts),
            "### A tokenizer.json",
            f"The embedded vocabulary as a `tokenizer.json`, {fast['tokens']:,} tokens: "
            f"{fast['tokenizers'] / 1e6:.2f} M tokens a CPU second through `tokenizers`, "
            f"{fast['fast'] / 1e6:.2f} M accelerated; {fast['documents that differ']} documents "
            "whose ids differ.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
