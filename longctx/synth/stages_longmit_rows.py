"""Rows of `synth.longmit`: contexts drawn, their texts fetched, and an account of what is no row.

A unit draws the fillers of all its contexts from numbers alone and then reads their texts shelf by
shelf. Everything that was chosen, drawn from a text, merged or marked is a row or a reject of its
own with a reason, so the counts of every step add up.

A unit holds its rows, three times the text of their contexts: 1.5 MB for a row of 128k tokens, and
a path of twenty documents may give seventy of them. A worker holds some 200 bytes for each document
of the pool. Checks read every context once more.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from longctx.engine.commit import FileRef
from longctx.engine.corpus import parquet_groups
from longctx.engine.steps import read_table
from longctx.engine.units import Sink
from longctx.llm.keys import canonical_json
from longctx.llm.rejects import StageCount
from longctx.synth import longmit_chains as chains
from longctx.synth import longmit_figures as checked
from longctx.synth.draw import generator
from longctx.synth.longmit import SYSTEM
from longctx.synth.longmit_chains import Candidate
from longctx.synth.longmit_path import (
    NECESSITY,
    VERDICTS,
    VERIFY,
    Path,
    Reply,
    questions_of,
    turned_away,
)
from longctx.synth.longmit_rows import (
    RESERVE,
    Context,
    Doc,
    Placed,
    assemble,
    long_context,
    type_of,
)
from longctx.synth.rows import Reject, Row
from longctx.synth.stages_longmit_paths import SHELF
from longctx.synth.stages_longmit_work import Unit, items_of_step, unit_of, vectors_of
from longctx.synth.stages_work import (
    ASSEMBLE,
    REJECT,
    ROW,
    ROWS,
    Groups,
    RowsWork,
    counted,
    own_reject,
)
from longctx.synth.tokens import TokenCounter, token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_longmit import SynthLongMIT

_NOTE = "note"  # what figures read of a candidate that may be no row
_HEADING = 8  # tokens of a passage's heading and of the blank lines around it


class _Judged(NamedTuple):
    """A candidate that passed every verdict, with its context; its fillers have no texts yet."""

    path: Path
    candidate: Candidate
    reply: Reply | None
    necessity: bool | None
    context: Context | Reject
    filled: bool


class _Pool:
    """The documents that fill contexts, by language, without their texts."""

    def __init__(self, run_dir: str, paths: FileRef) -> None:
        table = read_table(run_dir, paths, ["id", "lang", "n_tokens", "cluster", "pool"])
        rows = [row for row in table.to_pylist() if row["pool"] is not None]
        self.number = {row["id"]: row["pool"] for row in rows}
        self.of_lang: dict[str, list[Doc]] = {}
        for row in sorted(rows, key=lambda r: r["pool"]):
            doc = Doc(row["id"], "", row["n_tokens"] + _HEADING, row["cluster"])
            self.of_lang.setdefault(row["lang"], []).append(doc)

    def drawn(self, lang: str, seed: int, row_id: str) -> "_Draw":
        """All documents of a language in the order that is drawn for a row."""
        listed = self.of_lang.get(lang, [])
        order = generator(seed, SYSTEM, "fillers", row_id).permutation(len(listed))
        return _Draw(listed, order.tolist())


@dataclass
class _Draw:
    """Documents in an order; `ended` tells whether all were taken."""

    docs: list[Doc]
    order: list[int]
    ended: bool = False

    def __iter__(self) -> Iterator[Doc]:
        yield from (self.docs[i] for i in self.order)
        self.ended = True


@lru_cache(maxsize=2)
def _pool(run_dir: str, paths: FileRef) -> _Pool:
    return _Pool(run_dir, paths)


@dataclass
class _Ledger:
    """What becomes of everything that a unit was asked about."""

    op: "SynthLongMIT"
    model: str
    files: Mapping[str, int]
    listed: list[dict[str, Any]] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    turned: dict[str, Counter[str]] = field(default_factory=dict)
    rejects: Counter[str] = field(default_factory=Counter)
    rows: int = 0

    def add(self, path_id: str, kind: str, facts: str | None, data: str) -> None:
        kept = {"kind": kind, "facts": facts, "data": data}
        self.listed.append({"id": path_id, "file": self.files[path_id], **kept})

    def reject(self, path_id: str, found: Mapping[str, Any]) -> None:
        """A reject that has its row already."""
        self.add(path_id, REJECT, None, json.dumps(found, ensure_ascii=False))

    def turn_away(self, path_id: str, step: str, row_id: str, code: str) -> None:
        """Something that a verdict of a step ends."""
        self.turned.setdefault(step, Counter())[code] += 1
        self._own(path_id, step, row_id, Reject(code))

    def lost(self, path_id: str, row_id: str, reject: Reject, step: str = ASSEMBLE) -> None:
        """A candidate that no row is made of."""
        self.rejects[reject.code] += 1
        self._own(path_id, step, row_id, reject)

    def _own(self, path_id: str, step: str, row_id: str, reject: Reject) -> None:
        made = own_reject(self.op, step, row_id, reject, self.model)
        # A verdict of a stage stands in the table as its other rejects do.
        named = {"stage": step} if step in VERDICTS else {}
        self.reject(path_id, {**made, **named})

    def row(self, path_id: str, row: Row, facts: Mapping[str, Any]) -> None:
        self.rows += 1
        self.add(path_id, ROW, canonical_json(facts), json.dumps(row, ensure_ascii=False))


class PathRowsWork(RowsWork):
    """Work of the step `rows`: rows of the candidates that are left, and why the others are not."""

    op: "SynthLongMIT"

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        name, groups = payload
        brought = groups[0][1]
        unit = unit_of(self.setting.run_dir, groups)
        ledger = _Ledger(self.op, self.model, brought["files"])
        for doc_id, path_id in brought["dropped"]:
            ledger.turn_away(path_id, "paths", doc_id, "near_dup_in_path")
        for path in unit.paths:
            self._verdicts(path, unit, ledger)
        for reject in self._earlier(groups):
            ledger.reject(ledger.owners[reject["row_id"]], reject)
        pool = _pool(self.setting.run_dir, FileRef(*brought["pool"]["paths"]))
        told: Counter[str] = Counter()
        judged = [j for path in unit.paths for j in self._judged(path, unit, pool, ledger, told)]
        texts = self._texts(judged, pool, brought["pool"]["shelves"])
        self._rows(judged, texts, brought["bounds"], ledger)
        count = StageCount(told["candidates"], ledger.rows, 0, ledger.rejects)
        count.check(f"{self.setting.stage}/{ASSEMBLE}")
        table = pa.Table.from_pylist(ledger.listed, schema=ROWS)
        sink.write(f"{self.folder}/{name}.parquet", parquet_groups([table]), table.num_rows)
        turned = {step: dict(sorted(codes.items())) for step, codes in ledger.turned.items()}
        return {"stats": {**counted(count), "rows": ledger.rows, "turned_away": turned, **told}}

    def _verdicts(self, path: Path, unit: Unit, ledger: _Ledger) -> None:
        """What the stages turned away, and which path each request was about."""
        alone = Unit([path], unit.said)
        for step in (call.step for call in self.op.calls()):
            items = items_of_step(step, alone)
            ledger.owners |= {item.id: path.path_id for item in items}
            if step == NECESSITY:  # several of its verdicts may end one candidate
                continue
            for row_id, code in turned_away(step, items, unit.said[step]):
                ledger.turn_away(path.path_id, step, row_id, code)

    def _judged(
        self, path: Path, unit: Unit, pool: _Pool, ledger: _Ledger, told: Counter[str]
    ) -> Iterator[_Judged]:
        """Candidates with their contexts; `told` counts those that come so far."""
        singles, linked = unit.singles(path), unit.chains(path)
        merged, repeated = chains.candidates_of(singles, linked, unit.said)
        told["repeated"] += repeated
        told["repeated_questions"] += questions_of(path, unit.said)[1]
        approved = {one.id: reply for one, reply in chains.approved(path, merged, unit.said)}
        for one in merged:
            reply = unit.said[VERIFY].get(one.id)
            if reply is None:
                continue
            necessity, code = None, None
            if one.id in approved:
                told["candidates"] += 1
                necessity, code = self.op.needed(path, one, unit.said)
                if code is None:
                    yield _Judged(path, one, reply, necessity, *self._context(path, one, pool))
                else:
                    ledger.lost(path.path_id, one.id, Reject(code), NECESSITY)
            note = canonical_json(checked.judged(reply, necessity, one.id in approved))
            ledger.add(path.path_id, _NOTE, note, "")
        if "single" in self.op.kinds:
            for one in chains.single_candidates(path, singles, linked):
                told["candidates"] += 1
                yield _Judged(path, one, None, None, *self._context(path, one, pool))

    def _context(self, path: Path, one: Candidate, pool: _Pool) -> tuple[Context | Reject, bool]:
        """The context of a candidate, and whether there were fillers enough for it."""
        docs = {
            doc.doc_id: Doc(doc.doc_id, doc.text, doc.n_tokens + _HEADING, doc.cluster_id)
            for doc in path.docs
        }
        clues = [docs[i] for i in dict.fromkeys(single.doc_id for single in one.used)]
        kind, seed = type_of(one.used), self.setting.seed
        assert kind is not None, "a chain is of one document, or of one for each question"
        rng = generator(seed, SYSTEM, "context", one.id)
        fillers = pool.drawn(path.lang, seed, one.id)
        reserve, path_docs = RESERVE[kind], list(docs.values())
        found = long_context(clues, path_docs, fillers, reserve, rng, self.op.max_row)
        return found, not fillers.ended

    def _texts(
        self, judged: Sequence[_Judged], pool: _Pool, shelves: Sequence[Sequence[Any]]
    ) -> dict[str, str]:
        """The texts of all fillers by id, shelf by shelf."""
        wanted = {
            placed.doc.doc_id
            for one in judged
            if isinstance(one.context, Context)
            for placed in one.context.docs
            if placed.role == "random"
        }
        found: dict[str, str] = {}
        for shelf in sorted({pool.number[doc_id] // SHELF for doc_id in wanted}):
            table = read_table(self.setting.run_dir, FileRef(*shelves[shelf]), ["id", "text"])
            pairs = zip(*(table.column(n).to_pylist() for n in ("id", "text")), strict=True)
            found |= {doc_id: text for doc_id, text in pairs if doc_id in wanted}
        return found

    def _rows(
        self,
        judged: Sequence[_Judged],
        texts: Mapping[str, str],
        bounds: tuple[float, float],
        ledger: _Ledger,
    ) -> None:
        """Rows of each path, with what figures read of them."""
        counter = token_counter(self.setting.tokenizer)
        of_path: dict[str, list[tuple[Row, dict[str, Any]]]] = {}
        for one in judged:
            path_id = one.path.path_id
            made = self._row(one, texts, counter)
            if isinstance(made, Reject):
                ledger.lost(path_id, one.candidate.id, made)
                continue
            row, context = made
            room = self.op.max_row - RESERVE[row["type"]]
            ids = [doc.doc_id for doc in one.path.docs]
            found = checked.facts(row, context, ids, bounds, room)
            of_path.setdefault(path_id, []).append((row, {**found, "filled": one.filled}))
        for path_id, rows in of_path.items():
            X = vectors_of(self.op, rows[0][0]["lang"], [row["question"] for row, _ in rows])
            again = chains.duplicates(X, [row["hop"] for row, _ in rows])
            for (row, found), duplicate in zip(rows, again, strict=True):
                ledger.row(path_id, row, {**found, "duplicate": duplicate})

    def _row(
        self, judged: _Judged, texts: Mapping[str, str], counter: TokenCounter
    ) -> tuple[Row, Context] | Reject:
        path, one, context = judged.path, judged.candidate, judged.context
        if isinstance(context, Reject):
            return context
        docs = [
            Placed(p.doc._replace(text=texts[p.doc.doc_id]), p.role) if p.role == "random" else p
            for p in context.docs
        ]
        whole = context._replace(docs=docs)
        source = next(doc.source for doc in path.docs if doc.doc_id == one.used[0].doc_id)
        row = assemble(
            one.id,
            path.lang,
            source,
            path.path_id,
            one.used,
            one.links,
            one.merged,
            whole,
            chains.scores_of(judged.reply, judged.necessity),
            counter,
            self.setting.seed,
            self.op.max_row,
        )
        return row if isinstance(row, Reject) else (row, whole)
