"""Documents for proxy runs, read and counted on Ray.

Every part (or group of files) is read by one task, which keeps the tokens of the pool's documents
and of some held-out ones; one task for each source puts them in the order of their ids and maps
them to the proxies' vocabulary. What results lies once in each node's object store, and every
training task maps it: 4 bytes a token of the pool while reading, 2 afterwards.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from longctx.engine import manifest
from longctx.engine.corpus import Part
from longctx.engine.finished import finished_corpus
from longctx.engine.inputs import Group, list_inputs
from longctx.errors import LongctxError, RecipeError, RunError
from longctx.io import paths
from longctx.io.read import Bad, Row, read
from longctx.mixture.pools import Counted
from longctx.mixture.proxy_data import Found, HeldOut, Piece, Reading, Rows, assemble, take
from longctx.mixture.proxy_order import Documents
from longctx.mixture.proxy_vocabulary import Vocabulary
from longctx.recipe import Input
from longctx.text.tokenize import load_tokenizer

if TYPE_CHECKING:
    from ray import ObjectRef

I32 = npt.NDArray[np.int32]

_CLUSTER = "dup_cluster_id"
_GROUP_BYTES = 64 << 20
_BATCH_DOCUMENTS = 256
RETRIES = 3


@dataclass(frozen=True)
class TextUnit:
    """Files with texts, and the tokenizer that they are read with."""

    group: Group
    tokenizer: str


Unit = Part | TextUnit


@dataclass(frozen=True)
class Assembled:
    """A source ready to train on, in the object store, and what the driver knows of it."""

    documents: "ObjectRef[Documents]"
    held: HeldOut
    digest: str


def units_of(place: str, fields: Mapping[str, Any], tokenizer: str | None) -> list[Unit]:
    """What there is to read: the parts of a run folder, or groups of JSONL or Parquet files.

    Of a run the documents that live before packing and before any mixture; `fields` of `Input` and
    the tokenizer are for files. RecipeError where a run has no tokens, or no file can be read.
    """
    place = paths.absolute(place)
    if not _is_run(place):
        listing = list_inputs([_input(place, fields)], _GROUP_BYTES)
        return [TextUnit(group, tokenizer or "embedded") for group in listing.groups]
    if fields or tokenizer:
        raise RecipeError(
            "this is a run folder, which has fields and tokens of its own",
            where=place,
            remedy="leave out --text-field, --source-field, --id-field and --tokenizer",
        )
    from longctx.report.run_shape import check

    run = manifest.load(place)
    check("run", run, paths.join(place, manifest.FILE))
    stages: list[dict[str, Any]] = []
    for stage in run["stages"]:
        if stage["op"] == "pack" or stage["op"].startswith("mix."):
            break
        stages.append(stage)
    corpus = finished_corpus(place, stages)
    if not corpus.has("tokens"):
        raise RecipeError(
            "no stage of this run made tokens",
            where=place,
            remedy="add score.heuristics to its recipe and run it again",
        )
    return [corpus.part(number) for number in range(len(corpus))]


def _input(place: str, fields: Mapping[str, Any]) -> Input:
    try:
        return Input(path=place, **{"source_field": "source", **fields})
    except ValidationError as error:
        raise RecipeError(
            error.errors()[0]["msg"].removeprefix("Value error, "),
            where="--data",
            remedy="correct the place or the names of the fields",
        ) from None


def _is_run(place: str) -> bool:
    """Whether this is a run folder; a glob or a file is none."""
    try:
        return paths.read_if_exists(paths.join(place, manifest.FILE)) is not None
    except RunError:
        return False


def read_all(
    units: Sequence[Unit], reading: Reading
) -> "tuple[Found, dict[str, list[ObjectRef[Piece]]]]":
    """Read all units; what they hold in all, and for each source its pieces in the object store."""
    import ray

    task = ray.remote(num_cpus=1, max_retries=RETRIES, num_returns=1 + len(reading.sources))(
        read_unit
    )
    refs: list[Any] = [task.remote(unit, reading) for unit in units]
    total = Found()
    sums: dict[str, Counter[int]] = {}
    with worker_errors():
        for first, *_ in refs:
            part: Found = ray.get(first)
            total.highest = max(total.highest, part.highest)
            total.bad += part.bad
            for name, counted in part.counted.items():
                total.counted[name] = total.counted.get(name, Counted()) + counted
            for name, (own, often) in part.ids.items():
                adding = dict(zip(own.tolist(), often.tolist(), strict=True))
                sums.setdefault(name, Counter()).update(adding)
    for name, counts in sorted(sums.items()):
        own = np.array(sorted(counts), dtype=np.int64)
        total.ids[name] = own, np.array([counts[i] for i in own.tolist()], dtype=np.int64)
    pieces = {name: [ref[1 + i] for ref in refs] for i, name in enumerate(reading.sources)}
    return total, pieces


def read_unit(unit: Unit, reading: Reading) -> tuple[Found | Piece, ...]:
    """One part: what it holds, then a piece for each source of `reading`."""
    bad: Counter[str] = Counter()
    rows = _of_part(unit) if isinstance(unit, Part) else _of_texts(unit, bad)
    found, pieces = take(rows, reading)
    return (replace(found, bad=bad.total()), *pieces.values())


def _of_part(part: Part) -> Iterator[Rows]:
    """Living documents of a part."""
    columns = ["doc_id", "source", "tokens"]
    known = [_CLUSTER] if _CLUSTER in part.columns() else []
    for table in part.groups([*columns, *known]):
        ids = table["doc_id"].to_pylist()
        clusters = table[_CLUSTER].to_pylist() if known else ids
        keys = [cluster or name for cluster, name in zip(clusters, ids, strict=True)]
        tokens = [row for chunk in table["tokens"].chunks for row in _lists(chunk)]
        yield Rows(ids, keys, table["source"].to_pylist(), tokens)


def _lists(chunk: Any) -> Iterator[I32]:
    values, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy()
    for first, last in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        yield values[first:last]


def _of_texts(unit: TextUnit, bad: Counter[str]) -> Iterator[Rows]:
    """The same of files with texts; rows that cannot be read are counted."""
    tokenizer = load_tokenizer(unit.tokenizer)
    rows: list[Row] = []

    def tokenised() -> Rows:
        ids = [row.doc_id for row in rows]
        tokens = tokenizer.encode_batch([row.text for row in rows])
        return Rows(ids, ids, [row.source for row in rows], tokens)

    for file in unit.group.files:
        for item in read(file.url, file.key, unit.group.spec):
            if isinstance(item, Bad):
                bad[item.reason] += item.rows
            elif isinstance(item, Row):
                rows.append(item)
            if len(rows) >= _BATCH_DOCUMENTS:
                yield tokenised()
                rows = []
    if rows:
        yield tokenised()


def assemble_all(
    pieces: "Mapping[str, Sequence[ObjectRef[Piece]]]", vocabulary: Vocabulary, reading: Reading
) -> dict[str, Assembled]:
    """Every source in the proxies' vocabulary, ready to train on."""
    import ray

    task = ray.remote(num_cpus=1, max_retries=RETRIES, num_returns=3)(assemble)
    known = ray.put(vocabulary)
    refs: dict[str, Any] = {
        name: task.remote(known, reading, *parts) for name, parts in pieces.items()
    }
    with worker_errors():
        return {
            name: Assembled(documents, ray.get(held), ray.get(digest))
            for name, (documents, held, digest) in refs.items()
        }


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise what workers raised as an error of the house."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, LongctxError):
            raise cause from None
        if isinstance(cause, Exception):
            raise RunError(
                f"{type(cause).__name__}: {cause}\n{error}",
                where="longctx mix train",
                remedy="this is a fault of longctx, please report it; finished proxies are kept",
            ) from None
        raise RunError(
            f"a worker died {RETRIES + 1} times in a row ({type(error).__name__})",
            where="longctx mix train",
            remedy="most likely it ran out of memory (see dmesg): lower --cpus, --per-gpu or "
            "--batch and run again; finished proxies are kept",
        ) from None
