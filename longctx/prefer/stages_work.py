"""What units of a preference op do in workers: ask two models, judge the judge, make rows of pairs.

A unit is some prompts. Inside it all calls of all its prompts go out stage by stage, so that those
that begin alike are neighbours; every answer is in the cache before it is used, so a unit that is
killed asks nothing twice. It leaves what it found of each prompt, the prompts that came to nothing,
and the calls that came to nothing, which a prompt may survive.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from longctx.engine.barrier import Beforehand
from longctx.engine.commit import FileRef
from longctx.engine.corpus import parquet_groups
from longctx.engine.op import Setting
from longctx.engine.steps import read_table
from longctx.engine.units import Pool, Sink
from longctx.llm import controls
from longctx.llm.client import Client
from longctx.llm.keys import canonical_json
from longctx.llm.rejects import StageCount, reject_row, reject_table
from longctx.llm.spec import Terms, client_of
from longctx.llm.stages_batches import Batches
from longctx.prefer.asking import Asker, Lost
from longctx.prefer.exporters import to_trl
from longctx.prefer.pairs import listed
from longctx.synth.items import Item
from longctx.synth.rows import Reject as RowReject
from longctx.synth.rows import Row
from longctx.synth.stages_files import FilesWork, of_kind
from longctx.synth.stages_work import (
    REPLIES,
    ROW,
    Groups,
    RowsWork,
    counted,
    difference,
    items_of,
    own_reject,
    usage_of,
)
from longctx.synth.tokens import token_counter

if TYPE_CHECKING:
    from longctx.prefer.stages_base import Preference

JUDGED, CONTROLS, CALLS = "judged", "controls", "calls"
# The role of the second model.
JUDGE = "judge"
REPORT = "judge_report.json"
# What a row brings along for exporters and does not keep.
CONTEXT = "context"
_GROUP_ROWS = 64


@dataclass(frozen=True)
class Clients:
    """How the two models of an op are asked from a worker; one client where they are the same."""

    op: "Preference"
    setting: Setting
    policy: Terms
    judge: Terms

    def asker(self) -> Asker:
        """Both models, with the stages of the op."""
        every = (*self.op.judged_calls(), *self.op.control_calls())
        stages = {call.step: call for call in every}
        policy, judge = self.both()
        return Asker(stages, policy, judge, self.op.judging, self.setting.seed)

    def beforehand(
        self, batches: Batches, work: "JudgedWork | ControlsWork", pool: Pool
    ) -> Beforehand:
        """What answers the units of a work together, for models that answer in batches."""
        terms = {"": self.policy, JUDGE: self.judge}
        return batches.beforehand(work, pool, terms)

    def both(self) -> tuple[Client, Client]:
        """The client of the policy and that of the judge."""
        run_dir, rules, spec = self.setting.run_dir, self.op.rules(), self.op.generator
        policy = client_of(spec, run_dir, rules, self.policy)
        if self.op.judge is None or self.op.judge == spec:
            return policy, policy
        return policy, client_of(self.op.judge, run_dir, rules, self.judge, role=JUDGE)


@dataclass(frozen=True)
class JudgedWork:
    """Work of the step `judged`: everything that is asked about a unit's prompts."""

    clients: Clients
    folder: str

    def load(self) -> "JudgedWork":
        self.clients.both()
        return self

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        name, groups = payload
        op, setting = self.clients.op, self.clients.setting
        asker = self.clients.asker()
        before = _used(asker)
        items = items_of(setting.run_dir, groups)
        found = op.judged(items, asker, token_counter(setting.tokenizer), setting.seed)
        for client in self.clients.both():
            # The commit must not say more than the cache can repeat.
            client.flush()
        good = {i: one for i, one in found.items() if not isinstance(one, RowReject)}
        bad = {i: one for i, one in found.items() if isinstance(one, RowReject)}
        model = asker.policy.model_id
        models = {"policy": model, "judge": asker.judge.model_id}
        rejects = [own_reject(op, JUDGED, i, one, model) for i, one in bad.items()]
        _write(
            sink,
            f"{self.folder}/{name}.parquet",
            _replies({i: {**v, "models": models} for i, v in good.items()}),
        )
        _write(sink, f"{self.folder}/{name}-rejects.parquet", reject_table(rejects))
        _write(sink, f"{self.folder}/{name}-calls.parquet", _calls(op.system, asker.lost))
        count = StageCount(len(items), len(good), 0, Counter(r.code for r in bad.values()))
        count.check(f"{setting.stage}/{JUDGED}")
        stages = _stages(asker, before, setting.stage)
        told = op.counts(list(good.values()))
        return {"stats": {**counted(count), "stages": stages, **told}}


def _used(asker: Asker) -> dict[str, dict[str, Any]]:
    return {s: usage_of(_client(asker, s), stage) for s, stage in asker.stages.items()}


def _client(asker: Asker, step: str) -> Client:
    client = asker.client(step)
    assert isinstance(client, Client), "workers ask through the client"
    return client


def _stages(
    asker: Asker, before: Mapping[str, dict[str, Any]], where: str
) -> dict[str, dict[str, Any]]:
    """What every stage that was asked got and used, its rows being its calls."""
    after, told = _used(asker), {}
    for step, count in asker.counts.items():
        count.check(f"{where}/{step}")
        client, used = _client(asker, step), difference(after[step], before[step])
        told[step] = {
            **counted(count),
            "asked_anew": used["requests"] - asker.requests[step],
            "models": {client.model_id: 1},
            "models_reported": dict.fromkeys(client.models_reported, 1),
            "usage": used,
        }
        if facts := getattr(client.backend, "facts", None):
            told[step]["backend"] = {canonical_json(facts): 1}
    return told


def _calls(system: str, lost: Sequence[Lost]) -> pa.Table:
    """The calls that came to nothing, each with the prompt that it served."""
    now = int(time.time() * 1000)
    rows = [
        (
            one.owner,
            reject_row(
                one.reject,
                run_id="",
                system=system,
                stage=one.stage.name,
                row_id=one.row_id,
                model=one.model,
                ts_ms=now,
            ),
        )
        for one in lost
    ]
    data = [canonical_json(row) for _, row in rows]
    return pa.table({"owner": [owner for owner, _ in rows], "data": data}, schema=_CALLS)


_CALLS = pa.schema({"owner": pa.string(), "data": pa.large_string()}.items())


def _replies(good: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    listed = [{"id": i, "reply": canonical_json(value), "fix": None} for i, value in good.items()]
    return pa.Table.from_pylist(listed, schema=REPLIES)


def _write(sink: Sink, name: str, table: pa.Table) -> None:
    sink.write(name, parquet_groups([table]), table.num_rows)


@dataclass(frozen=True)
class ControlsWork:
    """Work of the step `controls`: a sample of prompts, from any unit, and what the judge makes."""

    clients: Clients
    judge: str
    policy: str

    def load(self) -> "ControlsWork":
        self.clients.both()
        return self

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        _, groups = payload
        op, setting = self.clients.op, self.clients.setting
        items = [i for unit in _of_units(groups) for i in items_of(setting.run_dir, unit)]
        asker = self.clients.asker()
        before = _used(asker)
        counter = token_counter(setting.tokenizer)
        ordered = sorted(items, key=lambda i: i.id)
        # Without a sample nothing is asked for, so nothing can fail.
        found = op.controls(ordered, asker, counter, setting.seed) if items else []
        for client in self.clients.both():
            client.flush()
        found = [*found, controls.self_judging(self.judge, [self.policy])]
        report = {**controls.report(found, self.judge), "prompts": len(items)}
        data = json.dumps(report, indent=1, ensure_ascii=False, sort_keys=True)
        sink.write(f"{setting.output}/{REPORT}", data.encode(), len(found))
        return {"stats": {"report": report, "stages": _stages(asker, before, setting.stage)}}


def _of_units(groups: Groups) -> Iterator[Groups]:
    """The groups of each unit, which share the files of earlier steps."""
    for _, unit in groupby(groups, key=lambda group: group[1]["unit"]):
        yield list(unit)


@dataclass(frozen=True)
class PairRows(RowsWork):
    """Work of the step `rows`: pairs, and beside them what was found of every prompt."""

    op: "Preference"

    def beside(self, groups: Groups, items: Sequence[Item]) -> list[dict[str, Any]]:
        records = [
            _record(item.id, kind, rows)
            for item in items
            for kind, rows in self.op.tables(item).items()
            if rows
        ]
        for owner, lost in self._lost(groups).items():
            records.append(_record(owner, CALLS, lost))
        return records

    def _lost(self, groups: Groups) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for ref in groups[0][1].get(CALLS, {}).values():
            table = read_table(self.setting.run_dir, FileRef(*ref))
            rows = zip(*(table.column(n).to_pylist() for n in ("owner", "data")), strict=True)
            for owner, data in rows:
                found.setdefault(owner, []).append(json.loads(data))
        return found


def _record(owner: str, kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    data = json.dumps(list(rows), ensure_ascii=False)
    return {"id": owner, "kind": kind, "facts": None, "data": data}


@dataclass(frozen=True)
class PairFiles(FilesWork):
    """Work of one range of ids: pairs for TRL beside the rows, and the tables of the system."""

    op: "Preference"

    def stored(self, row: Row) -> Row:
        kept = {n: v for n, v in row.items() if n != CONTEXT}
        # Systems with a schema of their own may have no such column.
        known = {"run_id": self.setting.recipe_fingerprint} if "run_id" in kept else {}
        return listed(kept | known)

    def lines(self, table: pa.Table, rows: list[Row]) -> tuple[str, bytes]:
        found = []
        for row in sorted(rows, key=lambda r: str(r["id"])):
            record = to_trl(row, row.get(CONTEXT), as_text=self.op.stepwise)
            found.append(json.dumps(record, ensure_ascii=False))
        return "trl", "".join(f"{line}\n" for line in found).encode("utf-8", "replace")

    def beside(self, brought: pa.Table, number: int, sink: Sink) -> None:
        run_id = self.setting.recipe_fingerprint
        for kind, schema in self.op.extra_tables.items():
            self._table(sink, kind, number, pa.Table.from_pylist(_all(brought, kind), schema))
        lost = [row | {"run_id": run_id} for row in _all(brought, CALLS)]
        self._table(sink, CALLS, number, reject_table(lost))

    def _table(self, sink: Sink, kind: str, number: int, table: pa.Table) -> None:
        if table.num_rows:
            groups = [table.slice(i, _GROUP_ROWS) for i in range(0, table.num_rows, _GROUP_ROWS)]
            name = f"{self.setting.output}/{kind}-{number:05d}.parquet"
            sink.write(name, parquet_groups(groups, plain=True), table.num_rows)


def _all(brought: pa.Table, kind: str) -> list[dict[str, Any]]:
    """The rows of a table, by the prompts in the order of their ids."""
    assert kind != ROW, "pairs are no table beside the rows"
    return [row for rows in of_kind(brought, kind) for row in rows]
