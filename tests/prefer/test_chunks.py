"""Chunks of tokens as ranges of characters: they join to the text, whatever it holds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.prefer.chunks import Chunk, chunk_text, label
from longctx.synth.tokens import TokenCounter, token_counter

WORDS, IDS = TokenCounter(), token_counter("embedded")


def test_labels_of_the_worked_example() -> None:
    chunks = chunk_text("a " * 10_000, WORDS, 4096)
    assert [label(c, 10_000) for c in chunks] == ["0% - 41%", "41% - 82%", "82% - 100%"]
    assert label(Chunk(0, 0, 1, 2), 8) == "13% - 25%"  # 12.5 goes up


@settings(deadline=None)  # the tokenizer prepares itself at the first text
@given(st.text(max_size=60), st.integers(1, 7), st.integers(0, 7))
def test_chunks_join_to_the_text(text: str, size: int, least: int) -> None:
    for counter in (WORDS, IDS):
        chunks, total = chunk_text(text, counter, size, least), counter.count(text)
        if not total:
            assert chunks == []
            continue
        assert "".join(c.of(text) for c in chunks) == text
        if least <= 1:
            assert len(chunks) == -(-total // size)
        sizes = [c.end_tok - c.start_tok for c in chunks]
        assert sum(sizes) == total
        assert set(sizes[:-1]) <= {size}
        assert len(chunks) == 1 or sizes[-1] >= min(least, size)


def test_a_short_end_joins_the_chunk_before() -> None:
    text = " ".join("abcdefg")
    assert [c.of(text) for c in chunk_text(text, WORDS, 3, 2)] == ["a b c ", "d e f g"]
    assert [c.of(text) for c in chunk_text(text, WORDS, 3)] == ["a b c ", "d e f ", "g"]
    with pytest.raises(ValueError, match="size=0"):
        chunk_text(text, WORDS, 0)
