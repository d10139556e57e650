"""The scores that rows are compared by, on the engine: per part, with what the group says of them.

`scored` is one pass over the columns: 8 bytes for each of them, id, source and verdict of the rules
that judge a row alone. A derived score then needs nothing more, sums of its columns over all parts
(`sums`, `constants`: some hundred bytes a group and part), or, where it ranks rows, all of them in
one place (`ranked`: 8 bytes for each column and document there, and refused above
`one_place_up_to`). What is kept is small, so every later step makes the scores of its part again
from it.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import FileRef
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import numbers
from longctx.engine.steps import StepRef, read_table
from longctx.errors import RunError
from longctx.filter.cut import F64, Moments, extent
from longctx.filter.derived import DERIVED, Spread, derive, wanjuan
from longctx.filter.exact import ExactSums, exact_sums
from longctx.filter.stages_decide import CLASS_COLUMNS

if TYPE_CHECKING:
    from longctx.filter.stages_decide import Decide

_RAW = "x."  # before the names of columns that scores are made of
_TYPES = {"lw_class": pa.string()}
_NEEDS = ("row", "spread", "group")
_SUMS = pa.schema(
    [
        ("name", pa.string()),
        ("group", pa.string()),
        ("column", pa.string()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("sums", pa.large_string()),
    ]
)
_CONSTANTS = pa.schema(
    [
        *(f for f in _SUMS if f.name != "sums"),
        ("n", pa.int64()),
        ("mean", pa.float64()),
        ("m2", pa.float64()),
    ]
)


@dataclass(frozen=True)
class PartScores:
    """The rows of a part: ids, sources, tokens, and whether the rules for single rows keep them.

    `scores` has float64[n] for each score of `keep`, NaN where it is null or the row is gone;
    `classes` what wanjuan says of each row.
    """

    rows: pa.Table
    alive: npt.NDArray[np.bool_]
    scores: dict[str, F64]
    classes: pa.Table | None

    @property
    def ids(self) -> pa.Array:
        """Ids of all rows."""
        return self.rows.column("doc_id").combine_chunks()

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of all rows; zeros where no stage counted them."""
        return np.asarray(self.rows.column("tokens").to_numpy())

    def groups(self, together: bool) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        """Groups in ascending order with their living rows."""
        alive = np.flatnonzero(self.alive)
        sources = self.rows.column("source").combine_chunks().dictionary_encode()
        yield from grouped(sources, alive, together)


def grouped(
    sources: pa.DictionaryArray, rows: npt.NDArray[np.int64], together: bool
) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Groups of some rows in ascending order: their sources, or "" for all."""
    if together:
        if len(rows):
            yield "", rows
        return
    codes = sources.indices.to_numpy(zero_copy_only=False)[rows]
    names = sources.dictionary.to_pylist()
    for code in sorted(np.unique(codes).tolist(), key=names.__getitem__):
        yield names[code], rows[codes == code]


@dataclass(frozen=True)
class Scores:
    """Where the scores of all parts are; light enough to be sent to every worker."""

    op: "Decide"
    scored: StepRef
    constants: StepRef | None = None
    ranked: StepRef | None = None

    @property
    def steps(self) -> list[StepRef]:
        """The steps that it reads."""
        return [s for s in (self.scored, self.constants, self.ranked) if s is not None]

    @property
    def compared(self) -> list[str]:
        """The scores that rows are cut by; wanjuan has classes instead."""
        return [name for name in self.op.keep if name != "wanjuan"]

    def together(self, name: str) -> bool:
        """Whether rows of all sources are compared."""
        return self.op.keep[name].together(name)

    def of(self, index: int) -> PartScores:
        """The rows of a part, in their order, with their scores."""
        rows = read_table(self.scored.run_dir, self.scored.files[index])
        alive = rows.column("reason").is_null().to_numpy()
        bare = PartScores(rows, alive, {}, None)
        known = _known(self.constants) if self.constants else {}
        ranked = None
        if self.ranked is not None:
            ranked = read_table(self.ranked.run_dir, self.ranked.files[index])
        scores = {}
        for name in self.compared:
            if ranked is not None and name in ranked.column_names:
                scores[name] = ranked.column(name).to_numpy()
                continue
            scores[name] = np.full(len(rows), np.nan)
            for group, own in bare.groups(self.together(name)):
                columns = _columns(self.op, name, rows, own)
                spreads = known.get((name, group))
                scores[name][own] = score_of(self.op, name, group, columns, spreads)
        classes = None
        if ranked is not None and "wanjuan" in self.op.keep:
            classes = ranked.select(CLASS_COLUMNS)
        return PartScores(rows, alive, scores, classes)


def score_of(
    op: "Decide", name: str, group: str, columns: dict[str, F64], known: Any = None
) -> F64:
    """The score of rows of one group; infinite values are null."""
    if name not in DERIVED:
        return np.where(np.isfinite(columns[name]), columns[name], np.nan)
    return derive(name, columns, known, **op.keep[name].of(group).options(name))


def _columns(op: "Decide", name: str, rows: pa.Table, own: Any) -> dict[str, F64]:
    wanted = [c for c in op.score_columns(name, more=True) if _RAW + c in rows.column_names]
    return {c: rows.column(_RAW + c).to_numpy()[own] for c in wanted}


def bring_scores(op: "Decide", context: BarrierContext) -> Scores:
    """The steps that make the scores of `keep`."""
    needs = {name: _need(op, name) for name in op.keep}
    ranked = [name for name, need in needs.items() if need == "group"]
    if ranked and context.rows > op.one_place_up_to:
        raise RunError(
            f"{context.rows:,} documents are more than `one_place_up_to` "
            f"({op.one_place_up_to:,}), and {' and '.join(ranked)} ranks them in one process",
            where=context.setting.stage,
            remedy="raise `one_place_up_to` where one worker can hold that many documents (100 "
            "bytes each and more), or cut by a score that needs no ranks: gateau with `norm: z`, "
            "or a column",
        )
    raw = sorted({c for name in op.keep for c in op.score_columns(name, more=True)})
    raw = [c for c in raw if context.corpus.has(c) or c in op.reads_columns()]
    tokens = {"n_tokens"} if context.corpus.has("n_tokens") else set()
    columns = sorted({"doc_id", "source", *op.judged_columns(), *raw, *tokens})
    rule = partial(_scored, op, raw, columns)
    scored = context.per_part("scored", rule, columns, ignore={"keep", "combine"}, depends=[raw])
    constants = place = None
    spread = [name for name, need in needs.items() if need == "spread"]
    if spread:
        rule = partial(_sums, Scores(op, scored), spread)
        sums = context.per_part("sums", rule, [], inputs=[scored])
        constants = context.single("constants", partial(_constants, sums), [sums])
    if ranked:
        place = context.single("ranked", partial(_ranked, op, scored, ranked), [scored])
    return Scores(op, scored, constants, place)


def _need(op: "Decide", name: str) -> str:
    """What a score must know of its group, at most over its sources."""
    if name not in DERIVED:
        return "row"
    rule = op.keep[name]
    options = [rule.of(source).options(name) for source in ("", *rule.per_source)]
    return max((DERIVED[name].form(o).needs for o in options), key=_NEEDS.index)


def _scored(
    op: "Decide", raw: list[str], columns: list[str], part: Part, setting: Setting
) -> pa.Table:
    """Living rows of a part with the columns that scores are made of, and why some go already."""
    found = []
    for table in part.groups(columns):
        tokens = pa.array(np.zeros(len(table), np.int64))
        if "n_tokens" in columns:
            tokens = table.column("n_tokens").fill_null(0).cast(pa.int64())
        made = {
            ROW: table.column(ROW),
            "doc_id": table.column("doc_id"),
            "source": table.column("source"),
            "tokens": tokens,
            "reason": pa.array(op.judge(table).tolist(), pa.string()),
        }
        found.append(
            pa.table(made | {_RAW + c: numbers(table.column(c), c, "decide") for c in raw})
        )
    return pa.concat_tables(found)


def _sums(scores: Scores, names: list[str], part: Part, setting: Setting) -> pa.Table:
    """What a part says of its groups: extent and exact sums of each column, as _SUMS."""
    rows = read_table(scores.scored.run_dir, scores.scored.files[part.index])
    bare = PartScores(rows, rows.column("reason").is_null().to_numpy(), {}, None)
    found = []
    for name in names:
        for group, own in bare.groups(scores.together(name)):
            for column, values in _columns(scores.op, name, rows, own).items():
                finite = np.where(np.isfinite(values), values, np.nan)
                low, high = extent(finite)
                sums = json.dumps(exact_sums(finite).to_json())
                found.append((name, group, column, low, high, sums))
    return pa.Table.from_pylist(
        [dict(zip(_SUMS.names, row, strict=True)) for row in found], schema=_SUMS
    )


def _constants(sums: StepRef, setting: Setting) -> dict[str, Any]:
    """Moments and extent of each column in each group."""
    exact: dict[tuple[str, ...], ExactSums] = defaultdict(ExactSums)
    extents: dict[tuple[str, ...], tuple[float, float]] = {}
    for row in sums.read().to_pylist():
        key = row["name"], row["group"], row["column"]
        exact[key] = exact[key] + ExactSums.from_json(json.loads(row["sums"]))
        low, high = extents.get(key, (np.inf, -np.inf))
        extents[key] = min(low, row["low"]), max(high, row["high"])
    rows = [
        {
            **dict(zip(("name", "group", "column"), key, strict=True)),
            "low": extents[key][0],
            "high": extents[key][1],
            "n": found.n,
            "mean": found.mean,
            "m2": found.m2,
        }
        for key, found in sorted(exact.items())
    ]
    return {"constants.parquet": pa.Table.from_pylist(rows, schema=_CONSTANTS)}


def _known(constants: StepRef) -> dict[tuple[str, str], dict[str, Spread]]:
    found: dict[tuple[str, str], dict[str, Spread]] = defaultdict(dict)
    for row in constants.read().to_pylist():
        moments = Moments(row["n"], row["mean"], row["m2"])
        found[row["name"], row["group"]][row["column"]] = Spread(moments, row["low"], row["high"])
    return found


def _ranked(op: "Decide", scored: StepRef, names: list[str], setting: Setting) -> dict[str, Any]:
    """Scores that need all rows of a group: one table for each part, aligned with `scored`."""
    raw = sorted({_RAW + c for name in names for c in op.score_columns(name, more=True)})
    tables = [_to_rank(scored, ref, raw) for ref in scored.files]
    whole = pa.concat_tables(tables).unify_dictionaries()
    rows = np.flatnonzero(whole.column("reason").is_null().to_numpy())
    sources = whole.column("source").combine_chunks()
    made: dict[str, pa.Array] = {}
    for name in names:
        kinds = {n: object if n == "lw_class" else np.float64 for n in made_by(name)}
        full = {n: np.full(len(whole), None, kind).astype(kind) for n, kind in kinds.items()}
        for group, own in grouped(sources, rows, op.keep[name].together(name)):
            columns = _columns(op, name, whole, own)
            for column, values in _in_group(op, name, group, columns).items():
                full[column][own] = values
        types = {n: _TYPES.get(n, pa.float64()) for n in full}
        made |= {n: pa.array(v, types[n], from_pandas=True) for n, v in full.items()}
    result = pa.table(made)
    starts = np.cumsum([0, *(len(t) for t in tables)])
    return {f"{i:06d}.parquet": result.slice(starts[i], len(t)) for i, t in enumerate(tables)}


def made_by(name: str) -> tuple[str, ...]:
    """Columns of `ranked` that a score becomes."""
    return CLASS_COLUMNS if name == "wanjuan" else (name,)


def _to_rank(scored: StepRef, ref: FileRef, raw: list[str]) -> pa.Table:
    table = read_table(scored.run_dir, ref)
    sources = table.column("source").dictionary_encode()
    known = [c for c in ("reason", *raw) if c in table.column_names]
    return table.select(known).append_column("source", sources)


def _in_group(op: "Decide", name: str, group: str, columns: dict[str, F64]) -> dict[str, Any]:
    if name != "wanjuan":
        return {name: score_of(op, name, group, columns)}
    found = wanjuan(columns, **op.keep[name].of(group).options(name))
    return dict(zip(CLASS_COLUMNS, found, strict=True))
