"""What units of `synth.in2` do beside asking: cut documents into pieces, and fill their contexts.

Both leave what they found as replies are left, so that stages and rows read it beside them: the
step `sources` says how a document is cut and asked, `fillers` how long its context is and holds the
texts that fill it. A unit holds its own documents and fillers, and one shelf of the pool: 200 rows
of 4,096 to 32,768 words take 140 MB. Each unit reads the shelves that it needs, most of them where
the pool is not much larger than what it draws (120 MB for 200,000 pieces); texts are written twice,
here and in the rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from longctx.engine.corpus import parquet_groups
from longctx.engine.op import Setting
from longctx.engine.units import Sink
from longctx.llm.keys import canonical_json
from longctx.llm.rejects import StageCount, reject_table
from longctx.synth.film import Segment, segments_of
from longctx.synth.film_rows import JOIN, asked_piece, draw_context
from longctx.synth.in2 import INTEGRATION, SOURCES, Source, cut, source_of, used_of
from longctx.synth.items import Item
from longctx.synth.rows import Reject as RowReject
from longctx.synth.stages_in2_pool import PoolRef, cluster_of, shelves_of
from longctx.synth.stages_work import REPLIES, Groups, counted, items_of, own_reject
from longctx.synth.tokens import TokenCounter, token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_in2 import SynthIN2


@dataclass(frozen=True)
class SourcesWork:
    """Work of the step `sources`: documents cut into pieces."""

    op: "SynthIN2"
    setting: Setting
    folder: str
    model: str

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        name, groups = payload
        counter = token_counter(self.setting.tokenizer)
        kinds = {row["id"]: row for _, brought in groups for row in brought["rows"]}
        clusters = clusters_of(groups, self.op.cluster_column)
        good: dict[str, Source] = {}
        bad: dict[str, RowReject] = {}
        items = items_of(self.setting.run_dir, groups)
        for item in items:
            cluster = clusters.get(item.id)
            made = self._source(item, kinds[item.id], cluster, counter)
            if isinstance(made, RowReject):
                bad[item.id] = made
            else:
                good[item.id] = made
        write_replies(sink, f"{self.folder}/{name}.parquet", {i: dict(s) for i, s in good.items()})
        rejects = [own_reject(self.op, SOURCES, i, why, self.model) for i, why in bad.items()]
        table = reject_table(rejects)
        file = f"{self.folder}/{name}-rejects.parquet"
        sink.write(file, parquet_groups([table]), table.num_rows)
        count = StageCount(len(items), len(good), 0, Counter(r.code for r in bad.values()))
        count.check(f"{self.setting.stage}/{SOURCES}")
        return {"stats": counted(count)}

    def _source(
        self,
        item: Item,
        chosen: Mapping[str, Any],
        cluster: str | None,
        counter: TokenCounter,
    ) -> Source | RowReject:
        pieces = segments_of(item.id, item.text, counter)
        least = 2 if chosen["kind"] == INTEGRATION else 1
        if len(pieces) < least:
            return RowReject(code="too_short", detail=f"{len(pieces)} pieces, {least} are needed")
        ends = list(accumulate(len(s.text) for s in pieces))
        return Source(
            type=chosen["type"],
            kind=chosen["kind"],
            piece=asked_piece(len(pieces), self.setting.seed, item.id),
            spans=[[a, b] for a, b in pairwise([0, *ends])],
            n_tokens=[s.n_tokens for s in pieces],
            cluster=cluster,
        )


def clusters_of(groups: Groups, column: str | None) -> dict[str, str | None]:
    """The near-duplicate clusters of a unit's documents by id; none without a column."""
    found: dict[str, str | None] = {}
    if column is None:
        return found
    for part, brought in groups:
        ids = {row["id"] for row in brought["rows"]}
        for table in part.groups(["doc_id", column]):
            rows = (row for row in table.to_pylist() if row["doc_id"] in ids)
            found |= {row["doc_id"]: cluster_of(row, column) for row in rows}
    return found


@dataclass(frozen=True)
class FillersWork:
    """Work of the step `fillers`: contexts drawn from the numbers of a pool, and their texts."""

    op: "SynthIN2"
    setting: Setting
    folder: str
    pool: PoolRef

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        name, groups = payload
        items = items_of(self.setting.run_dir, groups)
        join_tokens = token_counter(self.setting.tokenizer).count(JOIN)
        drawn = {item.id: self._drawn(item, join_tokens) for item in items}
        wanted = {n for found in drawn.values() for n in found.get("numbers", [])}
        texts = shelves_of(self.pool).fetch(wanted)
        replies = {item.id: _filled(drawn[item.id], texts) for item in items}
        write_replies(sink, f"{self.folder}/{name}.parquet", replies)
        told = sum(len(found.get("numbers", [])) for found in drawn.values())
        return {"stats": {"rows": len(items), "fillers": told, "distinct": len(wanted)}}

    def _drawn(self, item: Item, join_tokens: int) -> dict[str, Any]:
        """Target and numbers of fillers; for a row that cannot be filled, its code."""
        source = source_of(item)
        if source["type"] == "short":
            return {"target": None, "numbers": []}
        shelves = shelves_of(self.pool)
        used = used_of(cut(item, source), source)
        lengths = (self.op.min_context, self.op.max_context)
        pool, seed = shelves.pool(item.lang), self.setting.seed
        found = draw_context(item.id, used, pool, join_tokens, seed, lengths)
        if isinstance(found, RowReject):
            return found._asdict()
        return {"target": found.target, "numbers": shelves.pieces(item.lang, found.numbers)}


def _filled(drawn: Mapping[str, Any], texts: Mapping[int, Segment]) -> dict[str, Any]:
    """What a row needs."""
    if "code" in drawn:
        return dict(drawn)
    return {"target": drawn["target"], "fillers": [texts[n]._asdict() for n in drawn["numbers"]]}


def write_replies(sink: Sink, name: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """What a step says of documents, as the replies of a stage are written."""
    listed: Sequence[dict[str, Any]] = [
        {"id": i, "reply": canonical_json(value), "fix": None} for i, value in found.items()
    ]
    table = pa.Table.from_pylist(list(listed), schema=REPLIES)
    sink.write(name, parquet_groups([table]), table.num_rows)
