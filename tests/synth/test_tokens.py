"""Counters of tokens: numbers that agree with the tokenizer, offsets that slice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.errors import RunError
from longctx.synth.tokens import token_counter

TEXTS = [
    "",
    "One two  three.\n",
    " 他来了。 She left — naïve café 🦜🏽 𠮷野家",
    "e\u0301 a\u0308b",
    "\n\n x",
]


def test_whitespace_counts_runs() -> None:
    counter = token_counter("whitespace")
    assert counter.count("  One two\n three ") == 3
    assert counter.encode("  One two\n One ").offsets.tolist() == [2, 6, 11]
    ids = counter.encode("One two One").ids
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize("spec", ["whitespace", "embedded"])
@pytest.mark.parametrize("text", TEXTS)
def test_offsets_slice_the_text(spec: str, text: str) -> None:
    counter = token_counter(spec)
    ids, offsets = counter.encode(text)
    assert len(ids) == len(offsets) == counter.count(text)
    assert (offsets[1:] >= offsets[:-1]).all()
    assert all(0 <= at < len(text) for at in offsets)


def test_a_token_inside_a_character_begins_with_it() -> None:
    text = "ab 🦜🏽𠮷 c"
    ids, offsets = token_counter("embedded").encode(text)
    assert len(ids) > len(set(offsets.tolist()))
    assert set(offsets.tolist()) <= set(range(len(text)))
    assert text.index("𠮷") in offsets.tolist() or text.index("🦜") in offsets.tolist()


@settings(deadline=None)  # the tokenizer is loaded by the first
@given(st.text(max_size=60))
def test_any_text_has_sound_offsets(text: str) -> None:
    counter = token_counter("embedded")
    ids, offsets = counter.encode(text)
    assert len(ids) == len(offsets)
    assert (offsets[1:] >= offsets[:-1]).all()
    assert all(0 <= at < len(text) for at in offsets)


def test_no_tokenizer_there() -> None:
    with pytest.raises(RunError, match="no tokenizer at"):
        token_counter("/nowhere/tokenizer.json")
