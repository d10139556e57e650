"""What a trainer is told about document boundaries: positions, cu_seqlens, labels, loss mask.

Trainers differ: ICP (2310.10638), SPLICE (2312.17296) and Quest need attention across the documents
of a window (`cross`); Llama-3 (2407.21783) masks it (`intra`). The file carries only segments; the
pure functions here turn one row into either form, and padding happens here. In `intra` mode two
segments of one document that do not continue each other are two segments. The separator is
learned: it is the end of its own document. O(tokens) each.

Hugging Face's `labels[i]` is predicted from i - 1, Megatron's `loss_mask[i]` tells whether the
prediction made *at* i counts: mixing the two shifts the mask by one.
"""

import numpy as np
import numpy.typing as npt

from longctx.pack.frame import I32, I64

IGNORE = -100
MODES = ("cross", "intra")


def _ends(segments: I64, mode: str) -> I64:
    """Ends of the intervals that attention may not leave, int64[k]; ValueError for no such mode."""
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is none of {MODES}")
    ends = np.asarray(segments, dtype=np.int64)[:, 1]
    return ends if mode == "intra" else ends[-1:]


def pad(input_ids: I32, length: int, pad_id: int) -> I32:
    """The row followed by `pad_id` up to `length` tokens, int32[length]."""
    return np.pad(
        np.asarray(input_ids, np.int32), (0, length - len(input_ids)), constant_values=pad_id
    )


def cu_seqlens(segments: I64, length: int, mode: str) -> I32:
    """Borders of the attention intervals of a row padded to `length`, int32, strictly rising.

    `segments` int64[k, 2] are the (start, end) of the row; the padding is an interval of its own.
    """
    ends = _ends(segments, mode)
    padding = [length] if ends[-1] < length else []
    return np.concatenate([[0], ends, padding]).astype(np.int32)


def max_seqlen(cu: I32) -> int:
    """Longest interval of `cu_seqlens`, padding included."""
    return int(np.diff(cu).max())


def positions(segments: I64, length: int, mode: str) -> I32:
    """Position ids of a row padded to `length`, int32[length].

    `cross` counts on through the row and its padding; `intra` restarts at each segment and at the
    padding.
    """
    every = np.arange(length, dtype=np.int32)
    if mode == "cross":
        return every
    cu = cu_seqlens(segments, length, mode)
    return every - np.repeat(cu[:-1], np.diff(cu))


def segment_ids(segments: I64, length: int, mode: str) -> I32:
    """Number of each token's interval from 1, 0 on padding, int32[length].

    What JAX trainers and FlexAttention take instead of `cu_seqlens`: a token attends to earlier
    tokens of its own number.
    """
    out = np.zeros(length, dtype=np.int32)
    ends = _ends(segments, mode)
    out[: ends[-1]] = np.repeat(np.arange(1, len(ends) + 1), np.diff(ends, prepend=0))
    return out


def labels(input_ids: I32, segments: I64, length: int, mode: str) -> npt.NDArray[np.int64]:
    """Hugging Face labels of a row padded to `length`, int64[length], -100 where nothing counts.

    That is the padding and, in `intra` mode, the first token of every segment, which nothing
    inside the segment predicts.
    """
    out = np.full(length, IGNORE, dtype=np.int64)
    out[: len(input_ids)] = input_ids
    if mode == "intra":
        out[cu_seqlens(segments, length, mode)[:-1]] = IGNORE
    else:
        _ends(segments, mode)
    return out


def megatron_loss_mask(hf_labels: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Megatron's loss mask, uint8[length]: 1 if the prediction of token i + 1 made at i counts."""
    mask = np.zeros(len(hf_labels), dtype=np.uint8)
    mask[:-1] = hf_labels[1:] != IGNORE
    return mask
