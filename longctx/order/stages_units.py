"""Steps over the units of kNN-Pretraining: made once per part, embedded while they are searched.

The vectors of all sentences would be many times the text, so none is stored: the anchors are few
and fit every worker, and each part embeds its units, group by group, and keeps the best for each
anchor. Candidates of one similarity are ranked by (number of the document, place in it), which
parts and workers cannot change.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.embed.stages import Embed
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import NO_VECTOR, PART, addressed, as_binary, from_binary
from longctx.engine.steps import BUCKET, Stats, StepRef, read_table
from longctx.ids import priorities

if TYPE_CHECKING:
    from longctx.embed.encoders import Encoder

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_BATCH = 1 << 14
UNITS = pa.schema(
    [
        (ROW, pa.int32()),
        ("unit", pa.int32()),  # place in the document
        ("start", pa.int64()),  # tokens
        ("end", pa.int64()),
        ("first", pa.int64()),  # characters
        ("last", pa.int64()),
        ("key", pa.uint64()),
    ]
)
# A unit named from outside its part: `at` is its row in the part's table of units.
NAMED = [
    (PART, pa.int32()),
    ("at", pa.int32()),
    ("number", pa.int64()),
    ("unit", pa.int32()),
    ("tokens", pa.int32()),
]
FOUND = pa.schema([("anchor", pa.int32()), ("sim", pa.float32()), *NAMED])
TEXTS = pa.schema(
    [
        (PART, pa.int32()),
        ("at", pa.int32()),
        (ROW, pa.int32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("key", pa.uint64()),
        ("text", pa.large_string()),
    ]
)


def number_documents(parts: list[Part], setting: Setting) -> dict[str, Any]:
    """All living documents in ascending order of doc_id, and for each part their numbers by row."""
    columns = ["doc_id", "n_tokens"]
    tables = [(part, part.table(columns)) for part in parts]
    rows = pa.concat_tables(
        [addressed(p, t).append_column("n_tokens", t.column("n_tokens")) for p, t in tables]
    )
    rows = rows.sort_by("doc_id").combine_chunks()
    tokens = rows.column("n_tokens").fill_null(0)
    rows = rows.set_column(rows.column_names.index("n_tokens"), "n_tokens", tokens)
    stats = {"documents": rows.num_rows, "tokens": int(tokens.to_numpy().sum())}
    own = rows.select([PART, ROW]).append_column("number", pa.array(np.arange(rows.num_rows)))
    own = own.sort_by([(PART, "ascending"), (ROW, "ascending")])
    borders = np.searchsorted(own.column(PART).to_numpy(), np.arange(len(parts) + 1))
    files: dict[str, Any] = {
        f"{i:06d}.parquet": own.slice(borders[i], borders[i + 1] - borders[i]).drop_columns([PART])
        for i in range(len(parts))
    }
    return {"documents.parquet": Stats.attach(rows.drop_columns(["doc_id"]), stats), **files}


def read_documents(documents: StepRef) -> pa.Table:
    """`doc_key`, `part`, `row` and `n_tokens` of all documents, by number."""
    ref = next(f for f in documents.files if f.name.endswith("/documents.parquet"))
    return read_table(documents.run_dir, ref)


def make_units(
    encoder: Embed,
    bounds: tuple[int, int],
    most: int | None,
    part: Part,
    setting: Setting,
) -> pa.Table:
    """The part's units by (row, place), of documents in languages that the encoder knows."""
    from longctx.order.units import document_units, evenly_chosen, unit_keys
    from longctx.pack.windows import list_values
    from longctx.text.tokenize import load_tokenizer

    tokenizer = load_tokenizer(setting.tokenizer)
    found, passed = [], 0
    for table in part.groups(["doc_id", "text", "language", "tokens"]):
        known = encoder.knows(table.column("language").to_pylist())
        passed += len(known) - sum(known)
        table = table.filter(pa.array(known, pa.bool_()))
        if not table.num_rows:
            continue
        keys = addressed(part, table).column("doc_key").to_numpy()
        values, offsets = list_values(table.column("tokens"))
        rows = table.column(ROW).to_numpy()
        for i, text in enumerate(table.column("text").to_pylist()):
            ids = values[offsets[i] : offsets[i + 1]]
            spans, characters = document_units(tokenizer, ids, text, *bounds)
            place = evenly_chosen(len(spans), most)
            found.append(
                (
                    np.full(len(place), rows[i], dtype=np.int32),
                    place.astype(np.int32),
                    spans[place],
                    characters[place],
                    unit_keys(np.full(len(place), keys[i]), place),
                )
            )
    stats = {"units": sum(len(f[1]) for f in found), "documents_in_unknown_languages": passed}
    if not found:
        return Stats.attach(UNITS.empty_table(), {**stats, "unit_tokens": 0})
    row, place, spans, characters, key = (
        np.concatenate([f[i] for f in found]) for i in range(len(UNITS.names) - 2)
    )
    columns = [row, place, *spans.T, *characters.T, key]
    tokens = int((spans[:, 1] - spans[:, 0]).sum())
    return Stats.attach(pa.table(columns, schema=UNITS), {**stats, "unit_tokens": tokens})


def sample_anchors(
    units: StepRef, documents: StepRef, wanted: int, part: Part, setting: Setting
) -> pa.Table:
    """The part's units of smallest priority: the anchors of the corpus are among theirs."""
    own = _own(units, part)
    priority = priorities(own.column("key").to_numpy(), setting.seed)
    chosen = np.sort(np.argsort(priority, kind="stable")[:wanted])
    named = _named(part, own, _numbers(documents, part, own), chosen)
    named = named.append_column("priority", pa.array(priority[chosen], pa.uint64()))
    return named.append_column("text", pa.array(_texts(part, own, chosen), pa.large_string()))


def embed_anchors(
    sample: StepRef, model: str, wanted: int, rel_lo: float, setting: Setting
) -> dict[str, Any]:
    """The anchors in order of priority, with vectors; how alike they are says what chance gives."""
    from longctx.cluster.similarity import pair_similarities
    from longctx.order.metrics import coherence
    from longctx.order.tours import histogram

    order = [(n, "ascending") for n in ("priority", "number", "unit")]
    table = sample.read().sort_by(order).slice(0, wanted)
    matrix = _embedded(model, table.column("text").to_pylist())
    usable = np.linalg.norm(matrix, axis=1) > NO_VECTOR
    table = table.filter(pa.array(usable)).drop_columns(["priority", "text"])
    matrix = matrix[usable]
    number = np.arange(len(matrix))
    mean = coherence(matrix, number, len(matrix)) if len(matrix) > 1 else None
    warnings = {}
    if mean is not None and mean > rel_lo:
        warnings[
            f"Two sentences taken at random have a mean cosine of {mean:.3f}, so rel_lo {rel_lo:g} "
            "lets unrelated sentences into examples: raise it, or use an encoder that tells these "
            "texts apart."
        ] = 1
    pairs = pair_similarities(matrix, number[:-1], number[1:])
    stats = {
        "anchors": table.num_rows,
        "mean_similarity_random": mean,
        "random_pairs_above_rel_lo": float(np.mean(pairs >= rel_lo)) if len(pairs) else None,
        "histogram_random": histogram(matrix, number),
        "warnings": warnings,
    }
    table = table.append_column("vector", as_binary(matrix))
    return {"anchors.parquet": Stats.attach(table, stats)}


def search_units(
    units: StepRef,
    documents: StepRef,
    anchors: StepRef,
    model: str,
    k: int,
    rel_lo: float,
    part: Part,
    setting: Setting,
) -> pa.Table:
    """The part's `k` nearest units of each anchor, as far as they are related to it at all."""
    from longctx.cluster.knn import merge_lists
    from longctx.cluster.similarity import nearest

    own = _own(units, part)
    number = _numbers(documents, part, own)
    by_rank = np.lexsort((own.column("unit").to_numpy(), number))
    rank = np.empty(len(by_rank), dtype=np.int32)
    rank[by_rank] = np.arange(len(by_rank))
    known = anchors.read(["vector", PART, "at"])
    queries = from_binary(known.column("vector"), np.float32)
    itself = np.where(known.column(PART).to_numpy() == part.index, known.column("at"), -1)
    best = nearest(queries, queries[:0], k)
    for at, texts in _groups(part, own):
        at, texts = at[np.argsort(rank[at])], [texts[i] for i in np.argsort(rank[at])]
        matrix = _embedded(model, texts)
        usable = np.linalg.norm(matrix, axis=1) > NO_VECTOR
        at, matrix = at[usable], matrix[usable]
        place = {unit: i for i, unit in enumerate(at.tolist())}
        skip = np.array([place.get(a, -1) for a in itself.tolist()], dtype=np.int64)
        lists, sims = nearest(queries, matrix, k, skip)
        lists = np.where(lists >= 0, rank[at][lists] if len(at) else -1, -1).astype(np.int32)
        best = merge_lists(best, (lists, sims), k)
    related = (best[0] >= 0) & (best[1] >= np.float32(rel_lo))
    anchor, _ = np.nonzero(related)
    found = _named(part, own, number, by_rank[best[0][related]])
    found = found.append_column("anchor", pa.array(anchor, pa.int32()))
    return found.append_column("sim", pa.array(best[1][related])).select(FOUND.names)


def by_anchor(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    """Prepare for the exchange that brings the candidates of an anchor together."""
    return table.append_column(
        BUCKET, pa.array(table.column("anchor").to_numpy() % buckets, pa.int32())
    )


def merge_found(k: int, table: pa.Table, setting: Setting) -> pa.Table:
    """The `k` best of each anchor over all parts, by (similarity descending, document, place)."""
    anchor, number, unit = (table.column(c).to_numpy() for c in ("anchor", "number", "unit"))
    order = np.lexsort((unit, number, -table.column("sim").to_numpy(), anchor))
    anchor = anchor[order]
    place = np.arange(len(anchor)) - np.searchsorted(anchor, anchor)
    return table.take(pa.array(order[place < k])).select(FOUND.names)


def fetch_texts(
    units: StepRef, anchors: StepRef, candidates: StepRef, part: Part, setting: Setting
) -> pa.Table:
    """Where the part's anchors and candidates stand, and what they say."""
    named = [s.read([PART, "at"]) for s in (anchors, candidates)]
    everything = pa.concat_tables(named)
    here = everything.column(PART).to_numpy() == part.index
    at = np.unique(everything.column("at").to_numpy()[here])
    own = _own(units, part)
    taken = own.take(pa.array(at))
    columns = {
        PART: np.full(len(at), part.index, dtype=np.int32),
        "at": at.astype(np.int32),
        **{n: taken.column(n) for n in (ROW, "start", "end", "key")},
        "text": pa.array(_texts(part, own, at), pa.large_string()),
    }
    return pa.table(columns, schema=TEXTS)


@lru_cache(maxsize=1)
def _encoder(model: str) -> "Encoder":
    from longctx.embed.encoders import load_encoder

    return load_encoder(model)


def _embedded(model: str, texts: list[str]) -> F32:
    encoder = _encoder(model)
    batches = [encoder.encode(texts[i : i + _BATCH])[0] for i in range(0, len(texts), _BATCH)]
    return np.concatenate([np.zeros((0, encoder.dim), dtype=np.float32), *batches])


def _own(units: StepRef, part: Part) -> pa.Table:
    """The part's table of units."""
    (ref,) = next(files for name, files in units.units if name == part.name)
    return read_table(units.run_dir, ref).combine_chunks()


def _numbers(documents: StepRef, part: Part, own: pa.Table) -> I64:
    """The document number of each of the part's units."""
    ref = next(f for f in documents.files if f.name.endswith(f"/{part.index:06d}.parquet"))
    table = read_table(documents.run_dir, ref)
    at = np.searchsorted(table.column(ROW).to_numpy(), own.column(ROW).to_numpy())
    return table.column("number").to_numpy()[at]


def _named(part: Part, own: pa.Table, number: I64, at: I64) -> pa.Table:
    """The units `at` as rows of NAMED."""
    taken = own.take(pa.array(at))
    tokens = taken.column("end").to_numpy() - taken.column("start").to_numpy()
    return pa.table(
        {
            PART: np.full(len(at), part.index, dtype=np.int32),
            "at": at.astype(np.int32),
            "number": number[at],
            "unit": taken.column("unit"),
            "tokens": tokens.astype(np.int32),
        },
        schema=pa.schema(NAMED),
    )


def _groups(part: Part, own: pa.Table) -> Any:
    """The part's units, row group by row group: their places in `own` and their texts."""
    row = own.column(ROW).to_numpy()
    first, last = own.column("first").to_numpy(), own.column("last").to_numpy()
    for table in part.groups(["text"]):
        here = table.column(ROW).to_numpy()
        if not len(here):
            continue
        at = np.arange(*np.searchsorted(row, [here[0], here[-1] + 1]))
        if not len(at):
            continue
        texts = table.column("text").to_pylist()
        document = np.searchsorted(here, row[at]).tolist()
        cut = zip(document, first[at].tolist(), last[at].tolist(), strict=True)
        yield at, [texts[d][a:b] for d, a, b in cut]


def _texts(part: Part, own: pa.Table, at: I64) -> list[str]:
    """The texts of some of the part's units, `at` ascending."""
    wanted = own.take(pa.array(at))
    return [text for _, texts in _groups(part, wanted) for text in texts]
