"""`synth.longalpaca` as steps: exact mixtures of rows from rules, the same for any parts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.errors import RecipeError, RunError
from longctx.synth.checks import allocate
from longctx.synth.longalpaca import QUOTA
from longctx.synth.longalpaca_items import CategoryQuotas
from longctx.synth.rows import LONGALPACA
from longctx.synth.stages_longalpaca import SynthLongAlpaca
from tests.synthesis import (
    PLANTED,
    SCRIPTED,
    Row,
    contaminated,
    failed,
    held_out,
    holding,
    output,
    run_op,
    says,
    table,
    told_by,
)

pytestmark = pytest.mark.usefixtures("model_ops_here")

NAMES = list(QUOTA)


def documents(n: int = 100) -> list[Row]:
    """Documents of ten sentences; each five in a row are of the five sources."""
    found = []
    for i in range(n):
        text = " ".join(f"Captain Zora{i} sailed {k} miles past isle Q{i}x{k}." for k in range(10))
        row = {"doc_id": f"d{i:03d}", "text": text, "source": f"of-{NAMES[i % 5]}"}
        found.append({**row, "language": "en", "n_tokens": len(text.split()), "kind": NAMES[-1]})
    return found


def short_file(folder: Path, n: int = 60) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"instruction": f"Add {i}.", "input": "1" * (i % 2), "output": "3"} for i in range(n)]
    file = folder / "alpaca.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def op_of(short: str, **fields: Any) -> SynthLongAlpaca:
    usual: Row = {"op": "synth.longalpaca", "generator": SCRIPTED, "rows": 40, "short": short}
    usual |= {"categories": {f"of-{name}": name for name in NAMES}, "unit_rows": 7}
    usual |= {"min_tokens": 10, "min_len": 10, "limit": 500, "shard_rows": 16}
    return SynthLongAlpaca.model_validate({**usual, **fields})


def made(
    folder: Path, docs: list[Row], parts: int = 2, n_short: int = 60, **fields: Any
) -> BarrierContext:
    return run_op(op_of(short_file(folder / "in", n_short), **fields), folder, docs, parts)


def test_long_and_short_rows_with_words_of_evaluation_texts_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, file = documents(), Path(short_file(tmp_path / "in"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    # What only the joined instruction holds, and an output.
    words = PLANTED.split()
    rows[0] |= {"instruction": " ".join(words[:6]), "input": " ".join(words[6:])}
    rows[1]["output"] = PLANTED
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    docs[7]["text"] += f" {PLANTED}"
    says(monkeypatch, "longalpaca.qa", "Zora12 ", "answer")
    op = op_of(str(file), rows=200, spare=3, **held_out(tmp_path))
    context = run_op(op, tmp_path, docs)
    told = told_by(context)
    assert holding(context) == []
    assert contaminated(context) == {
        "d007": "longalpaca.screened",
        "d012": "longalpaca.cleared",
    }
    assert (told["mixture"]["short"], told["mixture"]["short_contaminated"]) == (60, 2)
    assert told["rejects"]["contaminated"] == 2
    assert told["checks"]["decontamination"]["ok"] is True


def test_a_mixture_is_exact(tmp_path: Path) -> None:
    context = made(tmp_path, documents())
    told, rows = told_by(context), table(context)
    counts = Counter(row["category"] for row in rows)
    wanted = dict(zip(NAMES, allocate(30, list(QUOTA.values())), strict=True))
    assert counts == {**wanted, "short": 10}
    assert (told["rows"], len(rows)) == (40, 40)
    assert told["chosen"] == 30 + sum(told["rejects"].values())
    assert set(told["rejects"]) == {"over_quota"}
    assert failed(context) == set()
    parts = told["checks"]["mixture"]["parts"]
    assert parts["short"] == {"rows": 10, "requested_share": 0.25, "reached_share": 0.25}
    kinds = [row["kind"] for row in rows]
    assert kinds != sorted(kinds)
    assert kinds != sorted(kinds, reverse=True)
    texts = {d["doc_id"]: d for d in documents()}
    for row in rows:
        assert row["alpaca"]["input"] == ""
        assert row["messages"][0]["content"] == row["alpaca"]["instruction"]
        if row["kind"] == "long":
            doc = texts[row["id"].removeprefix("longalpaca-long-")]
            assert (row["context"], row["source"]) == (doc["text"], f"of-{row['category']}")
            assert row["alpaca"]["instruction"].endswith(row["instruction"])
    rejects = table(context, "rejects")
    assert {(r["stage"], r["code"]) for r in rejects} == {("longalpaca.mixture", "over_quota")}
    (first, *_) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(LONGALPACA)
    lines = (Path(context.setting.output) / "alpaca-00000.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        row["alpaca"] for row in pq.read_table(first).to_pylist()
    ]


def test_parts_and_units_change_no_byte_and_a_lost_unit_asks_nothing(tmp_path: Path) -> None:
    docs = documents()
    one = output(made(tmp_path / "one", docs, 1, unit_rows=200))
    context = made(tmp_path / "three", docs[::-1], 3, unit_rows=3)
    assert one == output(context)
    again = made(tmp_path / "three", docs[::-1], 3, unit_rows=3)
    assert again.skipped == again.units
    for step in ("qa", "rows", "taken"):
        for file in (tmp_path / "three" / "stages").glob(f"*/{step}/*.json"):
            file.unlink()
    lost = made(tmp_path / "three", docs[::-1], 3, unit_rows=3)
    assert output(lost) == one
    assert told_by(lost)["stages"]["qa"]["usage"]["calls"] == 0
    fewer = made(tmp_path / "three", docs[::-1], 3, unit_rows=3, ratio=[3, 1], fill="redistribute")
    assert told_by(fewer)["stages"]["qa"]["usage"]["calls"] == 0


def test_a_category_that_is_short_shrinks_the_mixture_or_is_made_up_for(tmp_path: Path) -> None:
    docs = [d for i, d in enumerate(documents()) if d["source"] != "of-summary" or i < 6]
    shrunk = made(tmp_path / "shrunk", docs)
    counts = Counter(row["category"] for row in table(shrunk))
    assert failed(shrunk) == {"size"}
    assert counts["summary"] <= 1
    assert told_by(shrunk)["rows"] == told_by(shrunk)["checks"]["size"]["rows"] < 40
    others = [d for d in docs if d["source"] != "of-summary"]
    full = made(tmp_path / "full", others, fill="redistribute", spare=1)
    assert failed(full) == {"mixture"}
    assert len(table(full)) == 40
    few = made(tmp_path / "few", documents(), n_short=5)
    assert Counter(row["kind"] for row in table(few)) == {"long": 15, "short": 5}


def test_replies_that_come_to_nothing_are_made_up_for(tmp_path: Path) -> None:
    docs = documents()
    lost = {r["id"].removeprefix("longalpaca-long-") for r in table(made(tmp_path / "all", docs))}
    faults = [
        {"kind": "refusal", "row_id": row_id, "times": None}
        for row_id in sorted(i for i in lost if i.startswith("d"))[:3]
    ]
    context = made(
        tmp_path / "some", docs, generator={**SCRIPTED, "faults": faults}, spare=0.5, rows=40
    )
    told = told_by(context)
    assert (told["rows"], told["rejects"]["refusal"]) == (40, 3)
    assert failed(context) == set()


def test_documents_given_twice_make_one_row(tmp_path: Path) -> None:
    docs = documents(50)
    for i, one in enumerate(documents(50)):
        docs.append({**one, "doc_id": f"z{i:03d}"})
    context = made(tmp_path, docs, spare=1)
    assert told_by(context)["mixture"]["duplicates"] > 0
    assert told_by(context)["checks"]["duplicates"] == {"rows": 0, "ok": True}


def test_a_column_says_the_category_and_sources_do_where_it_is_silent(tmp_path: Path) -> None:
    docs = documents()
    context = made(
        tmp_path, docs, category_column="kind", quota={"other": 1}, categories={}, spare=0
    )
    assert {row["category"] for row in table(context)} == {"other", "short"}
    op = op_of("a.jsonl", category_column="kind")
    assert op.reads_columns() == ("n_tokens", "kind")
    assert op.bin_of("en", 50, "of-book", "review") == ("en", 2)
    assert op.bin_of("en", 50, "of-book", "novel") == ("en", 0)
    assert op.bin_of("en", 50, "of-nothing", None) is None
    assert op.bin_of("en", 5, "of-book", None) is None
    with pytest.raises(RunError, match="and a category of `quota`"):
        made(tmp_path / "none", docs, categories={"elsewhere": "book"})


def test_quotas_are_exact_over_languages() -> None:
    quotas = CategoryQuotas(74, 10, 100, 10, {"en": 0.5, "zh": 0.5}, QUOTA, 0.0)
    assert sum(quotas.wanted().values()) == 74
    assert quotas.wanted()["en", 0] + quotas.wanted()["zh", 0] == 13
    listed = quotas.report({"en:0": 9}, {"en:0": 7})
    assert listed[0] == {
        "lang": "en",
        "category": "book",
        "least": 10,
        "most": 100,
        "wanted": 7,
        "available": 9,
        "reached": 7,
    }
    assert (quotas.bins, quotas.bounds(3), quotas.mean_tokens()) == (5, (10, 100), 55)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"instruction": ""},
            "field `instruction` of a short row: a text is expected, found an em",
        ),
        ({"output": None}, "field `output` of a short row: a text is expected, found NoneType"),
        ({"input": 3}, "field `input` of a short row: a text is expected, found int"),
        ({"id": "000000000"}, "field `id` of a short row: '000000000' is the id of an earlier"),
    ],
)
def test_bad_short_rows_are_told_with_their_place(tmp_path: Path, row: Row, message: str) -> None:
    sound = {"instruction": "Add.", "input": None, "output": "3"}
    file = tmp_path / "alpaca.json"
    file.write_text(json.dumps([sound, {**sound, **row}]))
    with pytest.raises(RecipeError, match=message) as error:
        op_of(str(file)).short_rows("09")
    assert str(error.value.where).endswith("alpaca.json#row=1")
    file.write_text("[]")
    with pytest.raises(RecipeError, match="the file of short rows has no rows"):
        op_of(str(file)).short_rows("09")


def test_each_planted_fault_fails_its_check() -> None:
    kinds = [*["book"] * 13, *["summary"] * 7, *["review"] * 20, *["analysis"] * 20]
    kinds += [*["other"] * 14, *["short"] * 25]
    rows: list[Row] = []
    for i, name in enumerate(kinds):
        kind = "short" if name == "short" else "long"
        row = {"kind": kind, "category": name, "tokens": 50, "problems": []}
        rows.append({**row, "document": str(i), "question": "q", "support": 0.9})

    def bad(changed: dict[int, Row] | None = None, **fields: Any) -> set[str]:
        some = [{**row, **(changed or {}).get(i, {})} for i, row in enumerate(rows)]
        checks = op_of("a.jsonl", rows=99, **fields).figures(some)
        return {name for name, found in checks.items() if found.get("ok") is False}

    assert bad() == set()
    assert bad({i: {"category": "review"} for i in range(7)}) == {"mixture"}
    assert bad({3: {"document": "4"}}) == {"duplicates"}
    assert bad({3: {"tokens": 501}}) == {"long_tokens"} == bad({3: {"tokens": 9}})
    assert bad({90: {"tokens": 9}}) == set()
    assert bad({3: {"support": 0.4}}) == {"support"}
    assert bad({3: {"problems": ["input"]}}) == {"sound_rows"}
    assert op_of("a.jsonl").figures([]) == {}


def test_settings_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="no document has a category: set category_column"):
        op_of("a.jsonl", categories={})
    with pytest.raises(ValueError, match="limit 5 is below min_len 10"):
        op_of("a.jsonl", limit=5)
    with pytest.raises(ValueError, match="quotas are whole numbers"):
        op_of("a.jsonl", quota={"book": 0})
    with pytest.raises(ValueError, match="the parts of long and of short rows"):
        op_of("a.jsonl", ratio=[3, 0])


def test_a_plan_counts_what_is_asked_to_spare() -> None:
    (told,) = op_of("a.jsonl", rows=400, spare=0.5, max_tokens=90).model_calls(1000)
    assert (told.stage, told.calls, told.prompt_tokens) == ("longalpaca.qa", 452, 452 * 50)
    (few,) = op_of("a.jsonl", rows=400).model_calls(10)
    assert few.calls == 10
