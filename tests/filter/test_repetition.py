"""N-gram repetition: equal to a direct transcription of the rules in strings."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.filter import repetition
from longctx.filter.repetition import DUP_N, TOP_N, Words, repeated_characters
from longctx.text.normalise import is_symbol, words


def top_by_strings(found: list[str], n: int) -> int:
    grams = [" ".join(found[i : i + n]) for i in range(len(found) - n + 1)]
    if not grams:
        return 0
    best, count = Counter(grams).most_common(1)[0]  # ties: first met first
    return len(best) * count


def dup_by_strings(found: list[str], n: int) -> int:
    seen: set[str] = set()
    repeated, i = 0, 0
    while i + n <= len(found):
        gram = "".join(found[i : i + n])
        if gram in seen:
            repeated += len(gram)
            i += n
        else:
            seen.add(gram)
            i += 1
    return repeated


def by_strings(text: str) -> dict[str, int]:
    found = words(text)
    tops = {f"top_{n}": top_by_strings(found, n) for n in TOP_N}
    return tops | {f"dup_{n}": dup_by_strings(found, n) for n in DUP_N}


def test_worked_example():
    repeated = repeated_characters(Words.of("a b c d e a b c d e"))
    assert repeated["dup_5"] / 19 == pytest.approx(0.2632, abs=1e-4)
    assert repeated["top_2"] / 19 == pytest.approx(0.3158, abs=1e-4)


@given(st.text("ab' \n.日_é", max_size=120))
@settings(max_examples=400, deadline=None)
def test_equal_to_the_rules_in_strings(text):
    assert repeated_characters(Words.of(text)) == by_strings(text)


def test_words_joined_without_spaces_are_equal_however_they_were_cut():
    text = "ab c x y z w. a bc x y z w."
    assert repeated_characters(Words.of(text)) == by_strings(text)
    assert dup_by_strings(words(text), 6) > 0


def test_collisions_of_every_hash_change_nothing():
    text = "to be or not to be that is the question " * 7 + "whether tis nobler in the mind"
    found = Words.of(text)
    n_words = len(found)
    same = np.zeros(n_words, np.uint64)
    for n in TOP_N:
        assert repetition._top(found.ids, found.bounds, same, same, n) == top_by_strings(
            words(text), n
        )
    for n in DUP_N:
        assert repetition._dup(found.codes, found.bounds, same, same, n) == dup_by_strings(
            words(text), n
        )


@given(st.text("ab'é日.…_ \n\u3000\x1c\u2028", max_size=80), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_words_are_those_of_the_text_however_it_is_sliced(text, size):
    limit, repetition._SLICE = repetition._SLICE, size
    try:
        found = Words.of(text)
        assert "".join(repetition.slices_at_spaces(text)) == text
    finally:
        repetition._SLICE = limit
    expected = words(text)
    lengths = np.diff(found.bounds).tolist()
    places = zip(found.starts.tolist(), lengths, strict=True)
    assert [text[start : start + length] for start, length in places] == expected
    assert found.symbol.tolist() == [is_symbol(word) for word in expected]
    assert found.alpha.tolist() == [any(c.isalpha() for c in word) for word in expected]


def test_a_slice_repeats_like_its_own_text():
    text = "the cat sat on the mat. the cat sat on the mat. it purred and then it slept. " * 3
    found = Words.of(text)
    first, last = 5, 40
    inside = text[found.starts[first] : found.starts[last]]
    assert repeated_characters(found.slice(first, last)) == by_strings(inside)
