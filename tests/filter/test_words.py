"""Words as numbers: those of `longctx.text.normalise.words`, whatever the room they start with."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.filter import words as module
from longctx.filter.words import STOP_WORDS, Words, totals
from longctx.text.normalise import is_symbol, words
from longctx.text.utf8 import as_utf8

texts = st.text() | st.text("ab'’é日.…_ \n\u3000\x1c\u2028²", max_size=80)


def strings(found: Words) -> list[str]:
    known = found.vocabulary
    return [known.text[known.bounds[w] : known.bounds[w + 1]].tobytes().decode() for w in found.ids]


@given(texts, st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_words_and_their_places_are_those_of_the_text(text, every):
    found, marks = Words.marked(text, every)
    expected = words(text)
    assert strings(found) == expected
    assert [found.vocabulary.lengths[w] for w in found.ids] == list(map(len, expected))
    plain = [i for i, word in enumerate(expected) if not is_symbol(word)]
    assert marks.words.tolist() == plain[::every]
    data = as_utf8(text)
    for number, at_byte, at_char in zip(*marks, strict=True):
        assert text[at_char:].startswith(expected[number])
        assert data[at_byte:].tobytes().decode() == text[at_char:]


@given(texts | st.lists(st.sampled_from([*STOP_WORDS, "The", "x", "."])).map(" ".join))
@settings(max_examples=200, deadline=None)
def test_totals_are_those_of_the_strings(text):
    found = words(text)
    plain = [word for word in found if not is_symbol(word)]
    alpha = sum(any(map(str.isalpha, word)) for word in found)
    stops = len(set(found) & set(STOP_WORDS))
    assert totals(Words.of(text)) == (len(plain), sum(map(len, plain)), alpha, stops)


def test_equal_words_have_one_number_and_stop_words_the_first():
    found = Words.of("the cat and the dog and it")
    assert found.ids.tolist() == [0, 8, 4, 0, 9, 4, 10]


def test_a_vocabulary_grows_in_every_direction(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_ROOM", 8)
    text = " ".join([f"w{i}" for i in range(5000)] + ["y" * 100_000, "w7", "z" * 70_000])
    found, marks = Words.marked(text, 1)
    assert strings(found) == text.split(" ")
    assert len(marks.words) == len(found) == 5003
    assert found.ids[5001] == found.ids[7]


def test_a_text_that_is_too_long_for_32_bits_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="11 bytes"):
        Words.of("x" * 11)
