"""`pack.turns` as steps: same bytes for any parts, nothing lost, rejects and files as promised."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.engine.barrier import BarrierContext
from longctx.errors import RecipeError, RunError
from longctx.pack.boundaries import IGNORE
from longctx.pack.stages_turns import PackTurns
from longctx.pack.turns import Layout, turns_of
from longctx.recipe import from_dict
from longctx.synth.rows import PACKS
from longctx.text.tokenize import load_tokenizer
from tests.in_process import context_of, corpus_of, run_here

Row = dict[str, Any]
LENGTH = 220


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(monkeypatch)


def chat(i: int) -> list[Row]:
    """One or two questions with answers of one to twenty words."""
    rng = np.random.default_rng(i)
    found = [{"role": "system", "content": "Be brief."}] if i % 3 == 0 else []
    for turn in range(int(rng.integers(1, 3))):
        found.append({"role": "user", "content": f"What is pier {i}.{turn} made of?"})
        words = " ".join(f"word{n}" for n in rng.integers(0, 90, int(rng.integers(1, 21))))
        found.append({"role": "assistant", "content": words})
    return found


def row(i: int, **fields: Any) -> Row:
    kept = {"messages": chat(i), **fields}
    text = "\n\n".join(m["content"] for m in kept["messages"] or [])
    return {
        "doc_id": f"c{i:03d}",
        "text": text or "-",
        "source": "ab"[i % 2],
        "meta": json.dumps(kept),
        "n_chars": len(text),
    }


def rows(n: int = 40) -> list[Row]:
    return [row(i) for i in range(n)]


BAD = [
    row(900, messages=None),
    row(901, messages=[{"role": "user", "content": "Is anybody there?"}]),
    row(902, messages=[{"role": "critic", "content": "No."}]),
    row(903, messages=[{"role": "user", "content": "long " * 200}, *chat(1)]),
]
WHY = {"c900": "no_messages", "c901": "no_answer", "c902": "unknown_role", "c903": "too_long"}


def op_of(**fields: Any) -> PackTurns:
    usual: Row = {"op": "pack.turns", "length": LENGTH, "shard_rows": 15, "file_tokens": 900}
    return PackTurns.model_validate({**usual, **fields})


def made(folder: Path, docs: list[Row], parts: int = 2, **fields: Any) -> BarrierContext:
    op = op_of(**fields)
    context = context_of(op, corpus_of(str(folder), docs, parts), len(docs))
    op.check(context.setting)
    op.run(context)
    return context


def table(context: BarrierContext, kind: str = "part") -> list[Row]:
    files = sorted(Path(context.setting.output).glob(f"{kind}-*.parquet"))
    return [found for f in files for found in pq.read_table(f).to_pylist()]


def output(context: BarrierContext) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path(context.setting.output).glob("[pr]*-*")}


def figures(context: BarrierContext) -> Row:
    return context.step_stats["files"]


def segments(pack: Row) -> list[tuple[int, int]]:
    return list(zip(pack["cu_seqlens"], pack["cu_seqlens"][1:], strict=False))


def test_every_sequence_is_in_one_pack_as_it_is_written(tmp_path: Path) -> None:
    context = made(tmp_path, rows() + BAD)
    layout = Layout(load_tokenizer("embedded"), "chatml")
    wanted = {}
    for one in rows():
        turns = turns_of(json.loads(one["meta"])["messages"])
        assert isinstance(turns, list)
        wanted[one["doc_id"]] = layout.render(turns)
    seen = []
    for pack in table(context):
        assert len(pack["input_ids"]) <= LENGTH
        assert len(pack["seq_ids"]) == pack["n_target_seqs"] == len(segments(pack))
        for doc_id, (start, end) in zip(pack["seq_ids"], segments(pack), strict=True):
            seen.append(doc_id)
            ids, labels = (np.array(pack[n][start:end]) for n in ("input_ids", "labels"))
            assert ids.tolist() == wanted[doc_id].ids.tolist()
            assert pack["position_ids"][start:end] == list(range(end - start))
            learned = [ids[a:b].tolist() for a, b in wanted[doc_id].spans]
            assert labels[labels != IGNORE].tolist() == [i for run in learned for i in run]
            assert sum(pack["loss_weight"][start:end]) == pytest.approx(1)
    assert sorted(seen) == sorted(wanted)
    (first, *more) = sorted(Path(context.setting.output).glob("part-*.parquet"))
    assert more
    assert pq.read_schema(first).equals(PACKS)


def test_what_is_not_packed_is_told_and_counted(tmp_path: Path) -> None:
    context = made(tmp_path, rows() + BAD)
    assert {r["row_id"]: r["code"] for r in table(context, "rejects")} == WHY
    told = figures(context)
    assert told["tokens_in"] == told["tokens"] + sum(told["tokens_rejected"].values())
    assert told["tokens_rejected"]["too_long"] > LENGTH
    assert told["fill"] == told["tokens"] / (told["packs"] * LENGTH) > 0.8
    assert all(check["ok"] for check in told["checks"].values())
    assert told["checks"]["weights"]["wanted"] == told["sequences"] == 40
    assert context.outcome is not None
    assert (context.outcome["rows_in"], context.outcome["rows_out"]) == (44, 40)
    assert context.outcome["dropped"] == dict.fromkeys(sorted(WHY.values()), 1)
    manifest = json.loads((Path(context.setting.output) / "manifest.json").read_text())
    assert manifest["packs"] == sum(
        f["rows"] for f in manifest["files"] if f["name"].startswith("part-")
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"strategy": "next_fit", "weighting": "token", "format": "plain"},
        {"batch_packs": 3},
        {"strategy": "sorted_batches", "batch_packs": 7},
    ],
    ids=str,
)
def test_parts_and_workers_change_no_byte(
    tmp_path: Path, fields: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = rows() + BAD
    one = output(made(tmp_path / "one", docs, 1, **fields))
    run_here(monkeypatch, seed=9)
    assert one == output(made(tmp_path / "five", docs[::-1], 5, **fields))


def test_batches_have_final_weights(tmp_path: Path) -> None:
    for weighting in ("sequence", "token"):
        packs = table(made(tmp_path / weighting, rows(), batch_packs=3, weighting=weighting))
        for batch in {pack["batch_id"] for pack in packs}:
            inside = [pack for pack in packs if pack["batch_id"] == batch]
            total = sum(sum(pack["loss_weight"]) for pack in inside)
            assert total == pytest.approx(len(inside), rel=1e-5)
        if weighting == "token":
            first = [p for p in packs if p["batch_id"] == 0]
            assert len({w for pack in first for w in pack["loss_weight"]}) == 2


def test_a_batch_lies_in_one_file(tmp_path: Path) -> None:
    context = made(tmp_path, rows(), batch_packs=3, file_tokens=200)
    places: dict[int, set[str]] = {}
    for file in sorted(Path(context.setting.output).glob("part-*.parquet")):
        for batch in pq.read_table(file)["batch_id"].to_pylist():
            places.setdefault(batch, set()).add(file.name)
    assert len(places) == figures(context)["batches"] > 2
    assert all(len(files) == 1 for files in places.values())


def test_rows_that_fill_no_batch_are_told(tmp_path: Path) -> None:
    context = made(tmp_path, rows() + BAD, strategy="sorted_batches", batch_packs=7)
    codes = [r["code"] for r in table(context, "rejects")]
    assert codes.count("remainder") == 40 % 7
    packs = table(context)
    assert [len(pack["seq_ids"]) for pack in packs] == [1] * 35
    assert figures(context)["padding_share"] < 0.2
    lengths = [[len(p["input_ids"]) for p in packs if p["batch_id"] == b] for b in range(5)]
    assert all(sizes == sorted(sizes) for sizes in lengths)


def test_documents_that_are_too_long_are_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    document = " ".join(f"Pier {i} stands in row {i}." for i in range(60))
    asked = [
        {"role": "user", "content": f"{document}\n\nWhere is pier 2?"},
        {"role": "assistant", "content": "In row 2."},
    ]
    long = [row(500, messages=asked, context=document), row(501, messages=asked)]
    context = made(tmp_path, rows(4) + long, too_long="cut_document")
    assert {r["row_id"]: r["code"] for r in table(context, "rejects")} == {"c501": "too_long"}
    (pack,) = (p for p in table(context) if "c500" in p["seq_ids"])
    start, end = segments(pack)[pack["seq_ids"].index("c500")]
    decode = load_tokenizer("embedded").decode
    text = decode(pack["input_ids"][start:end])
    assert text.endswith(
        "\n\nWhere is pier 2?<|im_end|>\n<|im_start|>assistant\nIn row 2.<|im_end|>\n"
    )
    labels = [i for i in pack["labels"][start:end] if i != IGNORE]
    assert decode(labels) == "In row 2.<|im_end|>"
    told = figures(context)
    assert told["sequences_cut"] == 1
    assert told["tokens_in"] == (
        told["tokens"] + told["tokens_cut"] + sum(told["tokens_rejected"].values())
    )
    (warning,) = told["warnings"]
    assert "1 conversations are too long and have no `context`" in warning


def test_rows_that_want_other_weights_are_told(tmp_path: Path) -> None:
    docs = [*rows(4), row(9, loss_weighting="token")]
    (warning,) = figures(made(tmp_path, docs))["warnings"]
    assert "say `loss_weighting: token` of themselves" in warning
    assert figures(made(tmp_path, docs, weighting="token"))["warnings"] == {}


def test_other_weights_do_not_tokenise_again(tmp_path: Path) -> None:
    made(tmp_path, rows())
    again = made(tmp_path, rows(), weighting="token", length=LENGTH + 40)
    assert again.skipped == 2
    assert made(tmp_path, rows(), weighting="token", length=LENGTH + 40).skipped == again.units
    assert made(tmp_path, rows(), format="plain").skipped == 0


def test_nothing_to_pack_ends_the_run_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no conversation can be packed \(.*no_answer 1") as found:
        made(tmp_path, BAD[:3])
    assert "meta: [messages]" in found.value.remedy
    with pytest.raises(RunError, match="planned in one process"):
        made(tmp_path, rows(4), one_place_up_to=3)
    with pytest.raises(ValidationError, match="needs `batch_packs`"):
        op_of(strategy="sorted_batches")


def test_a_lost_sequence_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longctx.pack import stages_turns_files

    def weighed(pack: Row, weighting: str, scale: float) -> Row:
        return {**pack, "loss_weight": pack["loss_weight"] * 2}

    monkeypatch.setattr(stages_turns_files, "weighed", weighed)
    with pytest.raises(RunError, match=r"the packs do not hold what was planned \(weights"):
        made(tmp_path, rows(4))


def test_a_recipe_says_what_its_input_must_keep() -> None:
    source = {"path": "in.jsonl", "source": "s", "text": "messages"}
    recipe: Row = {"name": "r", "input": [source], "run_dir": "run"}
    recipe["stages"] = [{"op": "pack.turns"}]
    with pytest.raises(RecipeError, match=r"input\.0: .*give this input `meta: \[messages\]`"):
        from_dict(recipe)
    recipe["input"] = [{**source, "meta": ["context"]}]
    with pytest.raises(RecipeError, match=r"`meta: \[context, messages\]`"):
        from_dict(recipe)
    recipe["input"] = [{**source, "meta": ["messages"]}]
    assert from_dict(recipe).ops[0].op == "pack.turns"
    recipe["stages"] = [{"op": "filter.pii", "mask": True}, *recipe["stages"]]
    with pytest.raises(RecipeError, match=r"filter\.pii writes texts anew, and pack\.turns takes"):
        from_dict(recipe)
    recipe["stages"] = [{"op": "pack.turns"}]
    recipe["output"] = {"format": ["mds"]}
    with pytest.raises(RecipeError, match=r"`pack\.turns` writes Parquet, leave `format` out"):
        from_dict(recipe)
