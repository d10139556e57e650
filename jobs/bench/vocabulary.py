"""The embedded vocabulary as a `tokenizer.json`, so that both programs can be compared on it."""

from pathlib import Path
from typing import Any

from longctx.text.byte_level import spelled


def write_json(encoding: Any, folder: Path) -> Path:
    """Write a tiktoken encoding as a byte-level BPE with NFC.

    tiktoken joins any two tokens whose joint is one, so every such pair is a merge. A token that no
    merges lead to is taken where it is a whole piece of text.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as pre

    ranks: dict[bytes, int] = encoding._mergeable_ranks
    vocabulary = {spelled(token): rank for token, rank in ranks.items()}
    joined = sorted(ranks, key=ranks.__getitem__)
    merges = [(spelled(a), spelled(b)) for token in joined for a, b in pairs(token, ranks)]
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


def pairs(token: bytes, ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """All pairs of tokens that join to this one, by their ranks."""
    cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
    known = [(a, b) for a, b in cuts if a in ranks and b in ranks]
    return sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
