"""Ends of tokens: every script, composed or not, and every kind of vocabulary."""

import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.text.offsets import (
    byte_ends,
    composed_byte_ends,
    sentence_token_ends,
    span_token_ends,
    token_ends,
    tokens_until,
)
from longctx.text.tokenize import Tokenizer, load_tokenizer

TEXTS = [
    "The tide turned. Nobody saw it, but the reef did.\n\n    def f(x):\n        return x\n",
    "파도가 바뀌었다. 아무도 보지 못했지만 산호초는 보았다.",
    "潮水转向了。没有人看见，但珊瑚礁看见了。東京、한국어、ไทย",
    "🦀 crabs 👩‍👩‍👧‍👦 and 🏳️‍🌈 flags ‘quoted’… ꙮ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "x",
]
DECOMPOSED = [unicodedata.normalize("NFD", t) for t in ("café naïve Ångström", "산호초 파도", "q̣̇a")]


@pytest.fixture(scope="module")
def embedded() -> Tokenizer:
    return load_tokenizer("embedded")


def trained(folder: Path, kind: str) -> Tokenizer:
    """A small vocabulary of each family, saved and loaded as a user's would be."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": 500, "special_tokens": ["</s>", "[UNK]"], "show_progress": False}
    if kind == "wordpiece":
        fast = Fast(models.WordPiece(unk_token="[UNK]"))
        fast.normalizer = normalizers.BertNormalizer(lowercase=True)
        fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        fast.train_from_iterator(TEXTS * 3, trainers.WordPieceTrainer(**options))
    elif kind == "fallback":
        pieces = [f"<0x{b:02X}>" for b in range(256)]
        vocab = {t: i for i, t in enumerate(["</s>", *pieces, "▁", *"abcdefghijklmnoprstuvwxy."])}
        fast = Fast(models.BPE(vocab=vocab, merges=[], byte_fallback=True, fuse_unk=True))
        fast.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    else:
        fast = Fast(models.BPE())
        fast.normalizer = normalizers.NFC() if kind == "nfc" else None
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "prefix")
        fast.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **options)
        fast.train_from_iterator([t for t in TEXTS if t.isascii()] * 9, trainer)
    fast.save(str(folder / f"{kind}.json"))
    return load_tokenizer(str(folder / f"{kind}.json"))


def prefixes(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ends found the slow way: what the ids up to each token decode to, bytes of one character as
    one replacement character."""
    (ids,) = tokenizer.encode_batch([text])
    decoded = [tokenizer.decode(ids[: i + 1]) for i in range(len(ids))]
    return [len(re.sub("\ufffd+$", "?", d)) for d in decoded]


@pytest.mark.parametrize("text", TEXTS)
def test_ends_are_those_of_the_decoded_beginning(embedded, text):
    (ids,) = embedded.encode_batch([text])
    ends = token_ends(embedded, ids, text)
    assert ends.dtype == np.int64
    assert ends.tolist() == prefixes(embedded, text)
    assert ends[-1] == len(text)


def test_a_border_inside_a_character_goes_to_the_token_that_completes_it(embedded):
    text = "a 𝔘 b"
    (ids,) = embedded.encode_batch([text])
    ends = token_ends(embedded, ids, text)
    assert (ends == 3).sum() > 1  # the letter takes several tokens
    for border in (2, 3):
        (count,) = tokens_until(ends, [border])
        assert embedded.decode(ids[:count]) == "a 𝔘"


@pytest.mark.parametrize("text", DECOMPOSED)
def test_ends_in_a_text_that_is_not_composed(embedded, text):
    (ids,) = embedded.encode_batch([text])
    ends = token_ends(embedded, ids, text)
    assert ends[-1] == len(text)
    for i, end in enumerate(ends.tolist()):
        (count,) = tokens_until(ends, [end])
        assert count > i
        assert embedded.decode(ids[:count]) == unicodedata.normalize("NFC", text[:end])


@given(st.text("abẹ́́̇각ᄀ ᅡᆨ가Å∘ਖ਼़〲 ゙か1", max_size=30), st.data())
@settings(max_examples=300, deadline=None)
def test_runs_compose_to_the_whole(text, data):
    composed = unicodedata.normalize("NFC", text)
    sizes = np.array([len(c.encode()) for c in composed], dtype=np.int64)
    ends = composed_byte_ends(sizes, text)
    assert len(ends) == len(composed)
    assert (np.diff(ends) >= 0).all()
    assert not len(ends) or ends[-1] == len(text)
    for i in data.draw(st.sets(st.integers(0, max(0, len(ends) - 1)), max_size=3)):
        if len(ends):
            before = unicodedata.normalize("NFC", text[: ends[i]])
            assert composed.startswith(before)
            assert len(before) >= i + 1


@pytest.mark.parametrize("kind", ["bytes", "nfc", "prefix", "wordpiece", "fallback"])
def test_any_vocabulary(tmp_path, kind):
    tokenizer = trained(tmp_path, kind)
    for text in [*TEXTS, *DECOMPOSED, "the tide " * 3]:
        (ids,) = tokenizer.encode_batch([text])
        ends = token_ends(tokenizer, ids, text)
        assert len(ends) == len(ids)
        assert (np.diff(ends) >= 0).all()
        assert ends[0] >= 0
        assert ends[-1] == len(text.rstrip() if kind == "wordpiece" else text)
        if kind == "bytes":
            assert ends.tolist() == prefixes(tokenizer, text)


def test_both_ways_through_a_byte_level_vocabulary_agree(tmp_path):
    tokenizer = trained(tmp_path, "bytes")
    for text in TEXTS:
        (ids,) = tokenizer.encode_batch([text])
        offsets = tokenizer._ends_by_offsets(ids, text)  # type: ignore[attr-defined]
        assert token_ends(tokenizer, ids, text).tolist() == offsets.tolist()


def test_long_texts_are_read_in_the_slices_they_were_encoded_in(tmp_path, embedded):
    text = "The tide turned. " * 20_000
    for tokenizer in (embedded, trained(tmp_path, "prefix"), trained(tmp_path, "wordpiece")):
        (ids,) = tokenizer.encode_batch([text])
        ends = token_ends(tokenizer, ids, text)
        assert ends[-1] >= len(text) - 1
        (count,) = tokens_until(ends, [len("The tide turned. ") * 15_000 - 1])
        assert tokenizer.decode(ids[:count]).replace(" ", "").endswith("turned.")


def test_added_tokens_count_by_their_own_bytes(tmp_path):
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Fast

    trained(tmp_path, "bytes")
    fast = Fast.from_file(str(tmp_path / "bytes.json"))
    fast.add_tokens([AddedToken("▁▁▁", normalized=False, special=False)])
    fast.save(str(tmp_path / "added.json"))
    tokenizer = load_tokenizer(str(tmp_path / "added.json"))
    text = "a▁▁▁b é"
    (ids,) = tokenizer.encode_batch([text])
    assert fast.token_to_id("▁▁▁") in ids
    assert token_ends(tokenizer, ids, text).tolist() == prefixes(tokenizer, text)


def test_ids_of_another_text_are_refused(tmp_path, embedded):
    for tokenizer in (embedded, trained(tmp_path, "bytes"), trained(tmp_path, "wordpiece")):
        (ids,) = tokenizer.encode_batch(["the tide turned"])
        with pytest.raises(ValueError, match="the ids"):
            token_ends(tokenizer, ids, "another text altogether, and longer")


def test_no_tokens_no_ends(embedded):
    assert token_ends(embedded, np.zeros(0, dtype=np.int32), "").tolist() == []
    assert byte_ends(np.zeros(0, dtype=np.int64), "").tolist() == []
    assert tokens_until(np.zeros(0, np.int64), [0, 3]).tolist() == [0, 0]
    assert sentence_token_ends(embedded, np.zeros(0, dtype=np.int32), "").tolist() == []


def test_tokens_until_borders():
    ends = np.array([3, 3, 5, 9])
    assert tokens_until(ends, [0, 1, 3, 4, 5, 6, 9, 12]).tolist() == [0, 2, 2, 3, 3, 4, 4, 4]


def sentences(tokenizer: Tokenizer, text: str) -> list[str]:
    """The text of the tokens between sentence ends."""
    (ids,) = tokenizer.encode_batch([text])
    cuts = [0, *sentence_token_ends(tokenizer, ids, text).tolist()]
    assert cuts[-1] == len(ids)
    return [tokenizer.decode(ids[a:b]) for a, b in pairwise(cuts)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The tide turned. Nobody saw it.", ["The tide turned.", " Nobody saw it."]),
        ("It turned.\n\nNobody saw. ", ["It turned.\n\n", "Nobody saw. "]),
        ("潮水转向了。没有人看见。", ["潮水转向了。", "没有人看见。"]),
        ("파도가 바뀌었다. 아무도 보지 못했다.", ["파도가 바뀌었다.", " 아무도 보지 못했다."]),
        ("A crab! 🦀🦀! 𝔘 was it?", ["A crab!", " 🦀🦀!", " 𝔘 was it?"]),
    ],
)
def test_tokens_between_sentence_ends_are_sentences(embedded, text, found):
    assert sentences(embedded, text) == found


def test_white_space_that_is_a_token_stays_with_the_sentence_before_it():
    ends = np.array([1, 2, 3, 5, 6])
    assert span_token_ends(ends, "A.  B.", [(0, 4), (4, 6)]).tolist() == [3, 5]


def test_a_sentence_that_ends_inside_a_token_ends_with_it():
    ends = np.array([1, 4, 6])
    assert span_token_ends(ends, "A。B。C。", [(0, 2), (2, 4), (4, 6)]).tolist() == [2, 2, 3]


def test_a_token_that_begins_the_next_character_is_no_place_to_cut():
    # The second token is a space and the first bytes of the letter, the third the rest of it.
    ends = np.array([2, 4, 4, 5])
    assert span_token_ends(ends, "A. 𝔘.", [(0, 3), (3, 5)]).tolist() == [1, 4]
