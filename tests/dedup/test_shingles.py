import hashlib
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.dedup import kernel
from longctx.dedup.blake2b import hash_rows
from longctx.dedup.chartable import ABSORBED, ABSORBS, UNSAFE, char_table
from longctx.dedup.shingles import (
    normalise_by_reference,
    shingle_values,
    shingles,
    text_shingles,
    token_hashes,
)
from longctx.ids import h64, mix64
from longctx.text.normalise import dedup_tokens, norm_dedup

# Characters that meet each rule of the scanner: numbers, marks, jamo, sigma, two-part vowels,
# musical signs that decompose, unspaced scripts, every width of UTF-8.
HARD = (
    "aZ09.,٣ \n_é\u0301İΣσς\u1100\u1161\u11a8가각한東へ·\u09c7\u09be\u0bc6\u0bbeΩÅ\ufa6c\U0002f800"
    "\U0001d15e\U0001d165\u302e—\U00010400𝟘ẞﬁⅧ\u0e01\u0e31\u200b\u0344\0"
)
texts = st.one_of(
    st.text(st.sampled_from(HARD), max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)


def reference_hashes(text: str, profile="text") -> list[int]:
    return [h64(token.encode()) for token in dedup_tokens(text, profile)]


def test_hashes_of_the_specification():
    assert token_hashes("The CAT!").tolist() == [3331141520948189790, 3429664268601861939]


def test_shingles_of_the_specification():
    assert shingles(["the", "cat"], 2).tolist() == [16553816895296956961]
    assert shingles(["the", "quick", "brown", "fox", "jumps"], 5).tolist() == [12327514169205513661]


def test_short_texts_give_one_shingle_and_empty_ones_none():
    assert shingles(["the", "cat"], 5).tolist() == shingles(["the", "cat"], 2).tolist()
    assert shingles(["the"], 5).tolist() == mix64(np.array([h64(b"the")], np.uint64)).tolist()
    assert shingles([], 5).size == 0
    with pytest.raises(ValueError, match="n=0"):
        shingle_values(np.array([1], np.uint64), 0)


def test_shingles_are_a_set_and_values_keep_positions():
    hashes = token_hashes("a b a b a")
    assert shingle_values(hashes, 2).size == 4
    assert text_shingles("a b a b a", 2).size == 2


@pytest.mark.parametrize("width", [0, 1, 8, 37, 127, 128, 129, 256, 300])
def test_compiled_blake2b_equals_hashlib(width: int):
    rows = np.random.default_rng(width).integers(0, 256, (4, width), dtype=np.uint8)
    expected = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    assert hash_rows(rows).astype("<u8").tobytes() == b"".join(expected)


@given(texts)
@settings(max_examples=1000, deadline=None)
def test_the_scanner_equals_the_reference(text: str):
    assert token_hashes(text).tolist() == reference_hashes(text)
    assert token_hashes(text, "code").tolist() == reference_hashes(text, "code")


def _is_worth_a_test(char: str) -> bool:
    """Everything assigned but the middle of the large blocks of ideographs and syllables."""
    alike = ("\u3410", "\u9ff0"), ("\uac20", "\ud7a0"), ("\U00017010", "\U00018cff")
    alike = (*alike, ("\U00020010", "\U0002f7ff"), ("\U00030010", "\U0003ffff"))
    if any(low <= char <= high for low, high in alike):
        return False
    return unicodedata.category(char) not in ("Cn", "Co", "Cs")


@given(texts, st.integers(1, 5))
@settings(max_examples=500, deadline=None)
def test_the_reference_in_pieces_equals_the_reference(text: str, piece: int):
    assert normalise_by_reference(text, "text", piece) == norm_dedup(text)


def test_every_character_alone_and_between_letters():
    usual = [chr(c) for c in range(sys.maxunicode + 1) if _is_worth_a_test(chr(c))]
    text = " ".join(f"{c} x{c}y 3{c}4" for c in usual)
    table = char_table("text")
    plain = "".join(c for c in text if table[ord(c)] >> 21 & 7 != UNSAFE)
    assert len(plain) > 0.99 * len(text)
    assert token_hashes(plain).tolist() == reference_hashes(plain)


def test_pairs_that_compose_are_sent_to_the_reference():
    table = char_table("text")
    for first, second in ["\u1100\u1161", "가\u11a8", "\u09c7\u09be", "\u0bc6\u0bbe"]:
        assert table[ord(first)] & ABSORBS
        assert table[ord(second)] & ABSORBED
        assert token_hashes(first + second).tolist() == reference_hashes(first + second)
        apart = f"{second}{first} {second}"
        assert token_hashes(apart).tolist() == reference_hashes(apart)


def test_texts_longer_than_a_slice_and_tokens_longer_than_a_slot():
    text = " ".join(
        ["word", "東京", "x" * 47, "x" * 48, "x" * 49, "é" * 200, "1,5a1,5a1,5."] * 2500
    )
    assert token_hashes(text).tolist() == reference_hashes(text)


def test_the_cache_tells_tokens_with_equal_slots_apart():
    cache = kernel.token_cache()
    token = np.zeros(64, np.uint8)
    room = np.empty(kernel.SLICE, np.uint64)
    table = char_table("text")
    # A slot whose stored token differs but whose place is the same must not answer.
    data = np.frombuffer(b"planted", np.uint8)
    kernel.scan(data, 0, 7, table, token, cache, room, 0)
    (slot,) = np.flatnonzero(cache[:, 6])
    cache[slot, 0] ^= np.uint64(1)
    cache[slot, 7] = np.uint64(0)
    kernel.scan(data, 0, 7, table, token, cache, room, 0)
    assert room[0] == h64(b"planted")


def test_more_distinct_tokens_than_the_cache_holds():
    letters = "abcdefghijklmnop"
    text = " ".join(
        "".join(letters[i >> shift & 15] for shift in (0, 4, 8, 12, 16)) for i in range(140_000)
    )
    assert len(set(text.split())) > 1 << 16
    assert token_hashes(text).tolist() == reference_hashes(text)
