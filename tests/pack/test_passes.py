"""Passes of a mixture: every copy once, never two in one window, names that tell passes apart."""

import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from longctx import registry
from longctx.engine.op import Map, Setting
from longctx.errors import RunError
from longctx.ids import doc_keys
from longctx.pack import audit
from longctx.pack.concat import pack_concat
from longctx.pack.frame import Placement, SentenceEnds, framed_lengths
from longctx.pack.lengths import deal
from longctx.pack.mixed import cut_pieces, stand_alone
from longctx.pack.numbering import window_keys, window_numbers
from longctx.pack.passes import assert_copies_apart, pass_rows
from longctx.pack.rows import stream_rows, tour_numbers
from longctx.pack.stages import Pack
from longctx.pack.stages_passes import Packed, planned
from longctx.pack.stages_plan import account
from longctx.pack.stream import Stream
from longctx.pack.windows import assemble, shuffle_key, window_id
from longctx.report.inspect import inspect_view
from longctx.schema import WINDOWS
from longctx.text.tokenize import load_tokenizer
from tests.conftest import make_rows, output_bytes
from tests.pack.reference import documents as framed_documents
from tests.pack.reference import one_tour
from tests.stages import Finished, run_rows

PREFIX, SEPARATOR = 1, 2


class Doc(NamedTuple):
    """A document of `n` text tokens and what a mixture says of it."""

    n: int
    copies: int | None = None
    max_piece: int | None = None
    alone: int | None = None


def table_of(docs: Sequence[Doc], *, mixture: bool = True) -> pa.Table:
    """Documents in the order of one tour, those of the mixture's columns that some has."""
    names = [f"d{i:03d}" for i in range(len(docs))]
    at = np.arange(len(docs))
    table = pa.table(
        {
            "doc_id": pa.array(names, pa.string()),
            "doc_key": pa.array(doc_keys(names), pa.uint64()),
            "part": pa.array(at % 3, pa.int32()),
            "row": pa.array(at, pa.int32()),
            "tour_id": pa.array([f"t{i // 5}" for i in at], pa.string()),
            "rank": pa.array(at, pa.int64()),
            "n_tokens": pa.array([d.n for d in docs], pa.int64()),
        }
    )
    columns = {"mix_copies": "copies", "mix_max_piece": "max_piece", "mix_window": "alone"}
    for name, field in columns.items():
        values = [getattr(d, field) for d in docs]
        if mixture and (name == "mix_copies" or any(v is not None for v in values)):
            table = table.append_column(name, pa.array(values, pa.int32()))
    return table


def vectors_of(names: Sequence[str]) -> np.ndarray:
    """A vector of unit norm for each name."""
    drawn = np.random.default_rng(3).standard_normal((100, 4))
    found = drawn[[int(name[1:]) for name in names]].reshape(len(names), 4)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def stream_of(table: pa.Table, *, compares: bool = False) -> Stream:
    rows = stream_rows(table, "pack")
    sizes = rows.column("size").to_numpy()
    names = table["doc_id"].take(rows["document"]).to_pylist()
    lengths = framed_lengths(sizes, PREFIX, SEPARATOR)
    known = vectors_of(names) if compares else None
    stream = Stream(rows, lengths, tour_numbers(rows), None, known)
    return cut_pieces(stream, PREFIX, SEPARATOR)


def packed(
    docs: Sequence[Doc], *, mixture: bool = True, block: bool = False, **fields: Any
) -> dict[int, Packed]:
    return planned_of(table_of(docs, mixture=mixture), block=block, **fields)


def planned_of(table: pa.Table, *, block: bool = False, **fields: Any) -> dict[int, Packed]:
    op = Pack.model_validate({"op": "pack", **fields})
    stream = stream_of(table, compares=op.compares())
    return planned(op, stream, table, SEPARATOR, 7, "pack", block=block)


def rows_of(found: dict[int, Packed]) -> list[dict[str, Any]]:
    return [row for one in found.values() for row in one.table.to_pylist()]


def windows_of(rows: Sequence[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Rows by window, in the order of their places in it."""
    found = defaultdict(list)
    for row in sorted(rows, key=lambda r: (r["target"], r["window"], r["seq"])):
        found[row["target"], row["window"]].append(row)
    return dict(found)


def contents(rows: Sequence[dict[str, Any]], number: int) -> list[list[tuple[int, ...]]]:
    """What the windows of one pass hold, in the order of the plan."""
    held = [w for w in windows_of(rows).values() if w[0].get("pass", 0) == number]
    return [[(r["document"], r["origin"], r["start"], r["end"]) for r in w] for w in held]


def pieces(doc: Doc) -> int:
    """Documents to the packer that a document becomes."""
    return -(-doc.n // doc.max_piece) if doc.max_piece and doc.n else min(doc.n, 1)


def copies(doc: Doc) -> int:
    return 1 if doc.copies is None else doc.copies


PLANS = [
    {"strategy": "concat"},
    {"strategy": "best_fit"},
    {"strategy": "window", "rule": "first", "look_ahead": 4, "fill_policy": "split"},
    {"strategy": "window", "rule": "weighed", "look_ahead": 8},
    {"strategy": "window", "inner_order": "shuffle"},
    {"strategy": "window", "cross_tours": False, "reserve": 4},
]
LENGTHS = [
    {"length": 20},
    {"lengths": [{"length": 20, "share": 0.5}, {"length": 64, "share": 0.5}]},
]
ANY_DOC = st.builds(
    Doc,
    n=st.integers(0, 90),
    copies=st.sampled_from([None, 1, 1, 2, 3, 5]),
    max_piece=st.sampled_from([None, None, 7, 30]),
    alone=st.sampled_from([None, None, 16]),
)


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    st.lists(ANY_DOC, max_size=25),
    st.sampled_from(PLANS),
    st.sampled_from(LENGTHS),
    st.booleans(),
)
def test_every_copy_is_placed_once_or_counted_and_none_meets_another(docs, plan, lengths, block):
    found = packed(docs, **plan, **lengths, block=block)
    sums = audit.merge(p.sums for p in found.values())
    audit.assert_conserved(sums)
    asked = sum(copies(d) * (d.n + pieces(d) * (PREFIX + SEPARATOR)) for d in docs)
    assert sums["tokens_in"] == asked
    seen: Counter[tuple[int, ...]] = Counter()
    for (length, _), rows in windows_of(rows_of(found)).items():
        assert len({r["pass"] for r in rows}) == 1
        size = sum(r["end"] - r["start"] for r in rows)
        assert 0 < size <= length - plan.get("reserve", 0)
        for r in rows:
            assert r["pass"] < copies(docs[r["document"]])
            assert 0 <= r["start"] < r["end"] <= r["length"]
            place = (r["pass"], r["document"], r["origin"])
            seen.update((*place, t) for t in range(r["start"], r["end"]))
    assert set(seen.values()) <= {1}
    assert len(seen) == sums["tokens_placed"] == sum(sums["tokens_by_pass"].values())
    numbers = {n: [w for m, w in windows_of(rows_of(found)) if m == n] for n in found}
    for length, one in found.items():
        assert sorted(numbers[length]) == list(range(one.windows))
        assert sum(one.sums["windows_by_pass"].values()) == one.windows


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(ANY_DOC, min_size=1, max_size=25), st.sampled_from(PLANS), st.sampled_from(LENGTHS))
def test_pass_k_is_the_plan_of_the_documents_with_more_copies(docs, plan, lengths):
    fields = {**plan, **lengths, "shuffle_windows": False}
    rows = rows_of(packed(docs, **fields))
    for k in range(max(map(copies, docs))):
        left = [i for i, d in enumerate(docs) if copies(d) > k]
        table = table_of(docs).take(pa.array(left)).drop_columns("mix_copies")
        alone = rows_of(planned_of(table, **fields))
        expected = [[(left[d], *at) for d, *at in w] for w in contents(alone, 0)]
        assert contents(rows, k) == expected


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("block", [False, True])
def test_one_copy_of_each_is_the_plan_without_a_mixture(plan, block):
    docs = [Doc(int(n), 1) for n in np.random.default_rng(5).integers(0, 70, 60)]
    with_one = packed(docs, **plan, length=64, block=block)[64]
    without = packed(docs, **plan, length=64, block=block, mixture=False)[64]
    assert "pass" not in without.table.column_names
    assert with_one.table.drop_columns("pass").equals(without.table)
    by_pass = {"tokens_by_pass", "windows_by_pass"}
    assert {k: v for k, v in with_one.sums.items() if k not in by_pass} == without.sums
    assert by_pass & without.sums.keys() == set()


def test_passes_are_nested_and_there_is_always_one():
    stream = stream_of(table_of([Doc(5, 3), Doc(5, None), Doc(5, 0), Doc(5, 2)]))
    assert [at.tolist() for at in pass_rows(stream)] == [[0, 1, 3], [0, 3], [0]]
    assert [at.tolist() for at in pass_rows(stream_of(table_of([])))] == [[]]
    assert [at.tolist() for at in pass_rows(stream_of(table_of([Doc(5, 0)])))] == [[]]


def test_windows_of_all_passes_are_shuffled_together():
    docs = [Doc(10, 4)] * 100
    rows = rows_of(packed(docs, length=26, rule="first", look_ahead=1))
    number = [w[0]["pass"] for _, w in sorted(windows_of(rows).items())]
    assert Counter(number) == dict.fromkeys(range(4), 50)
    quarter = Counter(number[:50])
    assert min(quarter.values()) >= 5
    kept = rows_of(packed(docs, length=26, rule="first", look_ahead=1, shuffle_windows=False))
    assert [w[0]["pass"] for _, w in sorted(windows_of(kept).items())] == sorted(number)


def test_names_tell_passes_apart_and_pass_0_has_the_plain_one():
    held = [("d1", 0, 5), ("d2", 0, 3)]
    assert window_id(held, 0) == window_id(held) == "d08e7bbeeb58ac4bf53db86577bf2f94"
    assert len({window_id(held, k) for k in range(5)}) == 5
    # An id cannot look like the line of a pass: its tab is escaped.
    assert window_id([*held, ("pass\t1", 0, 1)]) != window_id(held, 1)


def test_numbers_and_keys_and_rows_use_the_same_names():
    lengths = np.full(6, 10)
    plan = pack_concat(lengths, one_tour(6), 20)
    p = plan.placement
    twice = Placement(*(np.concatenate([c, c + 3 * (c is p.window)]) for c in vars(p).values()))
    passes = np.repeat([0, 1], len(p.window)).astype(np.int32)
    per_window = np.array([0, 0, 0, 1, 1, 1], np.int32)
    table = assemble(twice, framed_documents(lengths.tolist()), length=20, passes=per_window)
    assert table.schema.names == [*WINDOWS.names, "pass"]
    assert table["pass"].to_pylist() == per_window.tolist()
    ids = table["window_id"].to_pylist()
    assert len(set(ids)) == 6
    assert (
        ids[:3]
        == assemble(p, framed_documents(lengths.tolist()), length=20)["window_id"].to_pylist()
    )
    names = pa.chunked_array([framed_documents(lengths.tolist()).doc_id])
    number = window_numbers(twice, names, 7, passes=passes)
    keys = window_keys(twice, names, 7, passes=passes)
    assert np.argsort(keys, kind="stable").tolist() == np.argsort(number, kind="stable").tolist()
    assert len(np.unique(keys)) == 6


def test_pieces_are_documents_of_at_most_so_many_text_tokens():
    docs = [Doc(9, 1, 4), Doc(4, 1, 4), Doc(9), Doc(0, 1, 4)]
    rows = stream_of(table_of(docs)).rows
    columns = (rows[c].to_pylist() for c in ("document", "origin", "size"))
    assert list(zip(*columns, strict=True)) == [
        *[(0, 0, 4), (0, 4, 4), (0, 8, 1)],
        *[(1, 0, 4), (2, 0, 9), (3, 0, 0)],
    ]
    assert stream_of(table_of(docs)).lengths.tolist() == [7, 7, 4, 7, 12, 0]


def test_a_sentence_ends_in_the_piece_that_holds_its_last_token():
    stream = stream_of(table_of([Doc(5), Doc(10, 1, 4)], mixture=False))
    mixed = table_of([Doc(5), Doc(10, 1, 4)])["mix_max_piece"]
    stream = stream._replace(
        rows=stream.rows.append_column("mix_max_piece", mixed),
        ends=SentenceEnds(np.array([0, 1, 5]), PREFIX + np.array([3, 2, 4, 5, 10])),
    )
    found = cut_pieces(stream, PREFIX, SEPARATOR)
    assert found.ends is not None
    assert found.ends.offsets.tolist() == [0, 1, 3, 4, 5]
    assert (found.ends.values - PREFIX).tolist() == [3, 2, 4, 1, 2]


@pytest.mark.parametrize("plan", PLANS[:4], ids=str)
def test_documents_that_stand_alone_fill_their_windows(plan):
    docs = [Doc(30), Doc(50, 2, None, 16), Doc(7), Doc(15, 1, None, 16), Doc(33, 1, None, 16)]
    found = packed(docs, **plan, length=16)[16]
    alone = [w for w in windows_of(found.table.to_pylist()).values() if w[0]["document"] in (1, 4)]
    assert all(len(w) == 1 and w[0]["end"] - w[0]["start"] == 16 for w in alone)
    held = Counter((w[0]["document"], w[0]["pass"], w[0]["start"]) for w in alone)
    starts = [(1, k, s) for k in (0, 1) for s in (0, 16, 32)] + [(4, 0, 0), (4, 0, 16)]
    assert held == dict.fromkeys(starts, 1)
    assert {w[0]["length"] for w in alone} == {53, 36}
    # 53 - 48 of both copies, the whole document that is shorter than its window, 36 - 32.
    assert found.sums["dropped_window_tail"] == 2 * 5 + 18 + 4
    if plan["strategy"] == "best_fit":
        assert (found.sums["split_docs"], found.sums["split_short"]) == (1, 0)


def test_they_go_to_the_windows_of_their_length():
    docs = [Doc(70, 1, None, 64), *[Doc(8)] * 40, Doc(40, 1, None, 16), Doc(100, 1, None, 32)]
    lengths = [{"length": 16, "share": 0.5}, {"length": 64, "share": 0.5}]
    found = packed(docs, lengths=lengths)
    target = {n: {r["document"] for r in p.table.to_pylist()} for n, p in found.items()}
    assert [n for n in (16, 64) if 41 in target[n]] == [16]
    assert {0, 42} <= target[64] - target[16]
    # 32 tokens in windows of 64 are documents to the packer: they share windows.
    shared = [w for w in windows_of(found[64].table.to_pylist()).values() if w[0]["document"] == 42]
    assert any(len(w) > 1 for w in shared)
    taken = {n: p.sums["tokens_in"] for n, p in found.items()}
    assert taken[64] == 73 + 103 + 11 * len(target[64] - {0, 42})


def test_a_window_that_pack_does_not_make_is_refused():
    with pytest.raises(RunError, match=r"windows of 20 tokens alone, .* holds 19\n.*`reserve`"):
        packed([Doc(50, 1, None, 20)], length=20, reserve=1)


def test_spans_of_a_document_are_copied_and_never_alone():
    table = table_of([Doc(40, 2, None, 16), Doc(12)])
    spans = [[{"tour_id": "x", "rank": i, "start": i, "end": i + 5} for i in range(2)], []]
    stream = stream_of(table.append_column("spans", pa.array(spans)))
    found = stand_alone(stream, [16], "pack")
    size = [(d, n) for d, n in zip(found.rows["document"].to_pylist(), found.lengths, strict=True)]
    assert size == [(0, 16), (0, 16), (1, 15), (0, 8), (0, 8)]
    assert [at.tolist() for at in pass_rows(found)] == [[0, 1, 2, 3, 4], [0, 1, 3, 4]]


def test_documents_with_a_window_are_dealt_before_all_others():
    lengths = np.array([10] * 8)
    fixed = np.array([1, 1, 1, 1, -1, -1, -1, -1])
    found = deal(lengths, [10, 20], [0.5, 0.5], 3, 10, fixed=fixed)
    assert found.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    free = deal(lengths, [10, 20], [0.5, 0.5], 3, 10)
    assert deal(lengths, [10, 20], [0.5, 0.5], 3, 10, fixed=np.full(8, -1)).tolist() == (
        free.tolist()
    )


def placement(*rows: tuple[int, int, int, int]) -> Placement:
    return Placement(*np.array(rows, np.int64).T)


def test_the_audit_sees_two_copies_in_one_window():
    apart = placement((0, 0, 0, 5), (0, 1, 0, 5), (1, 0, 0, 5))
    assert_copies_apart(apart, np.array([0, 0, 1], np.int32))
    with pytest.raises(RunError, match="window 0 of the plan holds two copies"):
        assert_copies_apart(apart, np.array([0, 1, 1], np.int32))
    again = placement((3, 0, 0, 5), (3, 1, 0, 5), (3, 0, 4, 6))
    with pytest.raises(RunError, match="window 3 of the plan holds two copies"):
        assert_copies_apart(again, np.zeros(3, np.int32))
    with pytest.raises(RunError, match="have 12 framed tokens, but 11 were"):
        audit.assert_copies(12, 11)


def test_tokens_of_sources_count_copies_and_documents_do_not():
    docs = table_of([Doc(10, 3), Doc(4), Doc(6, 2)])
    named = docs.append_column("source", pa.array(["a", "a", "b"]))
    named = named.append_column("license", pa.nulls(3, pa.string()))
    inside = np.array([True, True, False])
    found = account(named, inside)
    assert found["by_source"] == {"a": [2, 34]}
    assert (found["doc_tokens"], found["placed_documents"]) == (34, 2)
    assert found["left"] == {"not_placed": 1}
    assert account(named.drop_columns("mix_copies"), inside)["by_source"] == {"a": [2, 14]}


# On the engine


class Mixes(Map):
    """Copies, pieces and windows by the document's name, as the ops of the mixture write them."""

    op: Literal["test.mixes"]
    most: int = 3
    summary: ClassVar[str] = "mixes"
    reads: ClassVar[tuple[str, ...]] = ("doc_id",)
    writes: ClassVar[tuple[str, ...]] = ("mix_copies", "mix_max_piece", "mix_window")
    removes: ClassVar[bool] = True

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        names = table.column("doc_id").to_pylist()
        found = [mix_of(name, self.most) for name in names]
        columns = {c: [f[i] for f in found] for i, c in enumerate(self.writes)}
        arrays = {c: pa.array(values, pa.int32()) for c, values in columns.items()}
        gone = ["mixture" if f[0] == 0 else None for f in found]
        return pa.table({**arrays, "drop_reason": pa.array(gone, pa.string())})


def mix_of(name: str, most: int) -> tuple[int, int | None, int | None]:
    kind = name.rpartition("-")[0]
    copies = {"long": most, "sea": 2, "law": 0}.get(kind, 1)
    return copies, 100 if kind == "bread" else None, 256 if kind == "long" else None


LONG = [
    {"id": f"long-{i}", "text": "one two three. " * (400 + i), "source": "book"} for i in (0, 1)
]
ROWS = [*make_rows(60)[:60], *LONG]
EMBED = {"op": "embed"}
ORDER = {"op": "order.path", "dup_action": "keep"}
PACK = {"op": "pack", "length": 256, "shard_tokens": 4_000}


@pytest.fixture(scope="module")
def folder(ray_local: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.OPS, "test.mixes", f"{__name__}:{Mixes.__name__}")
        yield tmp_path_factory.mktemp("passes")


def run_packed(folder: Path, most: int = 3, engine: Any = None, **fields: Any) -> Finished:
    changes: dict[str, Any] = {"output": {"format": ["parquet", "jsonl", "webdataset"]}}
    if engine:
        changes["engine"] = engine
    mixes = {"op": "test.mixes", "most": most}
    return run_rows(folder, ROWS, [EMBED, mixes, ORDER, {**PACK, **fields}], **changes)


def assert_copies_are_whole(windows: Sequence[dict[str, Any]]) -> None:
    """Every copy of every document has its framed text once, in the form that was asked for."""
    tokenizer = load_tokenizer("embedded")
    texts = {r["id"]: tokenizer.encode_batch([r["text"]])[0].tolist() for r in ROWS}
    found: dict[tuple[str, int], list[tuple[int, list[int]]]] = defaultdict(list)
    for window in windows:
        ids = [s["doc_id"] for s in window["segments"]]
        if any(i.startswith("long") for i in ids):
            assert (len(ids), window["n_tokens"]) == (1, 256)
        for s in window["segments"]:
            tokens = window["input_ids"][s["start"] : s["end"]]
            found[s["doc_id"], window["pass"]].append((s["doc_start"], tokens))
    expected = {(i, k) for i in texts for k in range(mix_of(i, 3)[0])}
    assert found.keys() == expected
    for (name, _), spans in found.items():
        _, piece, alone = mix_of(name, 3)
        text = texts[name]
        whole = [*text, tokenizer.eos_id]
        if alone:
            whole = whole[: len(text) // alone * alone]
        if piece:
            cut = [text[i : i + piece] for i in range(0, len(text), piece)]
            whole = [t for one in cut for t in (*one, tokenizer.eos_id)]
        assert [t for _, tokens in sorted(spans) for t in tokens] == whole, name


@pytest.mark.ray
def test_copies_of_a_run_are_packed_in_passes(folder: Path) -> None:
    done = run_packed(folder)
    windows = done.windows()
    assert_copies_are_whole(windows)
    ids = [w["window_id"] for w in windows]
    assert len(set(ids)) == len(ids)
    keys = shuffle_key(ids, 3).tolist()
    assert keys == sorted(keys)
    stage = done.stage("pack")
    assert (stage.rows_in, stage.rows_out, stage.dropped) == (47, 47, {})
    figures = stage.steps["audit"]
    assert figures["windows_by_pass"] == {
        str(k): n for k, n in Counter(w["pass"] for w in windows).items()
    }
    assert figures["dropped_window_tail"] > 0
    tokens = {r["id"]: len(load_tokenizer("embedded").encode_batch([r["text"]])[0]) for r in ROWS}
    assert stage.summary["by_source"]["sea"] == [
        15,
        2 * sum(n for i, n in tokens.items() if i.startswith("sea")),
    ]
    out = io.StringIO()
    Console(file=out, width=100).print(inspect_view(done.record.run_dir))
    assert re.search(r"docs +cosine +pass +longest document", out.getvalue())
    Console(file=out, width=100).print(inspect_view(done.record.run_dir, window=ids[0]))
    assert f"pass {windows[0]['pass']}" in out.getvalue()


@pytest.mark.ray
def test_copies_are_packed_in_blocks_and_workers_change_nothing(folder: Path) -> None:
    blocks = {"one_place_up_to": 20, "strategy": "best_fit"}
    done = run_packed(folder, **blocks)
    assert done.stage("pack").steps["plan"]["blocks"] == 3
    assert_copies_are_whole(done.windows())
    expected = output_bytes(done.record.run_dir)
    engine = {"part_mb": 0.02, "workers": 4, "exchange_mb": 0.02}
    named = output_bytes(run_packed(folder / "again", engine=engine, **blocks).record.run_dir)
    assert named.keys() == expected.keys()
    assert [n for n in named if named[n] != expected[n] and n != "manifest.json"] == []


@pytest.mark.ray
def test_other_copies_are_packed_anew(folder: Path) -> None:
    done = run_packed(folder)
    before = Counter(w["pass"] for w in done.windows())
    passes = Counter(w["pass"] for w in run_packed(folder, most=4).windows())
    assert passes == {**before, 3: before[2]}
    assert before[2] > 0


@pytest.mark.ray
@pytest.mark.parametrize("columns", [[], ["mix_copies"]])
def test_documents_are_exported_once_and_say_their_copies_where_asked(
    folder: Path, columns: list[str]
) -> None:
    stages = [EMBED, {"op": "test.mixes"}, {"op": "export", "columns": columns}]
    done = run_rows(folder, ROWS, stages)
    lines = (Path(done.record.output) / "part-00000.jsonl").read_text().splitlines()
    copies = {d["id"]: d.get("mix_copies") for d in map(json.loads, lines)}
    kept = {r["id"]: mix_of(r["id"], 3)[0] for r in ROWS if mix_of(r["id"], 3)[0]}
    assert copies == (kept if columns else dict.fromkeys(kept))
    warned = done.stage("export").steps["files"]["warnings"]
    assert ["name `mix_copies` in `columns`" in w for w in warned] == [True] * (not columns)
