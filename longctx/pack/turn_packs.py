"""Sequences in packs: which go together, in which batch, and what each target token weighs.

Packs, weights and sorted batches of LongAlign (arXiv 2401.18058; `longctx.synth.longalign` holds
the algorithms and says what we changed), decided on ids and lengths alone. With fixed batches the
weights are final: stored ones times K / (their sum over the batch), K packs. That is K / M for the
mean over M sequences and K / T for the mean over T targets, so one line of a collator serves both.

Packs of best-fit are shuffled by the hash of their names: as they are made, a batch would hold
long sequences only, or short ones only. O(n log n); some 800 bytes a sequence in one process.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.pack.boundaries import IGNORE
from longctx.pack.frame import I32, I64
from longctx.synth.draw import hash_order
from longctx.synth.longalign import (
    SYSTEM,
    best_fit_decreasing,
    next_fit,
    padding_share,
    remainder,
    sorted_batches,
)

F32 = npt.NDArray[np.float32]
Strategy = Literal["best_fit", "next_fit", "sorted_batches"]
Weighting = Literal["sequence", "token"]
_FITS = {"best_fit": best_fit_decreasing, "next_fit": next_fit}


class Rules(NamedTuple):
    """How packs are made; `batch_packs` packs make a batch, None leaves batches to the trainer."""

    length: int
    strategy: Strategy
    shard_rows: int
    weighting: Weighting
    batch_packs: int | None
    file_tokens: int


class Packs(NamedTuple):
    """Where every sequence goes; all but `names` are arrays.

    Of sequences: `pack` and `place` in it, int64 and int32, both -1 for one that is left out. Of
    packs, in the order that they are written in: `names`, `batch` int32 (-1 without batches),
    `scale` float32 of the stored weights, `file` int32.
    """

    pack: I64
    place: I32
    names: list[str]
    batch: I32
    scale: F32
    file: I32


def plan_packs(
    ids: Sequence[str], lengths: Sequence[int], targets: Sequence[int], rules: Rules, seed: int
) -> Packs:
    """Pack sequences of at most `rules.length` tokens; `targets` are those that are learned from.

    `ids` differ and ascend. Raises ValueError for a sequence that is longer or has no target.
    """
    if any(n > rules.length for n in lengths) or any(n < 1 for n in targets):
        raise ValueError(f"a sequence has more than {rules.length} tokens, or no target")
    if rules.strategy == "sorted_batches":
        assert rules.batch_packs is not None, "sorted batches have a size"
        groups = sorted_batches(lengths, rules.batch_packs, seed, ids)
        packs = [
            (f"{number:05d}-{k:05d}", [member])
            for number, group in enumerate(groups)
            for k, member in enumerate(group)
        ]
    else:
        packs = _shuffled(_in_shards(ids, lengths, rules, seed), seed)
    pack, place = np.full(len(ids), -1, np.int64), np.full(len(ids), -1, np.int32)
    for number, (_, members) in enumerate(packs):
        pack[members] = number
        place[members] = np.arange(len(members), dtype=np.int32)
    batch, scale = _batches([m for _, m in packs], targets, rules)
    sizes = [sum(lengths[i] for i in members) for _, members in packs]
    names = [name for name, _ in packs]
    return Packs(pack, place, names, batch, scale, _files(sizes, batch, rules.file_tokens))


def left_out(ids: Sequence[str], rules: Rules, seed: int) -> list[int]:
    """Sequences that fill no batch, of sorted ones: drawn by hash before anything is sorted."""
    if rules.strategy != "sorted_batches" or rules.batch_packs is None:
        return []
    return remainder(len(ids), rules.batch_packs, seed, ids)


def _in_shards(
    ids: Sequence[str], lengths: Sequence[int], rules: Rules, seed: int
) -> list[tuple[str, list[int]]]:
    """Names and members of packs, as `longalign.pack_rows` makes them."""
    place = {name: i for i, name in enumerate(ids)}
    order = [place[name] for name in hash_order(ids, seed, SYSTEM, "pack")]
    fit, packs = _FITS[rules.strategy], []
    for number, first in enumerate(range(0, len(order), rules.shard_rows)):
        shard = order[first : first + rules.shard_rows]
        found = fit([lengths[i] for i in shard], rules.length)
        packs += [
            (f"{number:05d}-{k:05d}", [shard[i] for i in members])
            for k, members in enumerate(found)
        ]
    return packs


def _shuffled(packs: list[tuple[str, list[int]]], seed: int) -> list[tuple[str, list[int]]]:
    members = dict(packs)
    return [(name, members[name]) for name in hash_order(members, seed, SYSTEM, "packs")]


def _batches(
    packs: Sequence[Sequence[int]], targets: Sequence[int], rules: Rules
) -> tuple[I32, F32]:
    """The batch of every pack, and what makes its weights final; the last may be smaller."""
    size = rules.batch_packs
    if size is None:
        return np.full(len(packs), -1, np.int32), np.ones(len(packs), np.float32)
    batch = (np.arange(len(packs)) // size).astype(np.int32)
    scale = np.ones(len(packs), dtype=np.float32)
    for first in range(0, len(packs), size):
        members = packs[first : first + size]
        by_token = rules.weighting == "token"
        total = sum(targets[i] if by_token else 1 for pack in members for i in pack)
        scale[first : first + size] = len(members) / total
    return batch, scale


def _files(sizes: Sequence[int], batch: I32, file_tokens: int) -> I32:
    """The file of every pack: about `file_tokens` tokens each, a batch always in one."""
    before = np.cumsum([0, *sizes])[:-1]
    if len(sizes) and batch[0] >= 0:
        _, first, member = np.unique(batch, return_index=True, return_inverse=True)
        before = before[first][member]
    _, file = np.unique(before // file_tokens, return_inverse=True)
    return file.astype(np.int32)


def weighed(pack: Mapping[str, Any], weighting: Weighting, scale: float) -> dict[str, Any]:
    """A pack of `longalign.one_pack` with the weights that its batch and the weighting ask for."""
    weights = pack["loss_weight"]
    if weighting == "token":
        weights = (pack["labels"] != IGNORE).astype(np.float32)
    return {**pack, "loss_weight": weights * np.float32(scale)}


def padding(lengths: Sequence[int], batch: I32) -> float:
    """Share of padding where every batch is padded to its longest row, of packs of one row."""
    cuts = np.flatnonzero(np.diff(batch)) + 1
    return padding_share([g.tolist() for g in np.split(np.asarray(lengths), cuts)])
