"""N-gram repetition: equal to a direct transcription of the rules in strings."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.filter import repetition
from longctx.filter.repetition import DUP_N, TOP_N, repeated_characters
from longctx.filter.words import Words
from longctx.text.normalise import words


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


def test_groups_of_hashes_find_the_same_n_gram(monkeypatch):
    text = "c d a b c d a b e f e f " * 3 + "x y z"
    expected = by_strings(text)
    for size in (1, 2, 7, 50):
        monkeypatch.setattr(repetition, "_GROUP", size)
        assert repeated_characters(Words.of(text)) == expected


def test_collisions_of_every_hash_change_nothing():
    text = "to be or not to be that is the question " * 7 + "whether tis nobler in the mind"
    found = Words.of(text)
    known = found.vocabulary
    same = known._replace(hashes=np.zeros_like(known.hashes))
    assert repeated_characters(replace(found, vocabulary=same)) == by_strings(text)


def test_blocks_of_hashes_meet_without_a_seam():
    rng = np.random.default_rng(1)
    text = " ".join(rng.choice(["a", "bc", "d" * 200, "b c", "efg"], 9000))
    assert repeated_characters(Words.of(text)) == by_strings(text)


def test_words_longer_than_the_known_powers_join_with_others():
    long = "x" * 3000
    text = f"{long} a b c d e. " * 2 + f"{long[:1500]} {long[:1500]} a b c d e."
    assert repeated_characters(Words.of(text)) == by_strings(text)


def test_a_slice_repeats_like_its_own_text():
    text = "the cat sat on the mat. the cat sat on the mat. it purred and then it slept. " * 3
    found, first, last = Words.of(text), 5, 40
    starts = [match.start() for match in re.finditer(r"\w+|\.", text)]
    inside = text[starts[first] : starts[last]]
    assert repeated_characters(found.slice(first, last)) == by_strings(inside)
