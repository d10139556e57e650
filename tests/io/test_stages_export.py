"""`export`: every living document once, in order, the same bytes for any parts."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.engine.barrier import BarrierContext
from longctx.engine.units import PendingWorkError
from longctx.errors import RecipeError, RunError
from longctx.io import paths
from longctx.io.stages_export import Export
from longctx.recipe import from_dict, json_schema
from tests.in_process import context_of, corpus_of, run_here

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(monkeypatch)


def documents(n: int = 60) -> list[Row]:
    rng = np.random.default_rng(1)
    return [
        {
            "doc_id": f"d{i:03d}",
            "text": "word " * int(rng.integers(0, 30)),
            "source": "ab"[i % 2],
            "meta": json.dumps({"n": i}) if i % 3 else None,
            "n_tokens": i,
            "score": None if i % 10 == 0 else float(rng.integers(6)) / 4,
            "drop_reason": "gone" if i % 7 == 0 else None,
        }
        for i in range(n)
    ]


def exported(
    folder: Path, rows: list[Row], parts: int = 3, dry: bool = False, **fields: Any
) -> BarrierContext:
    op = Export(op="export", **{"shard_mb": 0.001, **fields})
    alive = sum(not r.get("drop_reason") for r in rows)
    context = context_of(op, corpus_of(str(folder), rows, parts), alive, dry=dry)
    op.check(context.setting)
    op.run(context)
    return context


def output(context: BarrierContext) -> dict[str, bytes]:
    folder = Path(context.setting.output)
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name[0] != "_"}


def records(context: BarrierContext) -> list[Row]:
    """As any reader of JSON lines sees them: file after file."""
    files = sorted(Path(context.setting.output).glob("part-*.jsonl*"))
    texts = [
        gzip.decompress(f.read_bytes()) if f.suffix == ".gz" else f.read_bytes() for f in files
    ]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def alive(rows: list[Row]) -> list[Row]:
    return [r for r in rows if not r["drop_reason"]]


@pytest.mark.parametrize("fields", [{}, {"compression": "gz"}, {"shard_mb": 1}])
def test_every_living_document_is_there_once_in_order(tmp_path: Path, fields: Row) -> None:
    rows = documents()
    context = exported(tmp_path, rows, columns=["score"], **fields)
    # The order of the corpus: part after part.
    order = [r for i in range(3) for r in alive(rows[i::3])]
    found = records(context)
    assert [r["id"] for r in found] == [r["doc_id"] for r in order]
    assert [r["text"] for r in found] == [r["text"] for r in order]
    assert [r["score"] for r in found] == [r["score"] for r in order]
    assert [r.get("n") for r in found] == [
        json.loads(r["meta"])["n"] if r["meta"] else None for r in order
    ]
    files = context.step_stats["files"]
    assert (files["documents"], files["files"]) == (len(order), len(output(context)) - 1)
    assert files["files"] == 1 if "shard_mb" in fields else files["files"] > 3
    assert context.outcome["rows_out"] == context.outcome["rows_in"] == len(order)
    assert context.outcome["tokens"] == sum(r["n_tokens"] for r in order)


def test_the_manifest_vouches_for_every_file(tmp_path: Path) -> None:
    context = exported(tmp_path, documents())
    files = output(context)
    manifest = json.loads(files.pop("manifest.json"))
    listed = {f["name"]: f for f in manifest["files"]}
    assert listed.keys() == files.keys()
    assert all(listed[n]["blake2b_128"] == paths.checksum(d) for n, d in files.items())
    assert sum(f["rows"] for f in listed.values()) == manifest["documents"] == context.rows
    assert manifest["fields"] == ["id", "text", "source", "language", "license", "meta"]


@pytest.mark.parametrize("fields", [{}, {"order_by": {"column": "score"}}])
def test_how_the_corpus_is_cut_into_parts_changes_no_byte(tmp_path: Path, fields: Row) -> None:
    rows = documents()
    one = output(exported(tmp_path / "one", rows, 1, **fields))
    # The same order of the corpus in five parts.
    order = [rows[i] for i in np.argsort([i // 12 for i in range(60)], kind="stable")]
    dealt = [order[12 * (i % 5) + i // 5] for i in range(60)]
    assert output(exported(tmp_path / "five", dealt, 5, **fields)) == one
    assert len(one) > 4


@pytest.mark.parametrize("descending", [True, False])
def test_sorted_documents_go_on_from_file_to_file(tmp_path: Path, descending: bool) -> None:
    rows = documents()
    order = {"column": "score", "descending": descending}
    context = exported(
        tmp_path, rows, columns=["score"], rename={"score": "s"}, order_by=order, compression="gz"
    )
    sign = -1 if descending else 1
    expected = sorted(
        alive(rows), key=lambda r: (r["score"] is None, sign * (r["score"] or 0), r["doc_id"])
    )
    assert [(r["id"], r["s"]) for r in records(context)] == [
        (r["doc_id"], r["score"]) for r in expected
    ]
    assert len(output(context)) > 4
    assert context.step_stats["files"]["order_by"] == "score"


def test_rows_in_any_order_are_sorted_alike(tmp_path: Path) -> None:
    rows, order = documents(), {"column": "score"}
    one = output(exported(tmp_path / "one", rows, 1, order_by=order))
    mixed = [rows[i] for i in np.random.default_rng(0).permutation(60)]
    assert output(exported(tmp_path / "mixed", mixed, 4, order_by=order)) == one


def test_parquet_is_read_by_pyarrow(tmp_path: Path) -> None:
    rows = documents()
    context = exported(
        tmp_path,
        rows,
        format="parquet",
        fields=["id", "text", "meta"],
        columns=["score", "n_tokens"],
        rename={"text": "content"},
        order_by={"column": "n_tokens", "descending": False},
    )
    found = pq.read_table([str(p) for p in sorted(Path(context.setting.output).glob("*.parquet"))])
    assert found.column_names == ["id", "content", "meta", "score", "n_tokens"]
    assert found.column("id").to_pylist() == [r["doc_id"] for r in alive(rows)]
    assert found.column("meta").to_pylist() == [r["meta"] for r in alive(rows)]
    manifest = json.loads(output(context)["manifest.json"])
    assert (manifest["format"], manifest["compression"]) == ("parquet", "zstd")
    assert manifest["order_by"] == {"column": "n_tokens", "descending": False}


def test_a_long_document_leaves_no_empty_file(tmp_path: Path) -> None:
    rows = [{**r, "drop_reason": None} for r in documents(6)]
    rows[2]["text"] = "x" * 5000
    context = exported(tmp_path, rows, 1)
    names = sorted(n for n in output(context) if n.startswith("part-"))
    assert names[0] == "part-00000.jsonl"
    assert len(records(context)) == 6
    assert all(len(d) > 0 for d in output(context).values())


def test_an_export_takes_the_place_of_another(tmp_path: Path) -> None:
    rows = documents()
    first = exported(tmp_path, rows)
    again = exported(tmp_path, rows)
    assert again.skipped == again.units
    assert output(again) == output(first)
    other = exported(tmp_path, rows, format="parquet", shard_mb=1)
    assert output(other).keys() == {"part-00000.parquet", "manifest.json"}


def test_the_output_of_another_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="the output folder is not empty"):
        exported(tmp_path, documents())


def test_what_a_record_has_no_room_for_is_told(tmp_path: Path) -> None:
    rows = [{**r, "meta": '{"text": "other"}'} for r in documents(9)]
    context = exported(tmp_path, rows)
    (said,) = context.step_stats["files"]["warnings"]
    assert said.startswith("7 documents had a field `text` in `meta`")


def test_a_plan_walks_the_same_steps(tmp_path: Path) -> None:
    rows, order = documents(), {"column": "score"}
    for fields in ({}, {"order_by": order}):
        with pytest.raises(PendingWorkError):
            exported(tmp_path / str(len(fields)), rows, dry=True, **fields)
        before = output(exported(tmp_path / str(len(fields)), rows, **fields))
        context = exported(tmp_path / str(len(fields)), rows, dry=True, **fields)
        assert output(context) == before


def test_a_column_of_words_gives_no_order(tmp_path: Path) -> None:
    rows = [{**r, "kind": "a"} for r in documents(6)]
    with pytest.raises(RunError, match="`kind` is string"):
        exported(tmp_path, rows, order_by={"column": "kind"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "parquet", "compression": "gz"}, "Parquet is compressed in itself"),
        ({"columns": ["text"]}, "`text` is one of the input's fields"),
        ({"columns": ["a", "a"]}, "named once"),
        ({"rename": {"score": "s"}}, "rename: `score` is not among id, text"),
        ({"rename": {"meta": "m"}}, "rename: `meta`"),
        ({"columns": ["a"], "rename": {"a": "id"}}, "would be called `id`"),
        ({"fields": []}, "at least 1 item"),
        ({"order_by": {"column": "a", "ascending": True}}, "ascending"),
        ({"shard_mb": 0}, "greater than 0"),
    ],
)
def test_wrong_settings_are_refused(fields: Row, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Export(op="export", **fields)


def recipe(*stages: Row, **changes: Any) -> Row:
    body = {"name": "x", "input": [{"path": "in", "source": "s"}], "run_dir": "run"}
    return {**body, "stages": list(stages), **changes}


def test_columns_and_places_are_checked_with_the_recipe() -> None:
    def told(*stages: Row, **changes: Any) -> str:
        with pytest.raises(RecipeError) as found:
            from_dict(recipe(*stages, **changes))
        return found.value.message

    score = {"op": "score.heuristics"}
    assert "export reads `n_token`, which no earlier stage writes; did you mean 'n_tokens'" in told(
        score, {"op": "export", "order_by": {"column": "n_token"}}
    )
    assert "`export` must be the last stage" in told({"op": "export"}, score)
    assert "output.format: these are formats of windows" in told(
        {"op": "export"}, output={"format": ["jsonl"]}
    )
    from_dict(recipe(score, {"op": "export", "columns": ["n_words"]}))
    assert "Export" in json_schema()["$defs"]
