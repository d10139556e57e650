"""The passes that score with a language model, each against the model's bare forward pass.

    python -m jobs.bench.score [--passes likelihood] [--documents 2] [--tokens 2048] [--write]

A pass is what the stage does with a batch: tokenising, windows, padding, softmax, aggregates and
Arrow; without Ray, reading and writing, which are nothing beside a model. While it runs, the ids of
every batch and the rows that got logits are noted; bare is the model on the same batches and the
output layer on as many rows, prepared before. Both run in this process with one thread, document by
document in turn, and are timed in CPU seconds. On a machine with a GPU: the same by the clock, and
which share of the card's dense bf16 peak the pass reaches.

Exit code 1 when a pass is below 0.9 of bare. A new pass is one function in `PASSES`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.bench.embed import CORPUS, corpus_files
from jobs.bench.embed_gpu import NONE, peak_of, share
from jobs.bench.machine import LIBRARIES, describe
from jobs.bench.report import table, write_section

LEAST_OF_BARE = 0.9
_CHARACTERS = 8  # of a document, at least, for each token that is read
_GPU_TIMES = 20


@dataclass
class Noted:
    """Batches of ids int64 [b, n] that a model read, and how many rows of each got logits."""

    ids: list[Any] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens fed, padding included."""
        return sum(int(i.numel()) for i in self.ids)

    @property
    def scored(self) -> int:
        """Rows of logits."""
        return sum(map(sum, self.rows))


class Row(NamedTuple):
    """One pass: documents, tokens fed and scored, FLOP, seconds of the pass and of the bare."""

    name: str
    dtype: str
    documents: int
    document_tokens: int
    fed: int
    scored: int
    flop: int
    seconds: float
    bare_seconds: float

    @property
    def of_bare(self) -> float:
        """The pass's speed as a share of the bare model's."""
        return self.bare_seconds / self.seconds

    @property
    def held(self) -> bool:
        """Whether the limit holds."""
        return self.of_bare >= LEAST_OF_BARE


Score = Callable[[list[str]], int]
Pass = Callable[[str, str, str, int], tuple[Any, Score]]


def likelihood(model: str, dtype: str, device: str, tokens: int) -> tuple[Any, Score]:
    """The loaded model, and score.likelihood of some texts: how many tokens they have."""
    lm, scored = _loaded("score.likelihood", model, dtype, device, tokens)
    return lm, lambda texts: sum((n or 0) + 1 for n in scored(texts, "n_scored"))


def ladm(model: str, dtype: str, device: str, tokens: int) -> tuple[Any, Score]:
    """The loaded model, and score.ladm of the texts' first window: how many tokens were read."""
    one = {"window": tokens, "span": tokens // 32}
    lm, scored = _loaded("score.ladm", model, dtype, device, tokens, **one)
    return lm, lambda texts: tokens * sum(n or 0 for n in scored(texts, "ld_n_windows"))


def _loaded(
    op: str, model: str, dtype: str, device: str, tokens: int, **fields: Any
) -> tuple[Any, Callable[[list[str], str], list[int | None]]]:
    """The model of an op, and what the op writes for some texts in one of its columns."""
    from longctx.engine.op import Setting
    from longctx.registry import resolve

    setting = Setting(seed=0, tokenizer="embedded", stage="bench", run_dir="", output="")
    where = {"model": model, "dtype": dtype, "device": device, "max_tokens": tokens}
    stage: Any = resolve(op).model_validate({"op": op, **where, **fields})
    lm = stage.load(setting)

    def column(texts: list[str], name: str) -> list[int | None]:
        batch = pa.table({"text": pa.array(texts, pa.large_string())})
        values: list[int | None] = stage.batch(batch, setting, lm).column(name).to_pylist()
        return values

    return lm, column


PASSES: dict[str, Pass] = {"likelihood": likelihood, "ladm": ladm}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Passes of language models against bare forwards.")
    parser.add_argument("--passes", default=",".join(PASSES), help=f"which of {', '.join(PASSES)}")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--documents", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=2048, help="read of each document")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of Parquet files")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    args = parser.parse_args(argv)
    found = documents(args.corpus, args.documents, args.tokens)
    rows = [
        measure(name, args.model, dtype, [[text] for text in found], args.tokens)
        for name in args.passes.split(",")
        for dtype in ("bfloat16", "float32")
    ]
    device = on_gpu(args.passes.split(","), args.model, found, args.tokens)
    text = f"{_page(args.model, rows)}\n\n{device}"
    if args.json:
        values = [{**row._asdict(), "of bare": row.of_bare} for row in rows]
        print(json.dumps({"machine": _machine(), "rows": values, "gpu": device}, indent=1))
    else:
        print(text)
    if args.write:
        write_section("Scores by language models", text)
    return int(not all(row.held for row in rows))


def documents(corpus: Path, count: int, tokens: int) -> list[str]:
    """The first documents in English that are long enough, one of each source before a second."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="bench-score-") as folder:
        found: dict[str, list[str]] = {}
        for file in corpus_files(corpus, Path(folder)):
            batches = pq.ParquetFile(file).iter_batches(
                batch_size=64, columns=["text", "language", "source"]
            )
            for row in (row for batch in batches for row in batch.to_pylist()):
                if row["language"] in ("en", None) and len(row["text"]) >= _CHARACTERS * tokens:
                    found.setdefault(row["source"], []).append(row["text"])
    turns = (texts[i] for i in range(count) for texts in found.values() if i < len(texts))
    return list(islice(turns, count))


def measure(
    name: str, model: str, dtype: str, piles: list[list[str]], tokens: int, device: str = "cpu"
) -> Row:
    """A pass and the bare model, in turn on each pile of documents, warmed up by a short text."""
    lm, score = PASSES[name](model, dtype, device, tokens)
    clock = time.process_time if device == "cpu" else _wall
    score([piles[0][0][:tokens]])
    seconds = bare = 0.0
    size = fed = scored = flop = 0
    for texts in piles:
        with noting(lm) as noted:
            started = clock()
            size += score(texts)
            seconds += clock() - started
        started = clock()
        replay(lm, noted)
        bare += clock() - started
        fed, scored, flop = fed + noted.tokens, scored + noted.scored, flop + flop_of(lm, noted)
    return Row(name, dtype, sum(map(len, piles)), size, fed, scored, flop, seconds, bare)


@contextmanager
def noting(lm: Any) -> Iterator[Noted]:
    """Note what a model reads inside."""
    noted = Noted()
    hidden, logits = lm.hidden, lm.logits

    def note_ids(ids: Any) -> Any:
        noted.ids.append(ids)
        noted.rows.append([])
        return hidden(ids)

    def note_rows(states: Any) -> Any:
        noted.rows[-1].append(len(states))
        return logits(states)

    lm.hidden, lm.logits = note_ids, note_rows
    try:
        yield noted
    finally:
        del lm.hidden, lm.logits


def replay(lm: Any, noted: Noted) -> None:
    """The bare model on what was noted: hidden states, and the output layer on as many rows."""
    import torch

    base, head = lm.model.base_model, lm.model.get_output_embeddings()
    with torch.inference_mode():
        for ids, rows in zip(noted.ids, noted.rows, strict=True):
            states = base(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
            for first, count in zip(_starts(rows), rows, strict=True):
                head(states[first : first + count])


def _starts(rows: list[int]) -> list[int]:
    return [sum(rows[:i]) for i in range(len(rows))]


def flop_of(lm: Any, noted: Noted) -> int:
    """FLOP of what was noted: 2 for each weight and token, and causal attention.

    Only scored rows pass the output layer. Half of each square of attention is masked and not
    counted; nor are the embeddings.
    """
    config = lm.model.config.get_text_config()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    head = lm.vocabulary * config.hidden_size
    layers = sum(p.numel() for p in lm.model.base_model.parameters()) - head
    squares = sum(i.shape[0] * i.shape[1] ** 2 for i in noted.ids)
    attention = 2 * config.num_hidden_layers * width * squares
    return int(2 * layers * noted.tokens + 2 * head * noted.scored + attention)


def on_gpu(passes: list[str], model: str, texts: list[str], tokens: int) -> str:
    """Markdown lines with a GPU's figures, or that there is none."""
    import torch

    if not torch.cuda.is_available():
        return NONE
    device = torch.cuda.get_device_name()
    lines = [f"- device: {device}"]
    for name in passes:
        row = measure(name, model, "bfloat16", [texts * _GPU_TIMES], tokens, "cuda")
        rate = row.flop / row.seconds
        reached = share(rate, peak_of(device))
        lines.append(
            f"- {name}: {row.fed / row.seconds:,.0f} tokens fed a second, {row.of_bare:.3f} of "
            f"bare, {rate / 1e12:.1f} TFLOP/s, of the dense bf16 peak {reached}"
        )
    return "\n".join(lines)


def _wall() -> float:
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def _machine() -> dict[str, str]:
    return describe([*LIBRARIES, "transformers"])


def _page(model: str, rows: list[Row]) -> str:
    header = ["pass", "dtype", "documents", "tokens", "fed for each", "scored"]
    header += ["fed tokens/CPU s", "bare", "GFLOP/CPU s", "of bare", "limit"]
    lines = [
        [
            row.name,
            row.dtype,
            f"{row.documents:,}",
            f"{row.document_tokens:,}",
            f"{row.fed / row.document_tokens:.2f}",
            f"{row.scored:,}",
            f"{row.fed / row.seconds:,.0f}",
            f"{row.fed / row.bare_seconds:,.0f}",
            f"{row.flop / row.seconds / 1e9:,.0f}",
            f"{row.of_bare:.3f}",
            "held" if row.held else "MISSED",
        ]
        for row in rows
    ]
    about = (
        f"{model}, one thread, windows as they fit the model. Bare: hidden states of the same "
        f"batches and the output layer on the scored positions. Limit: {LEAST_OF_BARE} of bare."
    )
    return f"{about}\n\n{table(header, lines)}"


if __name__ == "__main__":
    sys.exit(main())
