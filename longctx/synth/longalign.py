"""LongAlign's training forms: packs with weights of the loss, sorted batches, numbered replies.

LongAlign (arXiv 2401.18058). A pack that averages its loss over tokens gives sequence j the weight
N_j / (K * sum of N in its pack), N target tokens, K packs: long answers and packs of few sequences
count more. Here every target token of sequence i has the weight 1 / N_i; scaled by K / M (M
sequences with targets) and summed inside a pack, the mean over packs is exactly the mean over
sequences, L = (1/M) sum L_i / N_i.

What we changed: the reference packs by next-fit in the order of the file; ours is best-fit by
decreasing length (`longctx.pack.best_fit`) inside shards that are shuffled by hash. The reference
never writes its last pack, cuts the first packs to half length, finds ends by the padding id, and
counts sequences without targets; none of that here. Its sorted batches drop the longest rows, for
the remainder is cut after the sort; ours is drawn by hash before it. O(n log n) in rows, linear in
tokens. Lost: the order of the rows.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.pack.boundaries import IGNORE
from longctx.pack.boundaries import cu_seqlens as row_cu_seqlens
from longctx.synth.draw import generator, hash_order

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]

SYSTEM = "longalign"
MAX_LEN = 65_536
SHARD_ROWS = 10_000

_ITEM = re.compile(r"\s*(?:#{1,6}\s+|[-*+•]\s+)?(?:\*\*|__)?\s*(\d+)\s*(?:[:)、：．]|\.(?!\d))")
_AROUND = " \t\r\n*\"'“”‘’「」『』"


def parse_numbered(text: str, n: int = 5) -> list[str] | None:
    """The `n` items of a numbered list; None unless there are just so many, numbered 1..n.

    A line that begins with the number that is due opens an item, any other continues the open one;
    what stands before item 1, and after a blank line behind item n, is ignored.
    """
    items: list[list[str]] = []
    for line in text.splitlines():
        if not line.strip():
            if len(items) == n:
                break
            continue
        found = _ITEM.match(line)
        number = int(found[1]) if found else 0
        if found and number == len(items) + 1:
            if number > n:
                return None
            items.append([line[found.end() :].strip()])
        elif items:
            items[-1].append(line.strip())
    joined = [" ".join(item).strip(_AROUND) for item in items]
    return joined if len(joined) == n and all(joined) else None


def next_fit(lengths: Sequence[int], max_len: int) -> list[list[int]]:
    """Packs of indices in the order of the input; a sequence that does not fit opens a new one.

    A sequence longer than `max_len` is in no pack. Raises ValueError for one without tokens.
    """
    packs: list[list[int]] = []
    room = 0
    for index in _fitting(lengths, max_len):
        if not packs or lengths[index] > room:
            packs.append([])
            room = max_len
        packs[-1].append(index)
        room -= lengths[index]
    return packs


def best_fit_decreasing(lengths: Sequence[int], max_len: int) -> list[list[int]]:
    """Packs of indices: longest first, each into the open pack with the least room that holds it.

    Of equal sequences the earlier goes first, of equal rooms the older pack is taken. As for
    `next_fit`, a sequence longer than `max_len` is in no pack.
    """
    from longctx.pack.best_fit import pack_best_fit

    fitting = np.array(_fitting(lengths, max_len), dtype=np.int64)
    if not len(fitting):
        return []
    sizes = np.asarray(lengths, dtype=np.int64)[fitting]
    placed = pack_best_fit(sizes, np.zeros(len(sizes), np.int32), max_len).placement
    cuts = np.flatnonzero(np.diff(placed.window)) + 1
    return [pack.tolist() for pack in np.split(fitting[placed.document], cuts)]


def _fitting(lengths: Sequence[int], max_len: int) -> list[int]:
    if min(lengths, default=1) < 1:
        empty = next(i for i, n in enumerate(lengths) if n < 1)
        raise ValueError(f"sequence {empty} has {lengths[empty]} tokens; one at least is needed")
    return [i for i, n in enumerate(lengths) if n <= max_len]


def loss_weights(
    packs: Sequence[Sequence[int]],
    scope: Literal["step", "micro"] = "step",
    packs_per_micro: int | None = None,
) -> list[list[float]]:
    """Weight of one target token of each sequence, 0 for one without targets.

    `packs` hold the numbers of target tokens. Summed inside packs and averaged over them, these
    weights give the mean over sequences: of the optimizer step ("step"), or of each micro-batch of
    `packs_per_micro` packs ("micro"), which is the step's only if all have as many sequences.
    """
    if scope == "step":
        size = max(1, len(packs))
    elif scope == "micro" and packs_per_micro and packs_per_micro > 0:
        size = packs_per_micro
    else:
        raise ValueError(
            f"scope={scope!r} with packs_per_micro={packs_per_micro!r}: want 'step', "
            "or 'micro' with a number of packs"
        )
    weights: list[list[float]] = []
    for first in range(0, len(packs), size):
        micro = packs[first : first + size]
        with_targets = sum(n > 0 for pack in micro for n in pack)
        weights += [[len(micro) / (n * with_targets) if n else 0.0 for n in p] for p in micro]
    return weights


def cu_seqlens(packs_lengths: Sequence[Sequence[int]], max_len: int) -> I32:
    """Borders of attention of a batch of packs laid end to end, int32, strictly rising.

    From 0 to packs * `max_len`; the padding of a pack is a segment of its own. Raises ValueError
    for a pack that is longer than `max_len`.
    """
    borders = [np.zeros(1, dtype=np.int32)]
    for number, lengths in enumerate(packs_lengths):
        ends = np.cumsum([0, *lengths])
        if ends[-1] > max_len:
            raise ValueError(f"pack {number} has {ends[-1]} tokens, more than {max_len}")
        segments = np.stack([ends[:-1], ends[1:]], axis=1)
        borders.append(row_cu_seqlens(segments, max_len, "intra")[1:] + number * max_len)
    return np.concatenate(borders).astype(np.int32)


def sorted_batches(
    lengths: Sequence[int], group_size: int, seed: int, ids: Sequence[str] | None = None
) -> list[list[int]]:
    """Groups of `group_size` indices of about one length, the groups in a shuffled order.

    What `remainder` names is in no group. Train in this order: a sampler that shuffles undoes it.
    """
    left_out = set(remainder(len(lengths), group_size, seed, ids))
    kept = sorted((i for i in range(len(lengths)) if i not in left_out), key=lambda i: lengths[i])
    groups = [kept[i : i + group_size] for i in range(0, len(kept), group_size)]
    order = generator(seed, SYSTEM, "sorted_batches", "").permutation(len(groups))
    return [groups[i] for i in order]


def remainder(n: int, group_size: int, seed: int, ids: Sequence[str] | None = None) -> list[int]:
    """The n mod `group_size` rows that fill no group: the first by hash of their ids, ascending.

    Drawn before anything is sorted, so no length is preferred. Without `ids` places are ids.
    """
    if group_size < 1:
        raise ValueError(f"group_size={group_size}; one row at least makes a group")
    names = list(ids) if ids is not None else [str(i) for i in range(n)]
    place = {name: i for i, name in enumerate(names)}
    if len(place) != n:
        raise ValueError(f"{n} rows have {len(place)} different ids")
    first = hash_order(names, seed, SYSTEM, "remainder")[: n % group_size]
    return sorted(place[name] for name in first)


def padding_share(groups: Sequence[Sequence[int]]) -> float:
    """Share of a batch that is padding, over groups of lengths; 0 for none."""
    padded = sum(max(group) * len(group) for group in groups if group)
    return 1 - sum(map(sum, groups)) / padded if padded else 0.0


class TokenRow(NamedTuple):
    """A tokenised row: `labels` repeat `input_ids` on targets and are -100 elsewhere."""

    id: str
    input_ids: Sequence[int]
    labels: Sequence[int]


class Packed(NamedTuple):
    """Packs as dictionaries of columns, ids of rows too long for one, and tokens / room."""

    packs: list[dict[str, Any]]
    too_long: list[str]
    fill: float


def pack_rows(
    rows: Sequence[TokenRow], seed: int, max_len: int = MAX_LEN, shard_rows: int = SHARD_ROWS
) -> Packed:
    """Pack tokenised rows: shards of `shard_rows` in hash order, best-fit in each.

    A row without a target keeps its place with weights of 0. Raises ValueError for ids that repeat.
    """
    by_id = {row.id: row for row in rows}
    if len(by_id) != len(rows):
        raise ValueError(f"{len(rows)} rows have {len(by_id)} different ids")
    order = hash_order(by_id, seed, SYSTEM, "pack")
    too_long = [i for i in order if len(by_id[i].input_ids) > max_len]
    packs: list[dict[str, Any]] = []
    for number, first in enumerate(range(0, len(order), shard_rows)):
        shard = [by_id[i] for i in order[first : first + shard_rows]]
        found = best_fit_decreasing([len(row.input_ids) for row in shard], max_len)
        packs += [
            {"pack_id": f"{number:05d}-{k:05d}", **one_pack([shard[i] for i in members])}
            for k, members in enumerate(found)
        ]
    tokens = sum(len(pack["input_ids"]) for pack in packs)
    return Packed(packs, sorted(too_long), tokens / (len(packs) * max_len) if packs else 0.0)


def one_pack(rows: Sequence[TokenRow]) -> dict[str, Any]:
    """The columns of one pack, without padding; `loss_weight` is 1 / N_i on targets.

    Labels are those of Hugging Face (`labels[t]` is predicted from t - 1), so the first token of
    every sequence has none; weights stand where labels stand, and are shifted with them.
    """
    labels, weights = zip(*map(_targets, rows), strict=True)
    sizes = [len(row.input_ids) for row in rows]
    return {
        "input_ids": np.concatenate([np.asarray(r.input_ids, np.int32) for r in rows]),
        "labels": np.concatenate(labels),
        "loss_weight": np.concatenate(weights),
        "cu_seqlens": np.cumsum([0, *sizes]).astype(np.int32),
        "position_ids": np.concatenate([np.arange(n, dtype=np.int32) for n in sizes]),
        "seq_ids": [row.id for row in rows],
        "n_target_seqs": sum(bool(w.any()) for w in weights),
    }


def _targets(row: TokenRow) -> tuple[I32, F32]:
    """Labels without the first token's, and the weight of each."""
    labels = np.array(row.labels, dtype=np.int32)
    if len(labels) != len(row.input_ids):
        raise ValueError(f"row {row.id!r} has {len(row.input_ids)} ids and {len(labels)} labels")
    labels[:1] = IGNORE
    counts = labels != IGNORE
    return labels, (counts / max(1, counts.sum())).astype(np.float32)


def with_final_weights(
    packs: Sequence[Mapping[str, Any]], batch_packs: int
) -> Iterator[dict[str, Any]]:
    """The packs in fixed batches: `batch_id`, and `loss_weight` times K / M of the batch.

    The last batch may be smaller and has its own K and M.
    """
    if batch_packs < 1:
        raise ValueError(f"batch_packs={batch_packs}; one pack at least makes a batch")
    for batch, first in enumerate(range(0, len(packs), batch_packs)):
        members = packs[first : first + batch_packs]
        with_targets = sum(pack["n_target_seqs"] for pack in members)
        scale = np.float32(len(members) / with_targets if with_targets else 0.0)
        for pack in members:
            yield {**pack, "loss_weight": pack["loss_weight"] * scale, "batch_id": batch}
