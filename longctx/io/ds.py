"""datatrove's and nanotron's `.ds` files as bytes: raw ids, document ends, a line of metadata.

The reader (datatrove 0.10, `DatatroveFileDataset`) takes windows of L + 1 tokens that do not
overlap, and positions that restart at each end of the index. So a window is written as L + 1
tokens: its own, padding, and as the last one `next_token` where the window cuts its document, else
the end-of-text id. Padding is end-of-text too, and a segment of its own in the index.

What is lost: 1 token in L + 1, and padding is learned, because the format has no loss mask that its
reader uses. With L tokens a window instead, the same reader would shear every window after the
first.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.io.parquet_windows import check_ids
from longctx.io.window_files import Found, ShardFile, Target, padded, total
from longctx.pack.frame import I64
from longctx.pack.windows import flatten_lists

NAMES = r"part-\d{5,}\.ds(\.index|\.metadata)?"
_PREFIXES = ("", "k", "M", "G", "T", "P")


def token_size(vocab_size: int) -> int:
    """Bytes of one id: 2 where the whole vocabulary fits, else 4 (datatrove's rule)."""
    return 2 if vocab_size <= 2**16 else 4


def _token_type(vocab_size: int) -> np.dtype[Any]:
    return np.dtype(f"<u{token_size(vocab_size)}")


def document_ends(windows: pa.Table, length: int) -> I64:
    """Ends of all segments in tokens of the file, int64, strictly rising.

    The last segment of a full window takes in the token after it; the padding of a short one is a
    segment of its own.
    """
    segments, at = flatten_lists(windows["segments"])
    row = np.repeat(np.arange(len(windows)), np.diff(at))
    ends = np.asarray(pc.struct_field(segments, "end"), dtype=np.int64) + row * (length + 1)
    border = (np.arange(len(windows)) + 1) * (length + 1)
    is_full = windows["n_tokens"].to_numpy() == length
    ends[at[1:][is_full] - 1] = border[is_full]
    return np.insert(ends, at[1:][~is_full], border[~is_full])


def metadata(tokenizer: str, size: int, tokens: int) -> bytes:
    """Three lines: `tokenizer|token size`, number of tokens, and that number in short form."""
    return f"{tokenizer}|{size}\n{tokens}\n{short_form(tokens)}".encode()


def short_form(tokens: int) -> str:
    """Three significant digits with a metric prefix: `18.0 T`, `27.1 MT`."""
    exponent = len(str(tokens)) - 1
    step = min(exponent // 3, len(_PREFIXES) - 1)
    return f"{tokens / 1000**step:.{2 - exponent % 3}f} {_PREFIXES[step]}T"


def shard(windows: pa.Table, number: str, target: Target) -> Iterator[ShardFile]:
    """A shard's three files. Raises RunError for an id outside the vocabulary."""
    check_ids(windows, target.vocab_size)
    dtype = _token_type(target.vocab_size)
    tokens = padded(windows, target.length, target.length + 1, target.eos_id, dtype)
    tokens[:, -1] = pc.fill_null(windows["next_token"], target.eos_id).to_numpy()
    n, name = len(tokens), f"part-{number}.ds"
    held = int(np.sum(windows["n_tokens"].to_numpy(), dtype=np.int64))
    note = {"windows": n, "tokens": int(tokens.size), "padding": n * target.length - held}
    yield ShardFile(name, tokens.tobytes(), n, note)
    ends = document_ends(windows, target.length)
    yield ShardFile(f"{name}.index", ends.astype("<u8").tobytes(), n)
    text = metadata(target.tokenizer, dtype.itemsize, int(tokens.size))
    yield ShardFile(f"{name}.metadata", text, n)


def merge(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, bytes]:
    """Nothing: the reader of a folder lists its files."""
    return {}


def describe(notes: Sequence[dict[str, Any]], target: Target) -> dict[str, Any]:
    """For the manifest: what the reader must be told."""
    return {
        "windows": total(notes, "windows"),
        "token_size": token_size(target.vocab_size),
        "sequence_length": target.length,
        "tokens": total(notes, "tokens"),
        "padding": total(notes, "padding"),
    }


def read(files: Mapping[str, bytes], target: Target) -> Found:
    """The L + 1 tokens of a shard's windows, and the ends inside each."""
    name = next(n for n in files if n.endswith(".ds"))
    width = target.length + 1
    tokens = np.frombuffer(files[name], _token_type(target.vocab_size)).reshape(-1, width)
    ends = np.frombuffer(files[f"{name}.index"], "<u8").astype(np.int64)
    borders = np.searchsorted(ends, np.arange(len(tokens) + 1) * width, side="right")

    def window(row: int) -> tuple[str, dict[str, Any]]:
        own = ends[borders[row] : borders[row + 1]] - row * width
        return name, {"tokens": tokens[row].tolist(), "ends": own.tolist()}

    return Found(len(tokens), window)


def expected(row: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """What `read` must return for a canonical row."""
    ids, after = row["input_ids"], row["next_token"]
    padding = [target.eos_id] * (target.length - len(ids))
    ends = [s["end"] for s in row["segments"]]
    return {
        "tokens": [*ids, *padding, target.eos_id if after is None else after],
        "ends": [*(ends if padding else ends[:-1]), target.length + 1],
    }
