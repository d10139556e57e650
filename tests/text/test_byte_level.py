"""The fast encoder of a `tokenizer.json`: the same ids, or none at all."""

import json
from pathlib import Path

import numpy as np
import pytest

from longctx.text import byte_level, tokenizer_json
from longctx.text.byte_level import difference, fast_encoder, spelled, spelled_bytes
from longctx.text.probes import PROBES
from longctx.text.tokenize import load_tokenizer

LINES = [
    "the quick brown fox jumps over the lazy dog, 1234 times in 2026!",
    "def f(x):\n    return x  # it's what we'll do\n",
    "빠른 갈색 여우 敏捷的棕色狐狸 быстрая лиса été Straße",
]


def trained(folder: Path, pre_tokenizer=None, **model) -> Path:
    """A byte-level BPE of 900 tokens, with changes to its description, as a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 20, trainer)
    described = json.loads(tokenizer.to_str())
    if pre_tokenizer is not None:
        described["pre_tokenizer"] = pre_tokenizer
    for name, value in model.items():
        described[name] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def split(pattern: str) -> dict:
    return {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": pattern},
                "behavior": "Isolated",
                "invert": False,
            },
            {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": False,
            },
        ],
    }


QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pre_tokenizer": split(QWEN)},
        {"pre_tokenizer": split(QWEN), "normalizer": {"type": "NFC"}},
    ],
    ids=["gpt2", "qwen", "qwen-nfc"],
)
def test_ids_are_those_of_tokenizers_on_every_probe(tmp_path, changes):
    tokenizer = load_tokenizer(str(trained(tmp_path / "model", **changes)))
    assert tokenizer.accelerated
    texts = [*PROBES, *LINES, " ".join(LINES) * 50]
    fast, slow = tokenizer.encode_batch(texts), tokenizer.by_tokenizers(texts)
    assert [f.tolist() for f in fast] == [s.tolist() for s in slow]
    assert {f.dtype for f in fast} == {np.dtype(np.int32)}
    assert tokenizer.eos_id not in np.concatenate(fast)


def test_added_tokens_that_are_vocabulary_are_taken_whole(tmp_path):
    folder = trained(tmp_path / "model")
    described = json.loads((folder / "tokenizer.json").read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    described["added_tokens"].append({"id": 900, "content": "    ", "special": False, **plain})
    (folder / "tokenizer.json").write_text(json.dumps(described))
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.accelerated
    text = "def f(x):\n        return <|endoftext|>"
    (fast,), (slow,) = tokenizer.encode_batch([text]), tokenizer.by_tokenizers([text])
    assert fast.tolist() == slow.tolist()
    assert fast.tolist().count(tokenizer._tokenizer.token_to_id("    ")) == 2
    assert tokenizer.eos_id not in fast


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}},
        {"normalizer": {"type": "Lowercase"}},
    ],
)
def test_what_it_cannot_express_is_left_to_tokenizers(tmp_path, changes):
    tokenizer = load_tokenizer(str(trained(tmp_path / "model", **changes)))
    assert not tokenizer.accelerated
    (one,), (two,) = tokenizer.encode_batch([LINES[0]]), tokenizer.by_tokenizers([LINES[0]])
    assert one.tolist() == two.tolist()


def test_an_encoder_with_other_ids_is_not_used(tmp_path, monkeypatch):
    """The GPT-2 pattern in place of the vocabulary's own: only a comparison can tell."""
    monkeypatch.setattr(byte_level, "_pattern", lambda _: byte_level.GPT2_PATTERN)
    folder = trained(tmp_path / "model", pre_tokenizer=split(QWEN))
    tokenizer = load_tokenizer(str(folder))
    assert not tokenizer.accelerated
    (found,) = (tmp_path / "cache" / "longctx" / "tokenizers").iterdir()
    assert found.read_text().startswith("different: ")


def test_merges_in_another_order_than_ids_give_the_same_ids(tmp_path):
    """Merge order and ids agree in most vocabularies; nothing says that they must."""
    folder = trained(tmp_path / "model")
    described = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = described["model"]["vocab"]
    learnt = sorted((i, t) for t, i in vocabulary.items() if i > 256)
    for (i, _), (_, token) in zip(learnt, reversed(learnt), strict=True):
        vocabulary[token] = i
    (folder / "tokenizer.json").write_text(json.dumps(described))
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.accelerated
    fast, slow = tokenizer.encode_batch(LINES), tokenizer.by_tokenizers(LINES)
    assert [f.tolist() for f in fast] == [s.tolist() for s in slow]


def test_a_pattern_that_only_tokenizers_knows_is_left_to_it(tmp_path, monkeypatch):
    import tiktoken

    def refuse(*args, **fields):
        raise ValueError("error in the regular expression")

    monkeypatch.setattr(tiktoken, "Encoding", refuse)
    assert not load_tokenizer(str(trained(tmp_path / "model"))).accelerated


def test_a_text_that_the_fast_encoder_gives_up_on_is_encoded_all_the_same(tmp_path):
    unknown = QWEN.replace(r"\p{N}|", r"\p{N}{1,4}|")
    tokenizer = load_tokenizer(str(trained(tmp_path / "model", pre_tokenizer=split(unknown))))
    assert tokenizer.accelerated
    text = " " * 1_000_000 + "x"
    with pytest.raises(ValueError, match="stack size"):
        tokenizer._fast(text)
    found = tokenizer._encode_fast(tokenizer._fast, text)
    assert found.tolist() == tokenizer._encode([text])[0].tolist()


def test_the_comparison_is_made_once_for_a_fingerprint(tmp_path, monkeypatch):
    folder = trained(tmp_path / "model")
    made = []
    monkeypatch.setattr(tokenizer_json, "difference", lambda *args: made.append(1))
    for _ in range(2):
        load_tokenizer.cache_clear()
        assert load_tokenizer(str(folder)).accelerated
    assert made == [1]
    described = json.loads((folder / "tokenizer.json").read_text())
    del described["model"]["merges"][-1]
    (folder / "tokenizer.json").write_text(json.dumps(described))
    load_tokenizer.cache_clear()
    load_tokenizer(str(folder))
    assert made == [1, 1]


def test_difference_names_the_first_probe_that_differs():
    def slow(texts: list[str]) -> list[np.ndarray]:
        return [np.array([len(t), t.count("lazy") - t.count("the lazy")]) for t in texts]

    def fast(text: str) -> np.ndarray:
        return np.array([len(text), 0])

    assert difference(lambda text: slow([text])[0], slow, ["a", "b"]) is None
    assert difference(fast, slow, ["a", spelled(b" hazy")]) is None
    assert difference(fast, slow, ["a", spelled(b" lazy")]) == " lazy"
    assert difference(fast, slow, ["a"], ["lazy"]) == "alazylazy lazy b"


def test_bytes_and_their_spelling():
    assert spelled(b"a b\n\x00\xff") == "aĠbĊĀÿ"
    assert spelled_bytes(spelled(bytes(range(256)))) == bytes(range(256))
    assert spelled_bytes("a b") is None


def test_a_tokenizer_of_another_kind_has_no_fast_encoder():
    assert fast_encoder({"model": {"type": "WordPiece", "vocab": {}}}) is None
    assert fast_encoder({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}) is None
