"""Tokenizers behind one small interface: text in, int32 ids out.

Three kinds of `spec`. "embedded" is the vocabulary that ships with the library (`text.embedded`). A
path names a `tokenizer.json`, or a folder that holds one (`text.tokenizer_json`). Anything else is
a Hugging Face name whose `tokenizer.json` comes from the local cache or the hub.

Documents are data, so the strings of special tokens inside them ("<|endoftext|>") are encoded as
plain text and never as special ids; no BOS or EOS is added. Added tokens that a `tokenizer.json`
does not mark as special (runs of spaces in some vocabularies) are ordinary vocabulary and stay.
Long documents are encoded in slices (`text.slices`).
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from longctx.errors import RunError
from longctx.text.embedded import EmbeddedTokenizer
from longctx.text.slices import Ids
from longctx.text.tokenizer_json import JsonTokenizer

I64 = npt.NDArray[np.int64]


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
        return EmbeddedTokenizer()
    file = Path(spec).expanduser()
    if file.is_dir():
        file = file / "tokenizer.json"
    if file.is_file():
        return JsonTokenizer(spec, file, file.with_name("tokenizer_config.json"))
    if file.suffix == ".json" or spec.startswith(("/", ".", "~")):
        raise RunError(
            f"no tokenizer at {file}",
            where="tokenizer",
            remedy='give a tokenizer.json, a folder that holds one, or "embedded"',
        )
    return JsonTokenizer(
        spec, _from_hub(spec, "tokenizer.json"), _from_hub(spec, "tokenizer_config.json")
    )


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
