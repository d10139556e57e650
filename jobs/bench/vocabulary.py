"""The embedded vocabulary as a `tokenizer.json`, so that both programs can be compared on it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from longctx.text.byte_level import spelled


def write_json(encoding: Any, folder: Path) -> Path:
    """Write a tiktoken encoding as a byte-level BPE with NFC; a token's merge is its last one.

    Some vocabularies hold words that no merges lead to; both programs take them where they are a
    whole piece of text.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as pre

    ranks: dict[bytes, int] = encoding._mergeable_ranks
    vocabulary = {spelled(token): rank for token, rank in ranks.items()}
    joined = sorted((rank, token) for token, rank in ranks.items() if len(token) > 1)
    found = (last_merge(token, rank, ranks) for rank, token in joined)
    merges = [(spelled(pair[0]), spelled(pair[1])) for pair in found if pair is not None]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre.Sequence(
        [
            pre.Split(Regex(encoding._pat_str), behavior="isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    named = sorted(encoding._special_tokens.items(), key=lambda item: item[1])
    tokenizer.add_special_tokens([AddedToken(content, special=True) for content, _ in named])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens that byte pair encoding joins to this one at last; None if it never does."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joints = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        at = joints.index(min(joints))
        if joints[at] >= rank:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]
