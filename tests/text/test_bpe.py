"""The compiled encoder: tiktoken's ids for any text, vocabulary and pattern that it takes."""

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longctx.text import bpe
from longctx.text.bpe import compiled_encoder
from longctx.text.bpe_pieces import KNOWN
from longctx.text.probes import PROBES
from longctx.text.tokenize import load_tokenizer

PATTERNS = sorted(KNOWN)
BYTES = [bytes([byte]) for byte in range(256)]
# What decides where pieces end: kinds of characters of one to four bytes, and contractions.
ALPHABET = "aſsStTrRevVEmMlLdD'’12٣½Ⅷ \t\n\r\u00a0\u3000\u0085\x1c.!—的한é\u0301\u093f😀𝔘\x00\u200d"


def numbered(tokens: list[bytes]) -> dict[bytes, int]:
    return {token: number for number, token in enumerate(dict.fromkeys([*BYTES, *tokens]))}


def by_tiktoken(pattern: str, numbers: dict[bytes, int]):
    encoding = tiktoken.Encoding(
        "test", pat_str=pattern, mergeable_ranks=numbers, special_tokens={}
    )
    return lambda text: encoding.encode_to_numpy(text, disallowed_special=())


@pytest.fixture(scope="module")
def vocabulary() -> dict[bytes, int]:
    return load_tokenizer("embedded")._encoding._mergeable_ranks


@pytest.fixture(scope="module", params=PATTERNS, ids=range(len(PATTERNS)))
def pair(request, vocabulary):
    compiled = compiled_encoder(request.param, vocabulary)
    assert compiled is not None
    return compiled, by_tiktoken(request.param, vocabulary)


def test_the_patterns_are_those_of_the_vocabularies_that_have_them():
    embedded = load_tokenizer("embedded")
    llama = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    assert embedded._encoding._pat_str in KNOWN
    assert KNOWN[llama].digits == 3
    assert KNOWN[llama.replace("{1,3}", "")].digits == 1


def test_probes_and_every_character_have_the_ids_of_tiktoken(pair):
    compiled, reference = pair
    characters = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    beside = "".join(f"{c}a 1{c}.\n" for c in characters[: 1 << 13])
    for text in (*PROBES, " ".join(PROBES), characters, beside):
        assert np.array_equal(compiled(text), reference(text))


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(ALPHABET), max_size=40) | st.text(max_size=40))
@example("'ſ'ſx'LLa'Ved'r'R'")
@example(" \n \n  a\r\n\t\n 1  . \u3000x\u3000\n")
def test_any_text_has_the_ids_of_tiktoken(pair, text):
    compiled, reference = pair
    found = compiled(text)
    assert found.dtype == np.int32
    assert np.array_equal(found, reference(text))


def test_every_token_of_the_vocabulary_alone_and_beside_others(vocabulary):
    pattern = load_tokenizer("embedded")._pattern
    compiled, reference = compiled_encoder(pattern, vocabulary), by_tiktoken(pattern, vocabulary)
    words = [token.decode("utf-8", "ignore") for token in vocabulary]
    shuffled = [words[i] for i in np.random.default_rng(0).permutation(len(words))]
    for text in ("\n".join(words), "".join(shuffled), "|".join(shuffled)):
        assert np.array_equal(compiled(text), reference(text))


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.lists(st.text("ab é的", min_size=2, max_size=24).map(str.encode), max_size=60),
    cuts=st.lists(st.integers(0, 8), max_size=60),
    text=st.text("ab é的", max_size=300),
)
def test_vocabularies_that_no_training_makes(tokens, cuts, text):
    """Numbers in no order of length, tokens that end inside of characters, tokens of 50 bytes."""
    parts = [token[cut:] for token, cut in zip(tokens, cuts, strict=False) if token[cut:]]
    numbers = numbered([*tokens, *parts])
    compiled, reference = compiled_encoder(PATTERNS[0], numbers), by_tiktoken(PATTERNS[0], numbers)
    for _ in range(2):  # the second time from the words that it knows
        assert np.array_equal(compiled(text), reference(text))


@pytest.mark.parametrize("unit", ["x", "ab", "的", "한국", " ", "\n", "="])
def test_pieces_without_end(vocabulary, unit):
    pattern = load_tokenizer("embedded")._pattern
    compiled, reference = compiled_encoder(pattern, vocabulary), by_tiktoken(pattern, vocabulary)
    for text in (unit * 40_000, f"a {unit * 1000} b{unit * 70}"):
        assert np.array_equal(compiled(text), reference(text))


def test_words_that_push_each_other_out_keep_their_ids(vocabulary, monkeypatch):
    monkeypatch.setattr(bpe, "_WORDS", 2)
    pattern = load_tokenizer("embedded")._pattern
    compiled, reference = compiled_encoder(pattern, vocabulary), by_tiktoken(pattern, vocabulary)
    words = ["".join(w) for w in np.random.default_rng(0).choice(list("abcdeféß的"), (300, 6))]
    text = " ".join(words * 3)
    assert np.array_equal(compiled(text), reference(text))


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        (r"\S+|\s+", numbered([])),
        (PATTERNS[0], {token: 2 * k for k, token in enumerate(BYTES)}),
        (PATTERNS[0], {token: k for k, token in enumerate(BYTES[:-1])}),
    ],
    ids=["pattern", "numbers with gaps", "a byte is missing"],
)
def test_what_could_not_be_exact_is_refused(pattern, numbers):
    assert compiled_encoder(pattern, numbers) is None
