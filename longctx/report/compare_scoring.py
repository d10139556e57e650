"""Excerpts through a language model: what it costs is told first, and what was read is kept.

Every excerpt is read by a call of its own, so its losses do not depend on what is read beside it;
on a CPU several are read at once, each by one thread. Losses are kept in the user's cache
(`~/.cache/longctx/gain`, 8 bytes a token), by the model's weights, its dtype and tokenizer, the
lengths, and the tokens themselves: a comparison that was stopped goes on where it was, another one
reads only windows that are new to it, and other borders or another seed never meet a wrong answer.
The folder can be deleted at any time.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from longctx.compare.excerpt import I32, Excerpt
from longctx.compare.gain import F32, Lengths
from longctx.errors import RunError
from longctx.ids import h128
from longctx.report.format import compact, count, duration, plural
from longctx.score.causal_lm import Segment, TokenScores
from longctx.text.tokenize import Tokenizer

Say = Callable[[str], None]
_PROBE = 512  # tokens of the batch that is timed
_SECONDS = 10.0  # between two lines of progress


class Reader(Protocol):
    """What is needed of a language model (`longctx.score.causal_lm.CausalLM`)."""

    name: str
    tokenizer: Tokenizer
    bos: int | None
    limit: int

    @property
    def identity(self) -> dict[str, str]:
        """What decides its scores."""

    @property
    def vocabulary(self) -> int:
        """Tokens that it knows."""

    def encode(self, texts: Sequence[str]) -> list[I32]:
        """Ids of each text."""

    def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
        """Losses of the positions that each segment asks for."""


@dataclass
class Scoring:
    """A model, how excerpts are read, how many at once, and what the user calls one."""

    model: Reader
    lengths: Lengths
    threads: int = 1
    noun: str = "window"
    say: Say = field(default=lambda _: None)

    def losses(self, excerpts: Sequence[Excerpt]) -> list[F32]:
        """Losses of each excerpt, float32 [2, long - 1]; equal ones are read once.

        Raises RunError where the model gives something else than numbers.
        """
        names = [h128(one.ids.tobytes()) for one in excerpts]
        by_name = dict(zip(names, excerpts, strict=True))
        known = _Known(_folder(self.model, self.lengths), self.lengths)
        found = {name: losses for name in by_name if (losses := known.get(name)) is not None}
        todo = {name: one.ids for name, one in by_name.items() if name not in found}
        if todo:
            self._announce(len(todo), len(found))
            for name, losses in self._read(todo):
                known.put(name, losses)
                found[name] = losses
        return [found[name] for name in names]

    def _announce(self, todo: int, known: int) -> None:
        """What is about to be read, and about how long it takes."""
        seconds = todo * self.lengths.read * self._pace() / self.threads
        kept = f" ({count(known)} more are known from before)" if known else ""
        self.say(
            f"{self.model.name} reads {plural(todo, self.noun)}{kept}, "
            f"{compact(todo * self.lengths.read)} tokens: about {duration(seconds)}"
        )

    def _pace(self) -> float:
        """Seconds a token, from a small batch; the first call of a model is slower than others."""
        size = min(_PROBE, self.lengths.long)
        ids = np.linspace(0, self.model.vocabulary - 1, size).astype(np.int32)
        seconds = 0.0
        for _ in range(2):
            begun = time.perf_counter()
            self.model.scores([Segment(ids, 1, size)])
            seconds = time.perf_counter() - begun
        return seconds / size

    def _read(self, todo: dict[str, I32]) -> Iterator[tuple[str, F32]]:
        begun = last = time.monotonic()
        pool = ThreadPoolExecutor(self.threads)
        try:
            under_way = {pool.submit(self._one, ids): name for name, ids in todo.items()}
            for done, future in enumerate(as_completed(under_way), start=1):
                yield under_way[future], future.result()
                now = time.monotonic()
                if now - last >= _SECONDS and done < len(todo):
                    last = now
                    left = (now - begun) / done * (len(todo) - done)
                    self.say(f"read {done:,} of {len(todo):,}, about {duration(left)} left")
        finally:
            # Whoever stops does not wait for what has not begun.
            pool.shutdown(cancel_futures=True)

    def _one(self, ids: I32) -> F32:
        losses = self.lengths.losses(self.model, ids)
        if not np.isfinite(losses).all():
            raise RunError(
                f"{self.model.name} gave likelihoods that are not numbers",
                where="compare --gain",
                remedy="use --dtype float32, or another model",
            )
        return losses


@dataclass(frozen=True)
class _Known:
    """Losses in files by the name of their excerpt; without a place to write nothing is kept."""

    folder: Path
    lengths: Lengths

    def get(self, name: str) -> F32 | None:
        try:
            data = (self.folder / name).read_bytes()
        except OSError:
            return None
        # A file of another size was damaged.
        if len(data) != 8 * (self.lengths.long - 1):
            return None
        return np.frombuffer(data, dtype="<f4").reshape(2, -1)

    def put(self, name: str, losses: F32) -> None:
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            draft = self.folder / f".{name}-{os.getpid()}"
            draft.write_bytes(losses.astype("<f4").tobytes())
            draft.replace(self.folder / name)


def cache() -> Path:
    """Where losses are kept."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user / "longctx" / "gain"


def _folder(model: Reader, lengths: Lengths) -> Path:
    said = [*sorted(model.identity.items()), lengths, model.bos]
    return cache() / h128(repr(said).encode())
