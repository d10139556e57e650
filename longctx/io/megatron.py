"""Megatron's indexed dataset, `.bin` and `.idx`, as bytes.

The GPT loader (Megatron-LM, 1909.08053 and later) lays shuffled documents end to end and cuts
samples of L tokens that overlap by one. So a window is one document of exactly L tokens, padded
with the end-of-document id: sample i then starts at document i, offset 0. With L + 1 tokens the
offset drifts by one a sample. Train with `--seq-length` equal to the window's length.

What is lost. The last prediction of a sample targets the first token of another random window; it
can be masked only where a window ends with EOD (`--eod-mask-loss`): `unmasked_crossings` is the
share that does not, 0 with `reserve: 1` in the pack stage. The loader drops one window of every
prefix: it wants one token beyond the last sample. For attention across documents leave
`--reset-position-ids` and `--reset-attention-mask` off; for attention inside them set both (they
act on EOD, so documents must end with it, which is the default); its loader then clears a dense
mask of L x L once for each EOD, padding included, so let the attention kernel make the mask there
(`--no-create-attention-mask-in-dataloader`).

Tasks write a prefix each. `data_args.txt` lists them with their tokens as weights for
`--data-args-path`; the names are relative to it, so train in that folder or put the folder before
them. `io.megatron_merge` makes one prefix of all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.errors import RunError
from longctx.io.parquet_windows import check_ids
from longctx.io.window_files import Found, ShardFile, Target, padded, total
from longctx.pack.frame import I64

NAMES = r"part-\d{5,}\.(bin|idx)|data_args\.txt"
DATA_ARGS = "data_args.txt"
MAGIC = b"MMIDIDX\x00\x00"
_CODES: dict[int, npt.DTypeLike] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_HEADER = 34
# Megatron's own rule, below the 65,536 that would fit.
_SMALL_VOCABULARY = 65_500


def token_type(vocab_size: int) -> np.dtype[Any]:
    """uint16 for vocabularies below 65,500 entries, else int32: what Megatron would choose."""
    return np.dtype("<u2" if vocab_size < _SMALL_VOCABULARY else "<i4")


def index_bytes(lengths: I64, dtype: np.dtype[Any]) -> bytes:
    """The `.idx` of sequences of `lengths` tokens (int64[n]), each a document of its own."""
    code = next(code for code, known in _CODES.items() if known == dtype)
    ends = np.cumsum(lengths, dtype=np.int64) * dtype.itemsize
    n = len(lengths)
    return b"".join(
        [
            MAGIC,
            np.array([1], "<u8").tobytes(),
            bytes([code]),
            np.array([n, n + 1], "<u8").tobytes(),
            lengths.astype("<i4").tobytes(),
            (ends - lengths * dtype.itemsize).astype("<i8").tobytes(),
            np.arange(n + 1, dtype="<i8").tobytes(),
        ]
    )


def read_index(data: bytes) -> tuple[I64, np.dtype[Any]]:
    """Lengths (int64[n]) and token type of an `.idx`. Raises ValueError for any other file."""
    if data[:9] != MAGIC or len(data) < _HEADER or data[17] not in _CODES:
        raise ValueError("not an index of token ids that Megatron reads")
    n = int(np.frombuffer(data, "<u8", 1, 18)[0])
    if len(data) != _HEADER + 20 * n + 8:
        raise ValueError(f"an index of {n} sequences has {_HEADER + 20 * n + 8} bytes")
    return np.frombuffer(data, "<i4", n, _HEADER).astype(np.int64), np.dtype(_CODES[data[17]])


def merged_index(indices: Iterable[bytes]) -> bytes:
    """The `.idx` of several `.bin` files laid end to end. Raises ValueError if types differ."""
    found = [read_index(data) for data in indices]
    kinds = {dtype for _, dtype in found}
    if len(kinds) != 1:
        raise ValueError(f"{len(found)} indices with {len(kinds)} token types cannot be merged")
    return index_bytes(np.concatenate([lengths for lengths, _ in found]), kinds.pop())


def shard(windows: pa.Table, number: str, target: Target) -> Iterator[ShardFile]:
    """A shard's `.bin` and `.idx`. Raises RunError for an id outside the vocabulary."""
    check_ids(windows, target.vocab_size)
    dtype = token_type(target.vocab_size)
    if not 0 <= target.eos_id <= np.iinfo(dtype).max:
        raise RunError(
            f"the end-of-document id {target.eos_id} does not fit {dtype}",
            where="write megatron",
            remedy="use a tokenizer whose end-of-text token is inside its vocabulary",
        )
    tokens = padded(windows, target.length, target.length, target.eos_id, dtype)
    n = len(tokens)
    note = {
        "prefix": f"part-{number}",
        "windows": n,
        "tokens": int(tokens.size),
        "padding": int(tokens.size - np.sum(windows["n_tokens"].to_numpy(), dtype=np.int64)),
        "not_eod": int(np.count_nonzero(tokens[:, -1] != target.eos_id)),
    }
    yield ShardFile(f"part-{number}.bin", tokens.tobytes(), n, note)
    lengths = np.full(n, target.length, np.int64)
    yield ShardFile(f"part-{number}.idx", index_bytes(lengths, dtype), n)


def merge(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, bytes]:
    """The list of prefixes, each with its tokens as weight, one a line."""
    lines = (f"{note['tokens']} {note['prefix']}\n" for note in notes)
    return {DATA_ARGS: "".join(lines).encode()}


def describe(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, Any]:
    """For the manifest: token type, lengths, padding, and the share of unmasked crossings."""
    windows = total(notes, "windows")
    return {
        "windows": windows,
        "dtype": token_type(target.vocab_size).name,
        "sequence_length": target.length,
        "eod_id": target.eos_id,
        "tokens": total(notes, "tokens"),
        "padding": total(notes, "padding"),
        "unmasked_crossings": total(notes, "not_eod") / windows if windows else 0.0,
    }


def read(files: Mapping[str, bytes], target: Target) -> Found:
    """`input_ids` of a shard's windows, padding included."""
    name = next(n for n in files if n.endswith(".bin"))
    lengths, dtype = read_index(files[name.removesuffix(".bin") + ".idx"])
    tokens = np.frombuffer(files[name], dtype)
    ends = np.cumsum(lengths)

    def window(row: int) -> tuple[str, dict[str, Any]]:
        return name, {"input_ids": tokens[ends[row] - lengths[row] : ends[row]].tolist()}

    return Found(len(lengths), window)


def expected(row: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """What `read` must return for a canonical row."""
    ids = row["input_ids"]
    return {"input_ids": [*ids, *[target.eos_id] * (target.length - len(ids))]}
