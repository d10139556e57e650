"""LongWanjuan (arXiv 2402.13583): coherence, cohesion and complexity of long texts.

- Coherence: the text is cut into chunks of W tokens (the tail is dropped); the last T of each are
  predicted from the whole chunk and from its last M tokens alone. `acc` is the share of targets
  that the model puts first, `ppl` exp(mean NLL) of a chunk; both are means over the chunks, and
  `diff` and `ratio` say what the longer context is worth.
- Cohesion: shares of pronouns and connectives (`cohesion`), and optionally DMR (arXiv 2306.10658).
- Complexity: type-token ratios of token ids, and lengths of lines.

The class of a document follows from the ranks of the three inside its source, so it is made where
rows are cut: `filter/derived.py`.

What we changed. The type-token ratio falls with the length of a text, so a threshold would judge
lengths: `ttr_win` is the mean over windows of 1,000 tokens. A text without a line or shorter than W
has nulls, where the released code crashes or writes -1; and it writes two figures under one key,
so that the "acc_ratio" of its English data is the ratio of perplexities.

Cost of the coherence: (W + M)/W tokens of forward pass a token (1.5), and logits for 2T/W of them.
With 3,072 tokens of context against 1,024 it measures short-range coherence only: W, M and T are
parameters. All the rest together 3 MB/s per core.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.score.causal_lm import I32, Segment, TokenScores
from longctx.score.likelihood import Columns, perplexity
from longctx.score.plan import Scorer, read
from longctx.text.sentences import sentence_spans

F64 = npt.NDArray[np.float64]

WINDOW, SHORT_SHARE, TARGET_SHARE = 4096, 2, 4
TTR_WINDOW = 1000
_NOT_ZERO = 1e-5
_COMMAS = ",，"
_LEAST_SENTENCE, _DMR_SPAN = 5, 256


class Chunks(NamedTuple):
    """W, M and T in tokens: a chunk, what the short reading sees of it, and its targets."""

    window: int
    short: int
    target: int


def fitting(
    room: int, window: int | None = None, short: int | None = None, target: int | None = None
) -> Chunks:
    """Chunks for a model that reads `room` tokens at once; what is given stays.

    By default 4,096 tokens or what the model reads, of which half and a quarter.
    """
    window = window or max(TARGET_SHARE, min(WINDOW, room))
    short = short or window // SHORT_SHARE
    return Chunks(window, short, target or max(1, window // TARGET_SHARE))


def coherence(scorer: Scorer, documents: Sequence[I32], chunks: Chunks) -> list[Columns | None]:
    """Coherence of each document's ids int32 [n], by column, in one call of the scorer.

    None for documents of fewer than W tokens. Perplexities are NaN where the model gave no numbers,
    and null where float64 cannot hold them.
    """
    asked = [list(_segments(ids, chunks)) for ids in documents]
    return [_coherence(found) if found else None for found in read(scorer, asked)]


def _segments(ids: I32, chunks: Chunks) -> Iterator[Segment]:
    """Long and short reading of each chunk in turn."""
    for start in range(0, len(ids) - chunks.window + 1, chunks.window):
        chunk = ids[start : start + chunks.window]
        for size in (chunks.window, chunks.short):
            yield Segment(chunk[-size:], size - chunks.target, size, bos=False)


def _coherence(found: list[TokenScores]) -> Columns:
    long, short = _means(found[::2]), _means(found[1::2])
    acc_diff = long.acc - short.acc
    ppl_diff = None if long.ppl is None or short.ppl is None else short.ppl - long.ppl
    return {
        "lw_acc_long": long.acc,
        "lw_acc_short": short.acc,
        "lw_acc_diff": acc_diff,
        "lw_acc_ratio": acc_diff / (long.acc + _NOT_ZERO),
        "lw_ppl_long": long.ppl,
        "lw_ppl_short": short.ppl,
        "lw_ppl_diff": ppl_diff,
        "lw_ppl_ratio": None if ppl_diff is None else ppl_diff / ((short.ppl or 0) + _NOT_ZERO),
        "lw_n_chunks": len(found) // 2,
    }


class _Means(NamedTuple):
    acc: float
    ppl: float | None


def _means(found: list[TokenScores]) -> _Means:
    """Means over the chunks of accuracy and perplexity."""
    acc = float(np.mean([np.mean(f.hit, dtype=np.float64) for f in found]))
    ppl = [perplexity(f.nll) for f in found]
    return _Means(acc, None if None in ppl else float(np.mean(np.array(ppl, np.float64))))


def complexity(text: str, ids: I32) -> Columns:
    """Type-token ratios of a text's ids int32 [n], and measures of its lines; None for none."""
    return {
        "lw_ttr": _ttr(ids) if len(ids) else None,
        "lw_ttr_win": _windowed_ttr(ids) if len(ids) else None,
        "lw_tok_per_char": len(ids) / len(text) if text else None,
        **_lines(text),
    }


def _ttr(ids: I32) -> float:
    return len(np.unique(ids)) / len(ids)


def _windowed_ttr(ids: I32, size: int = TTR_WINDOW) -> float:
    """Mean over windows; the tail counts only where it is all there is."""
    starts = range(0, max(1, len(ids) - size + 1), size)
    return float(np.mean([_ttr(ids[start : start + size]) for start in starts]))


def _lines(text: str) -> Columns:
    """Character lengths of lines that are not blank, and rates of characters."""
    lengths = np.array([len(x.rstrip("\r")) for x in text.split("\n") if x.strip()], np.float64)
    names = ("mean", "std", "med", "max", "min")
    values = (
        [f(lengths) for f in (np.mean, np.std, np.median, np.max, np.min)] if len(lengths) else []
    )
    lines = dict(zip(names, map(float, values), strict=False)) if values else dict.fromkeys(names)
    counts = {
        "newline": text.count("\n"),
        "comma": sum(text.count(c) for c in _COMMAS),
        "space": text.count(" "),
        "bar": text.count("|"),
    }
    rates = {k: n / len(text) if text else None for k, n in counts.items()}
    return {f"lw_line_{k}": v for k, v in lines.items()} | {
        f"lw_{k}_rate": v for k, v in rates.items()
    }


def dmr(text: str, no_connective: Callable[[str, str], float]) -> float | None:
    """Mean of 1 - p(no connective) over neighbouring spans of sentences; None for one span.

    `no_connective` is a classifier of discourse markers, asked for each pair. Sentences of at least
    5 characters are joined until a span has more than 256. That the document's figure is the mean
    is our reading; DMR is published for pairs.
    """
    spans, current = [], ""
    for start, end in sentence_spans(text):
        sentence = text[start:end].strip()
        if len(sentence) >= _LEAST_SENTENCE:
            current = f"{current} {sentence}" if current else sentence
        if len(current) > _DMR_SPAN:
            spans.append(current)
            current = ""
    if current:
        spans.append(current)
    pairs = [1 - no_connective(a, b) for a, b in pairwise(spans)]
    return float(np.mean(pairs)) if pairs else None
