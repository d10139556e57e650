"""`dedup.minhash` on the engine: signatures per part, bands to buckets, components, clusters.

Everything travels under stable document keys, so any step may run again. A signature stays in its
part until a band of it is known to be shared: keys of bands (20 bytes each) meet first, and only
the documents that met another one travel on, with a copy of their signature for each such band.
"""

from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from longctx.dedup.stages_bands import Banding, by_band, find_candidates, matrix
from longctx.dedup.stages_components import EDGES, find_components
from longctx.dedup.stages_profiles import Profile, by_profile
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import ADDRESS, PART, addressed, as_binary, to_part
from longctx.engine.steps import BUCKET, Stats, bucket_of

_COMPARED = pa.schema(
    [("band_key", pa.uint64()), ("doc_key", pa.uint64()), ("sig", pa.large_binary())]
)
_MEMBERS = pa.schema(
    [
        *ADDRESS,
        ("label", pa.uint64()),
        ("order", pa.float64()),
        ("source", pa.string()),
        ("sig", pa.large_binary()),
    ]
)
_CLUSTERED = pa.schema(
    [
        (ROW, pa.int32()),
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("dup_cluster_id", pa.string()),
        ("dup_cluster_size", pa.int64()),
        ("dup_kept", pa.bool_()),
        ("dup_sim_kept", pa.float32()),
    ]
)


class DedupMinHash(Barrier):
    """Keeps one document of each cluster of near-duplicates (Jaccard similarity of shingles).

    Candidates share a band of `rows` values; a pair becomes an edge when its signatures agree in at
    least `threshold` of all values (`verify: none` trusts the bands alone). `keep` chooses the
    survivor: the longest text, the smallest doc_id, or `max:column` / `min:column`; ties go to the
    smallest doc_id. `min_kept_sim` removes only documents at least that similar to the survivor.
    """

    op: Literal["dedup.minhash"]
    threshold: float = Field(0.7, gt=0, le=1)
    verify: Literal["signature", "none"] = "signature"
    num_perm: int = Field(112, ge=2, le=4096)
    bands: int = Field(14, ge=1)
    rows: int = Field(8, ge=1)
    ngram: int = Field(5, ge=1, le=1024)
    seed: int = Field(1, ge=0, lt=2**32)
    profile: Profile = "text"
    profiles: dict[str, Profile] = Field(default_factory=dict)
    scope: Literal["none", "source"] = "none"
    keep: str = Field("longest", pattern=r"^(longest|smallest_id|(max|min):\w+)$")
    min_kept_sim: float = Field(0.0, ge=0, le=1)
    local_edges: int = Field(50_000_000, ge=0)

    summary: ClassVar[str] = "keep one of each cluster of near-duplicates"
    source: ClassVar[str] = "Broder 1997; FineWeb 2406.17557 (14 x 8); datasketch 2 `affine32`"
    cost: ClassVar[str] = (
        "signatures 30+ MB/s per core; exchange of bands x 20 bytes, and of bands x 4 x num_perm "
        "for documents that share a band"
    )
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = (
        "dup_cluster_id",
        "dup_cluster_size",
        "dup_kept",
        "dup_sim_kept",
        DROP_REASON,
    )
    removes: ClassVar[bool] = True
    # Where the components are computed cannot change them.
    neutral: ClassVar[frozenset[str]] = frozenset({"local_edges"})

    @model_validator(mode="after")
    def _bands_fit(self) -> "DedupMinHash":
        if self.bands * self.rows > self.num_perm:
            raise ValueError(
                f"bands x rows = {self.bands * self.rows} exceeds num_perm = {self.num_perm}"
            )
        return self

    def reads_columns(self) -> tuple[str, ...]:
        return (*self.reads, *([c] if (c := self._keep_column()) else []))

    def _keep_column(self) -> str | None:
        return self.keep.partition(":")[2] or None

    def run(self, context: BarrierContext) -> None:
        later = ("keep", "min_kept_sim", "threshold", "verify", "bands", "rows", "scope")
        columns = [*self.reads_columns(), "doc_id", "source"]
        signed = context.per_part(
            "signatures", partial(_signatures, self), columns, ignore=set(later) - {"keep"}
        )
        banding = Banding(self.bands, self.rows, self.scope == "source")
        candidates = find_candidates(
            context, signed, banding, ("keep", "min_kept_sim", "threshold", "verify")
        )
        buckets = self.bands * context.buckets_for([candidates])
        edges = context.exchange(
            "edges",
            [(candidates, partial(by_band, buckets))],
            partial(_edges, self),
            _COMPARED,
            buckets=buckets,
            copies=self.bands,
            ignore=("keep", "min_kept_sim"),
        )
        labels = find_components(context, edges, self.local_edges, ("keep", "min_kept_sim"))
        count = context.buckets_for([labels, candidates])
        members = context.exchange(
            "members",
            [(labels, partial(_by_node, count)), (candidates, partial(_by_document, count))],
            _join_labels,
            _MEMBERS,
            buckets=count,
            ignore=("min_kept_sim",),
        )
        count = context.buckets_for([members])
        clusters = context.exchange(
            "clusters",
            [(members, partial(_by_label, count))],
            partial(_choose, self.keep),
            _MEMBERS,
            buckets=count,
            ignore=("min_kept_sim",),
        )
        rule = partial(_mark, self.min_kept_sim)
        context.sidecar("", [(clusters, to_part)], rule, _CLUSTERED, self.writes, removes=True)


def _signatures(op: DedupMinHash, part: Part, setting: Setting) -> pa.Table:
    from longctx.dedup.minhash import signatures

    found = []
    extra = [c for c in [op._keep_column()] if c]
    for table in part.groups(["doc_id", "text", "source", *extra]):
        sig = np.zeros((table.num_rows, op.num_perm), dtype=np.uint32)
        shingles = np.zeros(table.num_rows, dtype=np.int64)
        for profile, rows, texts in by_profile(table, op.profile, op.profiles):
            sig[rows], shingles[rows] = signatures(
                texts, num_perm=op.num_perm, ngram=op.ngram, seed=op.seed, profile=profile
            )
        signed = addressed(part, table)
        signed = signed.append_column("order", pa.array(_order(op.keep, table)))
        signed = signed.append_column("source", table.column("source"))
        signed = signed.append_column("sig", as_binary(sig).cast(pa.large_binary()))
        # A document without tokens has no signature: it is nobody's duplicate.
        found.append(signed.filter(pa.array(shingles > 0)))
    return pa.concat_tables(found)


def _order(keep: str, table: pa.Table) -> npt.NDArray[np.float64]:
    """What the survivor has least of: the negative length, a column, or nothing (ids decide)."""
    if keep == "longest":
        return -pc.utf8_length(table.column("text")).to_numpy().astype(np.float64)
    if keep == "smallest_id":
        return np.zeros(table.num_rows)
    sign, _, column = keep.partition(":")
    values = table.column(column).cast(pa.float64()).to_numpy()
    ordered = -values if sign == "max" else values
    return np.where(np.isnan(ordered), np.inf, ordered)


def _edges(op: DedupMinHash, table: pa.Table, setting: Setting) -> pa.Table:
    from longctx.dedup.minhash import leader_edges

    if table.num_rows == 0:
        return EDGES.empty_table()
    keys, documents = table.column("band_key").to_numpy(), table.column("doc_key").to_numpy()
    u, v, _, crowded = leader_edges(
        keys, documents, matrix(table), threshold=op.threshold, verify=op.verify
    )
    pairs = np.unique(np.stack([u, v], axis=1), axis=0)
    found = pa.table({"node": pairs[:, 0], "other": pairs[:, 1]}, schema=EDGES)
    _, sizes = np.unique(keys, return_counts=True)
    huge = int((sizes > 10_000).sum())
    shared = int((sizes > 1).sum())
    return Stats.attach(found, {"unmatched": crowded, "shared_bands": shared, "huge_bands": huge})


def _by_node(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    """Labels as rows of _MEMBERS whose other columns are null."""
    keys = table.column("node").to_numpy()
    columns = {
        f.name: pa.nulls(table.num_rows, f.type)
        for f in _MEMBERS
        if f.name not in ("doc_key", "label")
    }
    rows = pa.table({**columns, "doc_key": keys, "label": table.column("other")}).select(
        _MEMBERS.names
    )
    return rows.append_column(BUCKET, bucket_of(keys, buckets))


def _by_document(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    keys = table.column("doc_key").to_numpy()
    rows = table.append_column("label", pa.nulls(table.num_rows, pa.uint64())).select(
        _MEMBERS.names
    )
    return rows.append_column(BUCKET, bucket_of(keys, buckets))


def _join_labels(table: pa.Table, setting: Setting) -> pa.Table:
    """Documents that are in a cluster, with its label."""
    is_label = pc.is_valid(table.column("label"))
    labels, documents = table.filter(is_label), table.filter(pc.invert(is_label))
    nodes = labels.column("doc_key").to_numpy()
    order = np.argsort(nodes)
    nodes = nodes[order]
    keys = documents.column("doc_key").to_numpy()
    at = np.searchsorted(nodes, keys)
    inside = at < len(nodes)
    inside[inside] = nodes[at[inside]] == keys[inside]
    members = documents.filter(pa.array(inside))
    label = labels.column("label").to_numpy()[order][at[inside]]
    place = members.column_names.index("label")
    return members.set_column(place, "label", pa.array(label, pa.uint64()))


def _by_label(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    return table.append_column(BUCKET, bucket_of(table.column("label").to_numpy(), buckets))


def _choose(keep: str, table: pa.Table, setting: Setting) -> pa.Table:
    """One survivor for each cluster; the cluster is named by its smallest doc_id."""
    table = table.sort_by([("label", "ascending"), ("order", "ascending"), ("doc_id", "ascending")])
    table = table.combine_chunks()
    label = table.column("label").to_numpy()
    n = len(label)
    first = np.ones(n, dtype=bool)
    first[1:] = label[1:] != label[:-1]
    group = np.cumsum(first) - 1
    start = np.flatnonzero(first)
    size = np.bincount(group, minlength=len(start)) if n else np.zeros(0, dtype=np.int64)
    ids = table.column("doc_id").to_pylist()
    names = [min(ids[s : s + c]) for s, c in zip(start, size, strict=True)]
    sig = matrix(table)
    agreement = (sig == sig[start[group]]).mean(axis=1) if n else np.zeros(0)
    found = pa.table(
        {
            PART: table.column(PART),
            ROW: table.column(ROW),
            "doc_id": table.column("doc_id"),
            "source": table.column("source"),
            "dup_cluster_id": pa.array([names[g] for g in group], pa.string()),
            "dup_cluster_size": size[group].astype(np.int64),
            "dup_kept": first,
            "dup_sim_kept": pa.array(agreement, pa.float32()),
        }
    )
    return Stats.attach(found, {"clusters": len(start), "members": n})


def _mark(min_kept_sim: float, base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    places = np.searchsorted(base.column(ROW).to_numpy(), brought.column(ROW).to_numpy())
    cluster = base.column("doc_id").to_pylist()
    size = np.ones(len(cluster), dtype=np.int64)
    kept = np.ones(len(cluster), dtype=bool)
    similarity = np.ones(len(cluster), dtype=np.float32)
    for place, name in zip(places, brought.column("dup_cluster_id").to_pylist(), strict=True):
        cluster[place] = name
    size[places] = brought.column("dup_cluster_size").to_numpy()
    similarity[places] = brought.column("dup_sim_kept").to_numpy()
    survives = brought.column("dup_kept").to_numpy() | (similarity[places] < min_kept_sim)
    kept[places] = survives
    return pa.table(
        {
            "dup_cluster_id": pa.array(cluster, pa.string()),
            "dup_cluster_size": size,
            "dup_kept": kept,
            "dup_sim_kept": pa.array(similarity),
            DROP_REASON: pa.array([None if k else "minhash" for k in kept], pa.string()),
        }
    )
