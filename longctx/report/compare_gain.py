"""The yardstick of `compare --gain`: which windows or documents are read, by which model, and how.

Candidates come in the order of a hash of what they are and the seed; of each run the first N that
hold `long` tokens of the model are taken, so equally many of equal length stand against each other
and two runs that share a document draw it together. What is passed over is counted, not hidden.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from longctx.compare.excerpt import I64, Excerpt, Piece, joined
from longctx.compare.gain import Lengths, RunScores, gain_lines, score
from longctx.compare.result import Gain, unit_of
from longctx.errors import RecipeError
from longctx.ids import U64, priorities
from longctx.report.compare_scoring import Reader, Say, Scoring
from longctx.report.format import count, plural
from longctx.score.causal_lm import PACKAGED
from longctx.text.latin import is_latin

LONG, SHORT, UNITS = 2048, 256, 32
_THREADS = 4
_AT_ONCE = 512  # candidates whose texts are in memory
_LOOKED = 500  # candidates for each one that is wanted, at most


@dataclass(frozen=True)
class Asked:
    """What `--gain` was asked for; None where the default is to be taken.

    `of` is "windows", "borders" or "documents".
    """

    of: str = "windows"
    model: str = PACKAGED
    units: int | None = None
    long: int = LONG
    short: int = SHORT
    dtype: str = "bfloat16"
    seed: int = 0
    threads: int | None = None


Texts = Callable[[I64], Iterator[tuple[int, list[tuple[int, str]]]]]


@dataclass(frozen=True)
class Pool:
    """What a run offers: `keys` uint64 [n] of its windows or documents, and their texts by row.

    `texts` gives (row, [(key of document, text), ...]) of the rows asked for, in any order.
    `documents` uint64 [d] are the keys of all documents, None where nothing names them.
    """

    name: str
    place: str
    keys: U64
    documents: U64 | None
    texts: Texts


def open_model(asked: Asked) -> Reader:
    """The model, loaded. Raises RecipeError for lengths that it cannot read."""
    from longctx.score.causal_lm import load_causal_lm

    if asked.long <= 2 * asked.short:
        raise RecipeError(
            f"with a short context of up to {2 * asked.short - 1:,} tokens nothing is left of "
            f"{asked.long:,} that is farther away",
            remedy="give a --long of more than twice --short",
        )
    model = load_causal_lm(asked.model, dtype=asked.dtype)
    most = model.limit - (model.bos is not None)
    if asked.long > most:
        raise RecipeError(
            f"{asked.model} reads {most:,} tokens at once, fewer than the {asked.long:,} of --long",
            remedy=f"give --long {most} or less, or a model with a longer context",
        )
    return model


def measure_gain(
    pools: Sequence[Pool],
    model: Reader,
    asked: Asked,
    say: Say = lambda _: None,
) -> Gain:
    """Score a sample of each run and compare. Raises RecipeError where a run has too few."""
    lengths = Lengths(asked.long, asked.short, asked.of == "borders")
    samples = [_sample(pool, model, lengths, asked, say) for pool in pools]
    units = _equal(pools, samples, asked)
    threads = asked.threads or _threads(model)
    scoring = Scoring(model, lengths, threads, unit_of(asked.of), say)
    taken = [sample.found[:units] for sample in samples]
    losses = iter(scoring.losses([one.excerpt for found in taken for one in found]))
    runs = [
        RunScores(
            pool.name,
            len(pool.keys),
            found[-1].number + 1,
            [score(one.excerpt, lengths, next(losses), one.key, one.row) for one in found],
            pool.documents,
        )
        for pool, found in zip(pools, taken, strict=True)
    ]
    return Gain(
        of=asked.of,
        wanted=asked.units or UNITS,
        model=asked.model,
        dtype=model.identity["dtype"],
        long=asked.long,
        short=asked.short,
        seed=asked.seed,
        lines=gain_lines(runs, asked.seed),
    )


@dataclass(frozen=True)
class _Drawn:
    """An excerpt of row `row`, the candidate with this number in the order of the sample."""

    key: int
    row: int
    number: int
    excerpt: Excerpt


@dataclass(frozen=True)
class _Sample:
    found: list[_Drawn]
    looked: int


def _sample(pool: Pool, model: Reader, lengths: Lengths, asked: Asked, say: Say) -> _Sample:
    """The first excerpts in the order of the sample, at most as many as are wanted."""
    wanted = asked.units or UNITS
    keys = priorities(pool.keys, asked.seed)
    order = np.argsort(keys, kind="stable")[: wanted * _LOOKED]
    found: list[_Drawn] = []
    looked, step = 0, 2 * wanted
    while looked < len(order) and len(found) < wanted:
        rows = order[looked : looked + min(step, _AT_ONCE)]
        say(f"looking at {plural(len(rows), unit_of(asked.of))} of {pool.name}")
        texts = dict(pool.texts(rows))
        for number, row in enumerate(rows.tolist(), start=looked):
            key = int(keys[row])
            excerpt = _excerpt(texts[row], model, lengths, key)
            if excerpt is not None:
                found.append(_Drawn(key, row, number, excerpt))
            if len(found) == wanted:
                break
        looked += len(rows)
        step *= 2
    return _Sample(found, looked)


def _excerpt(
    texts: Sequence[tuple[int, str]], model: Reader, lengths: Lengths, key: int
) -> Excerpt | None:
    """What is read of a window; None where there is nothing to be read."""
    # A token has a byte at least.
    if sum(len(text.encode("utf-8", "replace")) + 1 for _, text in texts) < lengths.long:
        return None
    ids = model.encode([text for _, text in texts])
    pieces = [
        Piece(document, one, model.name != PACKAGED or is_latin(text))
        for (document, text), one in zip(texts, ids, strict=True)
    ]
    whole = joined(pieces, model.tokenizer.eos_id if model.bos is None else model.bos)
    return lengths.excerpt(whole, key)


def _equal(pools: Sequence[Pool], samples: Sequence[_Sample], asked: Asked) -> int:
    """How many units of each run are scored: as many as asked for, else as all have."""
    fewest, sample, pool = min(
        ((len(s.found), s, p) for s, p in zip(samples, pools, strict=True)), key=lambda x: x[0]
    )
    if fewest == 0 or (asked.units and fewest < asked.units):
        has = "has" if fewest == 1 else "have"
        what = f"{asked.long:,} tokens that {asked.model} knows"
        if asked.of == "borders":
            what += ", around the beginning of a document"
        wanted = f"; {asked.units:,} were asked for" if asked.units else ""
        less = f"--gain-windows {fewest}, " if fewest else ""
        raise RecipeError(
            f"{count(fewest) if fewest else 'none'} of {plural(sample.looked, unit_of(asked.of))} "
            f"looked at in {pool.name} {has} {what}{wanted}",
            where=pool.place,
            remedy=f"give {less}a smaller --long, or another --gain-model",
        )
    return fewest


def _threads(model: Reader) -> int:
    """One on an accelerator; on a CPU a few, since each holds the activations of an excerpt."""
    on_cpu = getattr(getattr(model, "device", None), "type", "cpu") == "cpu"
    return min(_THREADS, os.cpu_count() or 1) if on_cpu else 1
