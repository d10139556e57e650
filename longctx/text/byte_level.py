"""A fast encoder for the byte-level BPE of a `tokenizer.json`, used only where it is proven.

`tiktoken` encodes such a vocabulary many times faster than `tokenizers`, and `text.bpe` twice as
fast again where it knows the pattern. But these are other programs: they join the pair whose joint
comes first in the vocabulary, where `tokenizers` takes the pair that comes first in the list of
merges, and their regular expressions are those of another engine. So
`fast_encoder` numbers tokens in the order of the merges, translates the numbers back to ids, and
says None to whatever it does not know how to express; and `difference` encodes a probe set with
both: texts of many languages, code, white space, emoji, control characters and strings that look
like special tokens (`longctx.text.probes`), then every token of the vocabulary alone and all of
them in a shuffled row. The first difference is reason enough to do without. Costs about a second
for 100,000 tokens, which callers pay once (`longctx.text.tokenize`).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.text.bpe import COMPILED as COMPILED
from longctx.text.bpe import compiled_encoder
from longctx.text.probes import PROBES

Ids = npt.NDArray[np.int32]
Encode = Callable[[str], Ids]

GPT2_PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # `ByteLevel`
)
_PLAIN = ("lstrip", "rstrip", "single_word")
_ROW = 64


class Vocabulary(NamedTuple):
    """Byte-level BPE as tiktoken wants it: numbers in merge order, and the id of each number."""

    numbers: dict[bytes, int]
    added: dict[str, int]
    ids: Ids


def fast_encoder(model: dict[str, Any]) -> Encode | None:
    """Encoder of normalised text for a parsed `tokenizer.json`; None where it has no such form.

    Strings of special tokens are plain text, other added tokens are taken whole: what `tokenizers`
    does with `encode_special_tokens` set. The encoder raises ValueError for a text on which its
    regular expression would backtrack too far.
    """
    pattern = _pattern(model.get("pre_tokenizer"))
    vocabulary = _vocabulary(model) if pattern is not None else None
    if pattern is None or vocabulary is None:
        return None
    numbers, added, ids = vocabulary
    compiled = compiled_encoder(pattern, numbers)
    if compiled is None:
        try:
            encoding = _tiktoken(pattern, vocabulary)
        except ValueError:  # a pattern that its engine cannot express
            return None
        return lambda text: ids[encoding(text)]
    if not added:
        return lambda text: ids[compiled(text)]
    encoding = _tiktoken(pattern, vocabulary)
    holds_added = re.compile("|".join(map(re.escape, added))).search
    return lambda text: ids[(encoding if holds_added(text) else compiled)(text)]


def _tiktoken(pattern: str, vocabulary: Vocabulary) -> Callable[[str], Any]:
    """The vocabulary's encoder into numbers by tiktoken. ValueError for patterns it has none of."""
    import tiktoken

    numbers, added, _ = vocabulary
    encoding = tiktoken.Encoding(
        "tokenizer.json", pat_str=pattern, mergeable_ranks=numbers, special_tokens=added
    )
    return partial(encoding.encode_to_numpy, allowed_special=set(added), disallowed_special=())


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The one regular expression that cuts text into pieces, where it is one."""
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = steps[0].get("pretokenizers", [])
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return None
    if len(steps) == 1:
        return GPT2_PATTERN if last.get("use_regex", True) else None
    split = steps[0]
    one = len(steps) == 2 and not last.get("use_regex", True) and split.get("type") == "Split"
    isolates = split.get("behavior") == "Isolated" and not split.get("invert")
    return split.get("pattern", {}).get("Regex") if one and isolates else None


def _vocabulary(model: dict[str, Any]) -> Vocabulary | None:
    bpe = model.get("model") or {}
    affixes = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")
    if bpe.get("type") != "BPE" or any(bpe.get(name) for name in affixes):
        return None
    known = {token: spelled_bytes(token) for token in bpe["vocab"]}
    letters = [token for token, data in known.items() if data is not None and len(data) == 1]
    joined = ["".join(_pair(merge)) for merge in bpe["merges"]]
    if len(letters) != 256 or any(known.get(token) is None for token in joined):
        return None
    order = dict.fromkeys([*letters, *joined])
    if bpe.get("ignore_merges"):  # a piece that is a token is that token, whatever its merges
        order |= dict.fromkeys(token for token, data in known.items() if data is not None)
    more = _added(model)
    if more is None:
        return None
    numbers = {data: k for k, token in enumerate(order) if (data := known[token]) is not None}
    ids = [*(bpe["vocab"][token] for token in order), *more.values()]
    added = {content: len(order) + k for k, content in enumerate(more)}
    return Vocabulary(numbers, added, np.array(ids, dtype=np.int32))


def _pair(merge: str | Sequence[str]) -> Sequence[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _added(model: dict[str, Any]) -> dict[str, int] | None:
    """Added tokens that are ordinary vocabulary; None if one of them takes more than itself."""
    found = {}
    for token in model.get("added_tokens") or []:
        if token.get("special"):
            continue
        if any(token.get(flag) for flag in _PLAIN) or (
            token.get("normalized") and model.get("normalizer")
        ):
            return None
        found[token["content"]] = int(token["id"])
    return found


def _alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2's)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(b): b for b in shown} | {chr(256 + k): b for k, b in enumerate(hidden)}


_BYTES = _alphabet()


_CHARACTERS = {byte: character for character, byte in _BYTES.items()}


def spelled(data: bytes) -> str:
    """A token as a byte-level vocabulary spells it."""
    return "".join(_CHARACTERS[byte] for byte in data)


def spelled_bytes(token: str) -> bytes | None:
    """The bytes that a byte-level token stands for; None if it is no such token."""
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:
        return None


def difference(
    fast: Encode,
    slow: Callable[[list[str]], list[Ids]],
    tokens: Iterable[str],
    added: Iterable[str] = (),
) -> str | None:
    """The first probe whose ids differ, None if all are equal.

    `tokens` spell the vocabulary; `added` are the texts of tokens that were added to it.
    """
    beside = [f"a{text}{text} {text} b" for text in added]
    probes = [*PROBES, *beside, *_vocabulary_probes(tokens)]
    for probe, ids in zip(probes, slow(probes), strict=True):
        if not np.array_equal(fast(probe), ids):
            return probe
    return None


def _vocabulary_probes(tokens: Iterable[str]) -> Iterator[str]:
    """Every token that is text, alone and after a space, and all of them run together."""
    texts = []
    for token in tokens:
        data = spelled_bytes(token)
        try:
            texts.append((data or b"").decode())
        except UnicodeDecodeError:
            continue
    yield from texts
    shuffled = np.random.default_rng(0).permutation(len(texts))
    for first in range(0, len(texts), _ROW):
        row = [texts[i] for i in shuffled[first : first + _ROW]]
        yield "".join(row)
        yield " ".join(row)
