"""Tables of mixtures and of what was measured on them, read and checked.

A mixture table has `mixture_id` and one column of shares per source. Losses come in long form
(`mixture_id, model_size, tokens, seed, target, loss`) or wide, with one column per target. RegMix's
files (arXiv 2407.01492: `index`, `train_the_pile_*`, `metric/the_pile_*_val_loss`) are the wide
form under other names, and are read as they are. CSV or Parquet, told apart by their first bytes.

Several seeds of a run are averaged and their spread kept; runs without a loss are listed, never
guessed. What cannot be right is refused with file, line and column.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.evaluate import F64
from longctx.mixture.raw import Raw, number, read_raw
from longctx.registry import did_you_mean

TOLERANCE = 0.01
_ID = ("mixture_id", "index")
_LONG = ("target", "loss")
_SETTING = ("model_size", "tokens")
_SHARE_NAME = re.compile(r"train_(?:the_pile_)?(.+)")
_LOSS_NAME = re.compile(r"metric/(?:the_pile_)?(.+?)(?:_val_loss)?")


@dataclass(frozen=True)
class Mixtures:
    """Shares of tokens float64 [n, m] (rows as they stand in the table), ids and sources."""

    name: str
    ids: tuple[str, ...]
    sources: tuple[str, ...]
    shares: F64


@dataclass(frozen=True)
class Losses:
    """Losses float64 [n, targets] in nats per token, NaN where a run is missing.

    `sd` is the standard deviation over the seeds of a run, NaN with one seed.
    """

    name: str
    ids: tuple[str, ...]
    targets: tuple[str, ...]
    loss: F64
    sd: F64


@dataclass(frozen=True)
class Runs:
    """Mixtures with all their losses: X float64 [n, m], Y float64 [n, targets].

    `missing` names the mixtures without a loss, `notes` what a reader should know.
    """

    ids: tuple[str, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    X: F64
    Y: F64
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_mixtures(data: bytes, name: str) -> Mixtures:
    """The mixture table in a file's bytes; `name` is for messages.

    Raises RecipeError for shares that are no numbers from 0, rows off 1 by more than .01, and ids
    that stand twice.
    """
    raw = read_raw(data, name)
    id_column = _id_column(raw)
    columns = [c for c in raw.columns if c != id_column]
    if not columns:
        raise RecipeError(
            "there are no columns of shares", where=name, remedy="give one column per source"
        )
    sources = tuple(_plain(c, _SHARE_NAME) if id_column == "index" else c for c in columns)
    shares = np.array(
        [[_share(raw, i, c) for c in columns] for i in range(raw.rows)], dtype=np.float64
    ).reshape(raw.rows, len(columns))
    ids = _ids(raw, id_column)
    for i, total in enumerate(shares.sum(axis=1)):
        if abs(total - 1) > TOLERANCE:
            raise RecipeError(
                f"the shares of mixture '{ids[i]}' sum to {total:.6g}, expected 1 within "
                f"{TOLERANCE:g}",
                where=raw.place(i),
                remedy="give shares of all sources, as fractions of 1",
            )
    if len(set(ids)) < len(ids):
        i = next(i for i, one in enumerate(ids) if one in ids[:i])
        raise RecipeError(
            f"mixture '{ids[i]}' stands twice (first at {raw.place(ids.index(ids[i]))})",
            where=raw.place(i, id_column),
            remedy="give every mixture its own id; several seeds belong into the table of losses",
        )
    return Mixtures(name, ids, sources, shares)


def read_losses(
    data: bytes, name: str, *, model_size: float | None = None, tokens: float | None = None
) -> Losses:
    """The run table in a file's bytes, long or wide; `name` is for messages.

    `model_size` and `tokens` choose runs of a long table that holds several. Raises RecipeError
    for losses that are no numbers above 0, runs that stand twice, and settings that stay mixed.
    """
    raw = read_raw(data, name)
    if all(c in raw.columns for c in _LONG):
        return _long(raw, {"model_size": model_size, "tokens": tokens})
    return _wide(raw)


def join(mixtures: Mixtures, losses: Losses, targets: Sequence[str] = ()) -> Runs:
    """Mixtures and losses by id, in the order of the mixtures, for some targets (default: all).

    Mixtures without a loss for each of them are left out and listed. Raises RecipeError for
    unknown ids and targets, for a loss that is the same in every run, and when nothing is left.
    """
    unknown = [i for i in losses.ids if i not in set(mixtures.ids)]
    if unknown:
        raise RecipeError(
            f"mixture '{unknown[0]}' is not in {mixtures.name}"
            f"{did_you_mean(unknown[0], mixtures.ids)}"
            + (f" (and {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""),
            where=losses.name,
            remedy="use the ids of the mixture table",
        )
    chosen = tuple(targets) or losses.targets
    at = [_target(losses, name) for name in chosen]
    row_of = {one: i for i, one in enumerate(losses.ids)}
    Y = np.full((len(mixtures.ids), len(at)), np.nan)
    for i, one in enumerate(mixtures.ids):
        if one in row_of:
            Y[i] = losses.loss[row_of[one]][at]
    whole = np.isfinite(Y).all(axis=1)
    if not whole.any():
        raise RecipeError(
            "no mixture has a loss", where=losses.name, remedy="fill the column `loss`"
        )
    for j, name in enumerate(chosen):
        if whole.sum() > 1 and np.ptp(Y[whole, j]) == 0:
            raise RecipeError(
                f"every run has the same loss {Y[whole, j][0]:.6g} for target '{name}'",
                where=losses.name,
                remedy="check how the losses were collected; a constant tells nothing of mixtures",
            )
    ids = tuple(one for one, kept in zip(mixtures.ids, whole, strict=True) if kept)
    missing = tuple(one for one, kept in zip(mixtures.ids, whole, strict=True) if not kept)
    X = mixtures.shares[whole]
    notes = (*_noise(losses.sd[:, at]), *_repeated(ids, X))
    return Runs(ids, mixtures.sources, chosen, X, Y[whole], missing, notes)


def same_sources(runs: Runs, other: Mixtures) -> Mixtures:
    """`other` with its columns in the order of `runs`. Raises RecipeError where they differ."""
    if set(other.sources) != set(runs.sources):
        lacks = sorted(set(runs.sources) - set(other.sources))
        odd = sorted(set(other.sources) - set(runs.sources))
        raise RecipeError(
            "its sources are not those of the fit: "
            + "; ".join(
                f"{word} '{names[0]}'"
                for word, names in (("it lacks", lacks), ("only it has", odd))
                if names
            ),
            where=other.name,
            remedy="give tables with the same sources",
        )
    order = [other.sources.index(s) for s in runs.sources]
    return Mixtures(other.name, other.ids, runs.sources, other.shares[:, order])


def enough_runs(runs: Runs) -> None:
    """Raise RecipeError when a law or a plane would have more unknowns than runs."""
    n, m = runs.X.shape
    if n < m + 2:
        raise RecipeError(
            f"{n:,} runs with a loss are too few for {m:,} sources: {m + 1:,} unknowns need at "
            f"least {m + 2:,} runs, and {3 * (m + 1):,} to be of use",
            remedy="make more runs, join small sources into one, or add --force to see the fit",
        )


def mixtures_csv(ids: Sequence[str], sources: Sequence[str], shares: F64) -> str:
    """A mixture table as CSV; shares as short as reads back to the same numbers."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["mixture_id", *sources])
    writer.writerows([one, *map(repr, row)] for one, row in zip(ids, shares.tolist(), strict=True))
    return out.getvalue()


def _id_column(raw: Raw) -> str:
    for name in _ID:
        if name in raw.columns:
            return name
    raise RecipeError(
        f"there is no column `mixture_id`{did_you_mean('mixture_id', raw.columns)}",
        where=raw.name,
        remedy="give a column mixture_id (or index, as RegMix has it)",
    )


def _ids(raw: Raw, column: str) -> tuple[str, ...]:
    return tuple(raw.text(i, column) for i in range(raw.rows))


def _plain(name: str, form: re.Pattern[str]) -> str:
    found = form.fullmatch(name)
    return found[1] if found else name


def _share(raw: Raw, row: int, column: str) -> float:
    return number(raw, row, column, "expected a share from 0 to 1", least=0, most=1 + TOLERANCE)


def _loss(raw: Raw, row: int, column: str) -> float:
    """A loss, NaN for an empty cell."""
    if raw.text(row, column) == "":
        return float("nan")
    found = number(raw, row, column, "expected a loss above 0 (empty for a missing run)", least=0)
    if found == 0:
        raise RecipeError(
            "the loss is 0, expected a number above 0",
            where=raw.place(row, column),
            remedy="leave the cell empty where a run is missing",
        )
    return found


def _wide(raw: Raw) -> Losses:
    id_column = _id_column(raw)
    ids = _ids(raw, id_column)
    if len(set(ids)) < len(ids):
        i = next(i for i, one in enumerate(ids) if one in ids[:i])
        raise RecipeError(
            f"mixture '{ids[i]}' stands twice",
            where=raw.place(i, id_column),
            remedy="give several seeds in long form: mixture_id, seed, target, loss",
        )
    columns = [c for c in raw.columns if c != id_column]
    targets = tuple(_plain(c, _LOSS_NAME) for c in columns)
    loss = np.array([[_loss(raw, i, c) for c in columns] for i in range(raw.rows)])
    loss = loss.reshape(raw.rows, len(columns))
    return Losses(raw.name, ids, targets, loss, np.full(loss.shape, np.nan))


def _long(raw: Raw, wanted: Mapping[str, float | None]) -> Losses:
    id_column = _id_column(raw)
    rows = _of_setting(raw, wanted)
    ids = tuple(dict.fromkeys(raw.text(i, id_column) for i in rows))
    targets = tuple(dict.fromkeys(raw.text(i, "target") for i in rows))
    cells: dict[tuple[str, str], list[float]] = {}
    seen: set[tuple[str, str, str]] = set()
    for i in rows:
        key = (raw.text(i, id_column), raw.text(i, "target"))
        seed = raw.text(i, "seed") if "seed" in raw.columns else ""
        if (*key, seed) in seen:
            raise RecipeError(
                f"the run of mixture '{key[0]}' for target '{key[1]}' stands twice",
                where=raw.place(i, id_column),
                remedy="keep one of the rows, or give each its own seed",
            )
        seen.add((*key, seed))
        if np.isfinite(loss := _loss(raw, i, "loss")):
            cells.setdefault(key, []).append(loss)
    mean = np.full((len(ids), len(targets)), np.nan)
    sd = mean.copy()
    for a, one in enumerate(ids):
        for b, target in enumerate(targets):
            if found := cells.get((one, target)):
                mean[a, b] = np.mean(found)
                sd[a, b] = np.std(found, ddof=1) if len(found) > 1 else np.nan
    return Losses(raw.name, ids, targets, mean, sd)


def _of_setting(raw: Raw, wanted: Mapping[str, float | None]) -> list[int]:
    """Rows of one model size and one number of tokens."""
    rows = list(range(raw.rows))
    for column in (c for c in _SETTING if c in raw.columns):
        values = {i: number(raw, i, column, "expected a number above 0", least=0) for i in rows}
        asked = wanted[column]
        known = sorted(set(values.values()))
        option = f"--{column.replace('_', '-')}"
        if asked is not None:
            rows = [i for i in rows if values[i] == asked]
        if not rows or (asked is None and len(known) > 1):
            raise RecipeError(
                f"`{column}` holds {_listed(known)}; runs of different settings are not one table"
                if rows
                else f"no run has the {column} {asked:g}; there are {_listed(known)}",
                where=raw.name,
                remedy=f"choose one with {option}",
            )
    return rows


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{v:.15g}" for v in values)


def _target(losses: Losses, name: str) -> int:
    if name not in losses.targets:
        raise RecipeError(
            f"there is no target '{name}'{did_you_mean(name, losses.targets)}",
            where=losses.name,
            remedy=f"known: {', '.join(losses.targets)}",
        )
    return losses.targets.index(name)


def _noise(sd: F64) -> tuple[str, ...]:
    """What several seeds of the same mixture say about differences that mean nothing."""
    known = sd[np.isfinite(sd)]
    if not len(known):
        return ()
    floor = float(np.sqrt((known**2).mean()))
    return (
        f"other seeds of the same mixture change its loss by {floor:.4f} (standard deviation): "
        f"losses closer than {2 * floor:.4f} are ties",
    )


def _repeated(ids: Sequence[str], X: F64) -> tuple[str, ...]:
    _, first, at = np.unique(X, axis=0, return_index=True, return_inverse=True)
    first_of = first[at.reshape(-1)]
    twin = [i for i in range(len(ids)) if first_of[i] != i]
    if not twin:
        return ()
    return (
        f"{len(twin):,} mixtures repeat the shares of another one ('{ids[twin[0]]}' those of "
        f"'{ids[first_of[twin[0]]]}'): on held-out rows errors look smaller than they are",
    )
