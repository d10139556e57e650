"""A context cut into chunks of equally many tokens, as ranges of its characters.

Slices of ids that are decoded one by one break a character whose bytes lie in two of them; here a
chunk is a range of the text itself, so that chunks always join to the text. Linear in the text,
which is tokenised once.
"""

from typing import NamedTuple

from longctx.synth.tokens import TokenCounter


class Chunk(NamedTuple):
    """Half-open ranges of a text, in characters and in tokens."""

    start_char: int
    end_char: int
    start_tok: int
    end_tok: int

    def of(self, text: str) -> str:
        """The chunk's part of its text."""
        return text[self.start_char : self.end_char]


def chunk_text(text: str, counter: TokenCounter, size: int, least: int = 0) -> list[Chunk]:
    """Chunks of `size` tokens; the last is shorter, and joins the one before if below `least`.

    Blanks in front of the first token are the first chunk's. A text without a token has no chunk.
    Raises ValueError for a size below 1.
    """
    if size < 1:
        raise ValueError(f"size={size}; a chunk has one token at least")
    offsets = counter.encode(text).offsets
    total = len(offsets)
    if not total:
        return []
    begins = list(range(0, total, size))
    if len(begins) > 1 and total - begins[-1] < least:
        begins.pop()
    ends = [*begins[1:], total]
    starts = [0, *(int(offsets[at]) for at in begins[1:]), len(text)]
    return [
        Chunk(starts[i], starts[i + 1], begin, end)
        for i, (begin, end) in enumerate(zip(begins, ends, strict=True))
    ]


def label(chunk: Chunk, total: int) -> str:
    """Where a chunk lies, for a reader: "a% - b%" of the tokens, rounded to the nearest."""
    a, b = ((200 * at + total) // (2 * total) for at in (chunk.start_tok, chunk.end_tok))
    return f"{a}% - {b}%"
