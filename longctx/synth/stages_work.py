"""What units of a synthesis op do in workers: ask a model about documents, make rows of replies.

A unit is a run of chosen documents in the order of the corpus. It reads their texts from the parts,
what earlier stages answered from their files, and leaves replies and rejects apart: replies are the
same after every kill, rejects tell of calls (when, how often) and are not.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from longctx.engine.commit import FileRef
from longctx.engine.corpus import Part, parquet_groups
from longctx.engine.op import Setting
from longctx.engine.steps import read_table
from longctx.engine.units import Sink
from longctx.llm.ask import CallStage, Ok, ask
from longctx.llm.client import Client
from longctx.llm.keys import canonical_json
from longctx.llm.rejects import Reject, StageCount, reject_row, reject_table
from longctx.llm.spec import Terms, client_of
from longctx.synth.items import Item
from longctx.synth.rows import Made
from longctx.synth.rows import Reject as RowReject
from longctx.synth.tokens import token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_base import Synthesis

REPLIES = pa.schema({"id": pa.string(), "reply": pa.large_string(), "fix": pa.string()}.items())
ROWS = pa.schema(
    {
        "id": pa.string(),
        "file": pa.int32(),
        "kind": pa.string(),
        "facts": pa.large_string(),
        "data": pa.large_string(),
    }.items()
)
ROW, REJECT = "row", "reject"
ASSEMBLE = "assemble"
_USED = (
    *("requests", "cache_hits", "calls", "attempts", "prompt_tokens", "cached_tokens"),
    *("completion_tokens", "estimated", "waited_s", "used_s", "cost_usd"),
)
# What a part brings to a unit: its chosen rows, and the files of earlier steps for the whole unit.
Brought = dict[str, Any]
Groups = Sequence[tuple[Part, Brought]]


def items_of(run_dir: str, groups: Groups) -> list[Item]:
    """The documents of a unit that no earlier stage rejected, with text and replies."""
    found: list[Item] = []
    known = replies_of(run_dir, groups)
    for part, brought in groups:
        # What came from a table of its own has no row of the corpus, and no text.
        places = [row["row"] for row in brought["rows"] if row["row"] is not None]
        texts = _texts(part, places) if places else {}
        for row in brought["rows"]:
            if all(row["id"] in replies for replies in known.values()):
                said = {step: replies[row["id"]] for step, replies in known.items()}
                described = (row["id"], row["lang"], row["source"], row["n_tokens"])
                text = "" if row["row"] is None else texts[row["row"]]
                found.append(Item(*described, text, said, row["bin"]))
    return found


def replies_of(run_dir: str, groups: Groups) -> dict[str, dict[str, dict[str, Any]]]:
    """What the steps so far have said of a unit, by step and id."""
    return {step: _replies(run_dir, ref) for step, ref in _files(groups, "replies").items()}


def _files(groups: Groups, kind: str) -> dict[str, FileRef]:
    """The files of earlier steps for a unit, by step; every part of it names the same."""
    return {step: FileRef(*ref) for step, ref in groups[0][1][kind].items()}


def _replies(run_dir: str, ref: FileRef) -> dict[str, dict[str, Any]]:
    table = read_table(run_dir, ref, ["id", "reply"])
    texts = table.column("reply").to_pylist()
    return dict(zip(table.column("id").to_pylist(), map(json.loads, texts), strict=True))


def _texts(part: Part, rows: Sequence[int]) -> dict[int, str]:
    """The texts of some rows of a part, by their place."""
    found: dict[int, str] = {}
    for table in part.groups(["text"]):
        mine = table.filter(pa.array(np.isin(table.column("row").to_numpy(), rows)))
        found |= zip(mine.column("row").to_pylist(), mine.column("text").to_pylist(), strict=True)
    return found


@dataclass(frozen=True)
class AskWork:
    """Work of a stage that asks a model; in an actor, the client is there before the first unit."""

    op: "Synthesis"
    setting: Setting
    folder: str
    stage: str
    terms: Terms

    def load(self) -> "AskWork":
        self._client()
        return self

    def _client(self) -> Client:
        run_dir = self.setting.run_dir
        return client_of(self.op.asks(self.stage), run_dir, self.op.rules(), self.terms)

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        name, groups = payload
        stage, client = self.op.call(self.stage), self._client()
        items = self.items(groups)
        before = usage_of(client, stage)
        found, requests = self.answers(client, stage, items)
        # The commit must not say more than the cache can repeat.
        client.flush()
        good = {i.id: r for i, r in zip(items, found, strict=True) if isinstance(r, Ok)}
        bad = {i.id: r for i, r in zip(items, found, strict=True) if isinstance(r, Reject)}
        _write(sink, f"{self.folder}/{name}.parquet", _reply_table(good))
        rejects = reject_table(self._reject_rows(bad, stage, client))
        _write(sink, f"{self.folder}/{name}-rejects.parquet", rejects)
        count = StageCount(len(items), len(good), 0, Counter(r.code for r in bad.values()))
        count.check(f"{self.setting.stage}/{stage.step}")
        used = difference(usage_of(client, stage), before)
        reported = dict.fromkeys(client.models_reported, 1)
        told: dict[str, Any] = {
            "asked_anew": used["requests"] - requests,
            "models": {client.model_id: 1},
            "models_reported": reported,
        }
        if facts := getattr(client.backend, "facts", None):
            told["backend"] = {canonical_json(facts): 1}
        return {"stats": {**counted(count), **told, "usage": used}}

    def items(self, groups: Groups) -> list[Item]:
        """What a unit asks about, each once."""
        return items_of(self.setting.run_dir, groups)

    def answers(
        self, client: Client, stage: CallStage, items: Sequence[Item]
    ) -> tuple[list[Ok | Reject], int]:
        """What became of documents, in their order, and the requests that were no repetitions."""
        seed = self.setting.seed
        rows = [(i.id, partial(self.op.prompt, stage.step, i, seed)) for i in items]
        found = ask(client, stage, rows, seed)
        return found, sum(was_asked(one) for one in found)

    def _reject_rows(
        self, bad: Mapping[str, Reject], stage: CallStage, client: Client
    ) -> list[dict[str, Any]]:
        described = {"run_id": "", "system": stage.system, "stage": stage.name}
        model, now = client.model_id, int(time.time() * 1000)
        return [
            reject_row(reject, **described, row_id=row_id, model=model, ts_ms=now)
            for row_id, reject in bad.items()
        ]


def was_asked(found: Ok | Reject) -> bool:
    """Whether a prompt could be built; each that could is one request, and more if asked anew."""
    return isinstance(found, Ok) or found.result is not None


def counted(count: StageCount) -> dict[str, Any]:
    """The counters of a stage as sums."""
    rejects = dict(sorted(count.rejects.items()))
    return {"rows_in": count.rows_in, "ok": count.ok, "rejects": rejects}


def usage_of(client: Client, stage: CallStage) -> dict[str, Any]:
    """What a client has used for a stage so far; `estimated` is 1 where servers name no usage."""
    wanted = (stage.system, stage.name)
    row = next((r for r in client.usage_rows() if (r["system"], r["stage"]) == wanted), None)
    if row is None:
        return {**dict.fromkeys(_USED, 0), "cost_usd": None}
    return {name: int(v) if isinstance(v := row[name], bool) else v for name in _USED}


def difference(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What was used between two looks; `estimated` says whether any of it was."""
    rest = {n: None if v is None else v - (before[n] or 0) for n, v in after.items()}
    return {**rest, "estimated": after["estimated"]}


def _reply_table(good: Mapping[str, Ok]) -> pa.Table:
    listed = [{"id": i, "reply": canonical_json(good[i].value), "fix": good[i].fix} for i in good]
    return pa.Table.from_pylist(listed, schema=REPLIES)


def _write(sink: Sink, name: str, table: pa.Table) -> None:
    sink.write(name, parquet_groups([table]), table.num_rows)


@dataclass(frozen=True)
class RowsWork:
    """Work of the step `rows`: rows of what all stages said, beside all rejects up to here."""

    op: "Synthesis"
    setting: Setting
    folder: str
    model: str

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        name, groups = payload
        files = {row["id"]: row["file"] for _, brought in groups for row in brought["rows"]}
        items = items_of(self.setting.run_dir, groups)
        counter, seed = token_counter(self.setting.tokenizer), self.setting.seed
        rejected = self._earlier(groups)
        listed, count = [], StageCount(len(items))
        for item in items:
            made = self.op.made(item, counter, seed)
            if isinstance(made, RowReject):
                count.rejects[made.code] += 1
                rejected.append(own_reject(self.op, ASSEMBLE, item.id, made, self.model))
                continue
            assert made, "a document without a row is a reject"
            count.ok += 1
            for one in made:
                row, counts = one if isinstance(one, Made) else (one, {})
                known = self.op.facts(item, row)
                facts = canonical_json({**known, "counts": counts} if counts else known)
                kept = {"kind": ROW, "facts": facts, "data": json.dumps(row, ensure_ascii=False)}
                listed.append({"id": item.id, "file": files[item.id], **kept})
        rows = len(listed)
        for reject in rejected:
            own = {"id": reject["row_id"], "file": files[reject["row_id"]], "kind": REJECT}
            listed.append({**own, "facts": None, "data": json.dumps(reject, ensure_ascii=False)})
        count.check(f"{self.setting.stage}/{ASSEMBLE}")
        assert count.ok + len(rejected) == len(files), "every chosen document is rows or a reject"
        listed += [{**one, "file": files[one["id"]]} for one in self.beside(groups, items)]
        _write(sink, f"{self.folder}/{name}.parquet", pa.Table.from_pylist(listed, schema=ROWS))
        return {"stats": {**counted(count), "rows": rows}}

    def beside(self, groups: Groups, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Further records (id, kind, data) for files that a system has beside its rows."""
        return []

    def _earlier(self, groups: Groups) -> list[dict[str, Any]]:
        """The rejects of the stages."""
        found: list[dict[str, Any]] = []
        for ref in _files(groups, "rejects").values():
            table = read_table(self.setting.run_dir, ref)
            milliseconds = table.column("ts").cast(pa.int64())
            at = table.schema.get_field_index("ts")
            found += table.set_column(at, "ts", milliseconds).to_pylist()
        return found


def own_reject(
    op: "Synthesis", step: str, row_id: str, reject: RowReject, model: str
) -> dict[str, Any]:
    """The row of a reject that no call is to blame for."""
    return reject_row(
        Reject(code=reject.code, detail=reject.detail),
        run_id="",
        system=op.system,
        stage=f"{op.system}.{step}",
        row_id=row_id,
        model=model,
        ts_ms=int(time.time() * 1000),
    )


def terms_with(terms: Terms, spent: Mapping[str, Any], spec: Any) -> Terms:
    """Terms with what is left of the limits after `spent` (usage of earlier steps and units)."""
    tokens, usd = spec.max_tokens_total, spec.max_usd
    used = (spent.get("prompt_tokens") or 0) + (spent.get("completion_tokens") or 0)
    # One token or a hundredth of a cent is no call, so the client says that nothing is left.
    return replace(
        terms,
        tokens_left=None if tokens is None else max(1, tokens - used),
        usd_left=None if usd is None else max(1e-4, usd - (spent.get("cost_usd") or 0.0)),
    )
