"""A `tokenizer.json` of Hugging Face.

The package `tokenizers` reads it, at a tenth of tiktoken's speed; a byte-level BPE is encoded by
compiled code or by tiktoken (`text.byte_level`), once that was found to give the same ids for every
probe. What was found is kept in the user's cache by the fingerprint of the tokenizer and the
versions of the programs, so it is looked for once on a machine.
"""

import contextlib
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.errors import RunError
from longctx.text.byte_level import COMPILED, Encode, difference, fast_encoder
from longctx.text.fingerprints import digest
from longctx.text.offsets import byte_ends, composed_byte_ends
from longctx.text.probes import PROBES
from longctx.text.slices import BATCH_CHARS, SLICE_CHARS, Ids, encodable, joined, slices

I64 = npt.NDArray[np.int64]

# Normalisers that the fast encoder knows: nothing, or Unicode's composed form.
_NORMAL_FORMS = {None: "", "NFC": "NFC"}
_EOS_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")


class JsonTokenizer:
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
        self.fingerprint = digest(file.read_bytes(), SLICE_CHARS)
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
        key = digest(self.fingerprint.encode(), *programs, unicodedata.unidata_version, PROBES)
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
            return [joined(fast(piece) for piece in slices(encodable(t))) for t in texts]
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
            cut = list(slices(encodable(text)))
            counts.append(len(cut))
            for piece in cut:
                batch.append(piece)
                size += len(piece)
                # The library keeps offsets and strings of every token it returns: bound them.
                if size >= BATCH_CHARS:
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
        text = encodable(text)
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
