"""Comparing finished windows: every run read, its text embedded with one encoder, and measured.

Only what was packed is looked at, so windows of anybody can be judged. Each run is read twice at
most: once whole, for what can be counted, and once for the text of the windows whose similarity is
measured. A content that occurs in several windows or runs is embedded once.

Vectors are what `embed` gives for the text of a segment: a document that stands in a window whole
has the vector of the document, a piece of one has the vector of the piece. The packaged encoders
know English and code only; windows do not tell the language, so a text that is not in Latin letters
(`longctx.text.latin`) is left out.
Memory: one table of windows, the vectors (1 kB a segment), and 60 bytes a segment of each run.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from longctx.compare import windows
from longctx.compare.counts import count, repeated
from longctx.compare.layout import Options
from longctx.compare.likeness import likeness
from longctx.compare.result import Comparison, Line, context_sizes
from longctx.compare.sample import sample_of
from longctx.compare.windows import EMPTY, Packed
from longctx.ids import U64
from longctx.pack.frame import I64
from longctx.pack.similarity import F32
from longctx.report.compare_gain import Asked, Pool, measure_gain, open_model
from longctx.report.compare_runs import Run, Say, read_run
from longctx.report.compare_sources import ASSUMED_TOKENIZER, sources
from longctx.text.latin import is_latin

WINDOWS = 2_000
_PACKAGED = ("static", "minilm")
_BATCH, _BATCH_CHARS = 256, 1 << 23
_PENDING = 4


@dataclass
class _Vectors:
    """Vectors of contents seen so far, by tokenizer and content."""

    encoder: Any
    packaged: bool
    pool: ThreadPoolExecutor
    rows: dict[tuple[str, int], int] = field(default_factory=dict)
    blocks: list[F32] = field(default_factory=list)
    pending: deque[Future[F32]] = field(default_factory=deque)

    def add(self, keys: list[tuple[str, int]], texts: list[str]) -> None:
        """Embed texts in the background; what the encoder cannot judge gets a row of zeros."""
        first = len(self.rows)
        self.rows |= {key: first + i for i, key in enumerate(keys)}
        self.pending.append(self.pool.submit(self._encode, texts))
        while len(self.pending) > _PENDING:
            self.blocks.append(self.pending.popleft().result())

    def _encode(self, texts: list[str]) -> F32:
        judged = [text if not self.packaged or is_latin(text) else "" for text in texts]
        found: F32 = self.encoder.encode(judged)[0]
        return found

    def of(self, tokenizer: str, content: U64) -> F32:
        """The vectors of these contents, float32[n, d]."""
        while self.pending:
            self.blocks.append(self.pending.popleft().result())
        blank = np.zeros((1, self.encoder.dim), dtype=np.float32)
        table = np.concatenate([*self.blocks, blank])
        rows = [self.rows.get((tokenizer, key), -1) for key in content.tolist()]
        return table[np.array(rows, dtype=np.int64)]


def compare(
    runs: Sequence[str],
    *,
    options: Options | None = None,
    tokenizers: Sequence[str] = (),
    length: int | None = None,
    model: str = "static",
    most_windows: int = WINDOWS,
    gain: Asked | None = None,
    say: Say = lambda _: None,
) -> Comparison:
    """Measure runs, `[NAME=]PATH` each: run folders, output folders, or Parquet files.

    `length` is the window that fill is measured by, for all runs. Similarity is measured in at most
    `most_windows` windows of a run. With `gain` a language model reads some windows, too. Raises
    RecipeError for what cannot be read as windows.
    """
    from longctx.embed.encoders import load_encoder

    given = options or Options()
    judge = open_model(gain) if gain else None
    found = [read_run(s, given, length, say) for s in sources(runs, tokenizers)]
    sizes = context_sizes(min(run.length for run in found))
    encoder = load_encoder(model)
    # Tokenising is most of the work and leaves Python alone. A transformer has threads of its own,
    # and its vectors depend on the batch, so only one batch is under way at a time.
    threads = (os.cpu_count() or 1) if model == "static" else 1
    with ThreadPoolExecutor(threads) as pool:
        vectors = _Vectors(encoder, model in _PACKAGED, pool)
        lines = [_measured(run, vectors, sizes, most_windows, say) for run in found]
    gained = None
    if gain and judge:
        gained = measure_gain([_pool(run) for run in found], judge, gain, say)
    return Comparison(lines, sizes, model, most_windows, gained)


def _measured(run: Run, vectors: _Vectors, sizes: list[int], most: int, say: Say) -> Line:
    picked = windows.chosen(run.packed, most)
    part = run.packed.take(picked)
    say(f"embedding {len(picked):,} windows of {run.source.name}")
    _embed(run, picked, part, vectors)
    sample = sample_of(part, vectors.of(_scope(run), part.content))
    say(f"measuring {run.source.name}")
    return Line(
        name=run.source.name,
        place=run.source.place,
        files=len(run.source.files),
        boundaries=run.layout.said,
        tokenizer=run.source.tokenizer or ASSUMED_TOKENIZER,
        tokenizer_known=run.source.tokenizer is not None,
        length=run.length,
        length_known=run.length_known,
        counts=count(run.packed, run.length),
        likeness=likeness(sample, sizes, repeated(part)),
    )


def _scope(run: Run) -> str:
    """What a content's hash is to be read with: equal ids of two tokenizers are not equal."""
    return "text" if run.layout.is_text else run.tokenizer.fingerprint


def _embed(run: Run, picked: I64, part: Packed, vectors: _Vectors) -> None:
    """Give every content of the picked windows a vector, reading the windows again."""
    scope = _scope(run)
    wanted = {k for k in part.content.tolist() if (scope, k) not in vectors.rows} - {int(EMPTY)}
    keys: list[tuple[str, int]] = []
    texts: list[str] = []
    held = 0
    for key, text in _texts(run, picked, wanted):
        keys.append((scope, key))
        texts.append(text)
        held += len(text)
        if len(texts) == _BATCH or held >= _BATCH_CHARS:
            vectors.add(keys, texts)
            keys, texts, held = [], [], 0
    vectors.add(keys, texts)


def _texts(run: Run, picked: I64, wanted: set[int]) -> Iterator[tuple[int, str]]:
    """Each wanted content once, with its text."""
    for _, batch in run.again(picked):
        if not wanted:
            return
        for segment, key in enumerate(batch.contents.keys().tolist()):
            if key in wanted:
                wanted.remove(key)
                yield key, batch.contents.text(segment)


def _pool(run: Run) -> Pool:
    """The windows of a run for a language model."""
    documents = run.packed.document
    return Pool(
        run.source.name,
        run.source.place,
        run.packed.priority,
        None if documents is None else np.unique(documents),
        partial(_window_texts, run),
    )


def _window_texts(run: Run, picked: I64) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Each window with its documents: their keys, or those of what they hold, and their texts."""
    for numbers, batch in run.again(picked):
        keys = batch.contents.keys() if batch.document is None else batch.document
        spans = pairwise(batch.borders.tolist())
        for number, (first, last) in zip(numbers.tolist(), spans, strict=True):
            named = enumerate(keys[first:last].tolist(), start=first)
            yield number, [(key, batch.contents.text(segment)) for segment, key in named]
