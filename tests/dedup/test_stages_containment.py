"""`dedup.containment`: columns, who goes, and that nothing but the texts decides."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.dedup.chunking import Grid, Sampling
from longctx.dedup.stages_containment import DedupContainment, _cut
from longctx.dedup.stages_samples import packed, unpacked
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Corpus
from longctx.engine.op import Setting
from tests.dedup.plain_containment import plain_scores
from tests.engine.parts import documents, put
from tests.in_process import context_of, run_here
from tests.stages import run_rows

OP = "dedup.containment"
SETTING = Setting(seed=1, tokenizer="embedded", stage="01-x", run_dir="", output="")
# Every shingle counts, so that small documents say what the rules do.
SMALL: dict[str, Any] = {
    "ngram": 1, "one_in": 1, "chunk": 5, "min_last": 3, "min_samples": 1, "theta": 0.5,
}  # fmt: skip
Texts = dict[str, str]


def word(number: int) -> str:
    """A word of letters of its own for each number: digits would all count as one."""
    return "".join(chr(97 + number // 26**i % 26) for i in range(5))


def words(*spans: tuple[int, int]) -> str:
    return " ".join(word(i) for a, b in spans for i in range(a, b))


def corpus_of(folder: Path, texts: Texts, parts: int = 1, order: int = 0) -> Corpus:
    """Documents dealt to parts of two row groups, in an order drawn from a seed."""
    ids = list(texts)
    if order:
        ids = [ids[i] for i in np.random.default_rng(order).permutation(len(ids))]
    refs = []
    for p in range(parts):
        own = ids[p::parts]
        table = documents(
            len(own),
            doc_id=pa.array(own, pa.string()),
            text=[texts[i] for i in own],
            source=[i.partition("/")[0] for i in own],
        )
        groups = (len(own) // 2, len(own) - len(own) // 2)
        refs.append(put(str(folder), f"documents/s-{p:04d}.parquet", table, groups))
    return Corpus(str(folder), tuple(refs))


def scored(
    folder: Path, texts: Texts, parts: int = 1, order: int = 0, **fields: Any
) -> tuple[dict[str, dict[str, Any]], BarrierContext]:
    """Columns by document, and the context that ran."""
    op = DedupContainment(op=OP, **fields)
    exchange = 2000 if order else 256_000_000  # one bucket or many
    corpus = corpus_of(folder, texts, parts, order)
    context = context_of(op, corpus, len(texts), exchange_bytes=exchange)
    op.run(context)
    found = {}
    assert context.final is not None
    for i, done in enumerate(context.final.commits):
        ids = pq.read_table(folder / context.corpus.documents[i].name, columns=["doc_id"])
        rows = pq.read_table(folder / done.files[0].name).to_pylist()
        found |= dict(zip(ids.column(0).to_pylist(), rows, strict=True))
    return found, context


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(monkeypatch)


def example() -> Texts:
    return {
        "A": words((1, 21)),
        "B": words((11, 21), (100, 130)),
        "C": words((200, 202), (11, 21), (202, 210)),
    }


def test_the_example_of_the_specification(tmp_path: Path) -> None:
    found, context = scored(tmp_path, example(), **SMALL)
    names = ("ct_n_chunks", "ct_any_share", "ct_best_doc", "ct_best_share", "ct_prev_doc")
    names = (*names, "ct_prev_share", "drop_reason")
    assert {i: tuple(row[n] for n in names) for i, row in found.items()} == {
        "A": (4, 0.5, "B", 0.5, "B", 0.5, "contain"),
        "B": (8, 0.25, "A", 0.25, None, 0.0, None),
        "C": (4, 0.5, "A", 0.5, "A", 0.5, "contain"),
    }
    assert {row["ct_status"] for row in found.values()} == {"ok"}
    assert {row[n] for row in found.values() for n in ("ct_self_share", "ct_common_share")} == {0.0}
    assert context.final is not None
    assert context.final.commits[0].stats["dropped"] == {"contain": 2}


def test_the_pair_table_says_who_covers_whom(tmp_path: Path) -> None:
    _, context = scored(tmp_path, example(), parts=2, **SMALL)
    files = [f.name for c in context.step_commits["pairs"] for f in c.files]
    rows = pa.concat_tables([pq.read_table(tmp_path / f) for f in files]).to_pylist()
    names = ("doc_id", "other_id", "cov_share", "n_chunks", "precedes")
    assert sorted(tuple(r[n] for n in names) for r in rows) == [
        ("A", "B", 0.5, 2, True),
        ("A", "C", 0.5, 2, False),
        ("B", "A", 0.25, 2, False),
        ("B", "C", 0.25, 2, False),
        ("C", "A", 0.5, 2, True),
        ("C", "B", 0.5, 2, True),
    ]
    assert context.step_stats["pairs"] == {"pairs": 6}


def random_texts(seed: int) -> Texts:
    """Documents of shared passages, own words, repetition, a template, and nothing."""
    rng = np.random.default_rng(seed)
    passages = [words((a, a + int(rng.integers(4, 25)))) for a in range(0, 1000, 100)]
    template = words((5000, 5006))
    texts = {"s0/none": "", "s1/few": "two words"}
    for i in range(24):
        drawn = [passages[k] for k in rng.integers(0, len(passages), rng.integers(0, 5))]
        own = words((10_000 + 50 * i, 10_000 + 50 * i + int(rng.integers(0, 20))))
        texts[f"s{i % 2}/d{rng.integers(100)}-{i}"] = " ".join(
            [template * (i % 3 > 0), *drawn, own, *drawn[:1] * (i % 4)]
        )
    return texts


def test_columns_are_those_of_the_definition_however_rows_are_dealt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    texts, max_df = random_texts(8), 9
    fields = {**SMALL, "ngram": 2, "one_in": 2, "chunk": 8, "max_df": max_df, "tau": 0.5}
    plain = plain_scores(texts, Sampling(2, 2, 8, 3), Grid(8, 3, 1, 0.5), max_df)
    runs = []
    for seed, parts in enumerate((1, 2, 7)):
        run_here(monkeypatch, seed)
        found, _ = scored(tmp_path / str(seed), texts, parts, seed, **fields)
        runs.append({i: found[i] for i in texts})
    assert runs[0] == runs[1] == runs[2]
    statuses = set()
    for i, row in runs[0].items():
        expected = plain[i]
        covers = expected.pop("covers")
        names = ("any_share", "best_doc", "best_share", "prev_doc", "prev_share")
        wanted = dict.fromkeys((*names, "self_share", "common_share")) | expected
        assert {n.removeprefix("ct_"): v for n, v in row.items() if n != "drop_reason"} == wanted
        goes = (expected.get("prev_share") or 0) >= 0.5 and expected["n_chunks"] >= 2
        assert row["drop_reason"] == ("contain" if goes else None)
        statuses.add((row["ct_status"], bool(covers), goes))
    # The corpus has documents of every kind, so each rule above was put to the test.
    assert {s for s, _, _ in statuses} == {"ok", "too_short", "empty"}
    assert {("ok", True, True), ("ok", True, False), ("ok", False, False)} <= statuses
    assert any(row["ct_self_share"] for row in runs[0].values())
    assert any(row["ct_common_share"] for row in runs[0].values())


def test_no_file_of_any_step_sees_the_order_in_which_rows_arrive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    for seed in (1, 2):
        run_here(monkeypatch, seed)
        _, context = scored(tmp_path / str(seed), random_texts(4), 3, 1, **SMALL)
        commits = {step: [c.digest for c in done] for step, done in context.step_commits.items()}
        found.append(commits)
        assert len(commits["shared"]) > 1
    assert found[0] == found[1]
    assert set(found[0]) == {"samples", "shared", "covered", "pairs", "scores", ""}


def test_another_theta_is_a_new_cut_of_stored_shares(tmp_path: Path) -> None:
    texts = example()
    strict, first = scored(tmp_path, texts, 3, **{**SMALL, "theta": 0.51})
    assert [row["drop_reason"] for row in strict.values()] == [None] * 3
    assert first.skipped == 0
    loose, again = scored(tmp_path, texts, 3, **SMALL)
    assert sorted(i for i, row in loose.items() if row["drop_reason"]) == ["A", "C"]
    assert again.units - again.skipped == 3
    kept, last = scored(tmp_path, texts, 3, **SMALL, min_chunks=5)
    assert [row["drop_reason"] for row in kept.values()] == [None] * 3
    assert last.units - last.skipped == 3
    none, _ = scored(tmp_path, texts, 3, **{**SMALL, "theta": None})
    assert [row["drop_reason"] for row in none.values()] == [None] * 3
    for i in texts:
        assert {**loose[i], "drop_reason": None} == none[i]


def test_other_thresholds_do_not_read_the_text_again(tmp_path: Path) -> None:
    _, first = scored(tmp_path, example(), 3, **SMALL)
    for fields in ({"tau": 0.9}, {"min_samples": 2}, {"max_df": 1}):
        _, again = scored(tmp_path, example(), 3, **{**SMALL, **fields})
        assert again.step_commits["samples"] == first.step_commits["samples"]
        assert again.skipped >= 3


def test_of_copies_and_chains_the_longest_stays(tmp_path: Path) -> None:
    texts = {
        "in-b": words((0, 40)),
        "b": words((0, 40), (100, 108)),
        "c": words((0, 40), (100, 108), (200, 209)),
        "twin-1": words((500, 540)),
        "twin-2": words((500, 540)),
    }
    found, _ = scored(tmp_path, texts, 2, **{**SMALL, "theta": 0.8})
    reasons = {i: row["drop_reason"] for i, row in found.items()}
    assert reasons == {
        "in-b": "contain", "b": "contain", "c": None, "twin-1": None, "twin-2": "contain"
    }  # fmt: skip
    assert found["in-b"]["ct_prev_doc"] == "b"
    assert found["b"]["ct_prev_doc"] == "c"
    assert found["twin-1"]["ct_best_doc"] == "twin-2"
    assert found["twin-1"]["ct_prev_doc"] is None


def test_what_cannot_be_judged_is_null_with_a_reason(tmp_path: Path) -> None:
    texts = {
        "empty": "",
        "space": " \n\t ",
        "marks": "... !!! ...",
        "short": words((0, 400)),
        "one token": "same " * 5000,
        "one line": "all work and no play makes jack a dull boy\n" * 500,
        "fine": words((0, 3000)),
        "copy": words((0, 3000)),
    }
    found, _ = scored(tmp_path, texts, 2)
    status = {i: row["ct_status"] for i, row in found.items()}
    assert status == {
        "empty": "empty", "space": "empty", "marks": "empty", "short": "too_short",
        "one token": "few_samples", "one line": "few_samples", "fine": "ok", "copy": "ok",
    }  # fmt: skip
    for i, row in found.items():
        known = {n for n, v in row.items() if v is not None and n != "ct_status"}
        if status[i] == "ok":
            assert {"ct_any_share", "ct_best_share", "ct_prev_share", "ct_self_share"} < known
        else:
            assert known == ({"ct_n_chunks"} if status[i] == "few_samples" else set())
    assert found["one line"]["ct_n_chunks"] == 5
    assert found["copy"]["ct_best_share"] == found["fine"]["ct_prev_share"] == 1.0


def test_sources_have_their_own_profile(tmp_path: Path) -> None:
    lines = [f"{word(i)} = {word(i + 500)}" for i in range(30)]
    both = {"1": "\n".join(lines), "2": "\n".join(line.replace(" ", "") for line in lines)}
    texts = {f"{source}/{i}": t for source in ("prose", "code") for i, t in both.items()}
    found, _ = scored(tmp_path, texts, 2, **{**SMALL, "ngram": 3}, profiles={"code": "code"})
    assert {i: row["ct_prev_doc"] for i, row in found.items()} == {
        "prose/1": None, "prose/2": "prose/1", "code/1": None, "code/2": None
    }  # fmt: skip


def test_no_documents_or_none_with_words(tmp_path: Path) -> None:
    found, _ = scored(tmp_path / "a", {"a": "", "b": ""}, 2)
    assert [row["ct_status"] for row in found.values()] == ["empty", "empty"]
    nothing = DedupContainment(op=OP)
    context = context_of(nothing, Corpus(str(tmp_path / "none"), ()), 0)
    nothing.run(context)
    assert context.final is not None
    assert context.final.commits == []


def test_a_share_equal_to_theta_goes_unless_the_document_has_few_chunks() -> None:
    table = pa.table({n: pa.nulls(5) for n in DedupContainment.writes[:-1]})
    columns = {
        "ct_prev_share": [0.7, 14 / 20, 0.6999, None, 1.0],
        "ct_n_chunks": [9, 2, 9, None, 1],
    }
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))

    def reasons(theta: float | None, min_chunks: int) -> list[str | None]:
        found = _cut(theta, min_chunks, table, table.slice(0, 0), SETTING)
        return found.column("drop_reason").to_pylist()

    assert reasons(0.7, 2) == ["contain", "contain", None, None, None]
    assert reasons(0.7, 1) == ["contain", "contain", None, None, "contain"]
    assert reasons(None, 1) == [None] * 5


def test_runs_of_numbers_survive_packing_and_slicing() -> None:
    values, counts = np.arange(9, dtype=np.uint64), np.array([2, 0, 4, 3])
    column = pa.chunked_array([packed(values, counts)])
    assert [x.tolist() for x in unpacked(column, np.uint64)] == [values.tolist(), counts.tolist()]
    some, few = unpacked(column.slice(1, 2), np.uint64)
    assert (some.tolist(), few.tolist()) == ([2, 3, 4, 5], [0, 4])
    for empty in (column.slice(0, 0), pa.chunked_array([packed(values[:0], counts[:0])])):
        assert [len(x) for x in unpacked(empty, np.uint64)] == [0, 0]


def test_a_last_chunk_longer_than_a_chunk_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_last = 512 exceeds chunk = 256: lower min_last"):
        DedupContainment(op=OP, chunk=256)


@pytest.mark.ray
def test_in_a_run_every_row_is_accounted_for(ray_local: int, tmp_path: Path) -> None:
    texts = {**random_texts(3), "again": words((0, 60)), "longer": words((0, 70))}
    rows = [{"id": i, "text": t} for i, t in texts.items()]
    stages = [{"op": OP, **SMALL, "theta": 0.8}]
    done = run_rows(tmp_path, rows, stages, engine={"part_mb": 0.01, "exchange_mb": 0.02})
    record = done.stage(OP)
    assert record.rows_in == len(texts)
    assert record.rows_out == len(texts) - record.dropped["contain"]
    assert done.column(OP, "ct_prev_doc")["again"] == "longer"
    plain = plain_scores(texts, Sampling(1, 1, 5, 3), Grid(5, 3, 1, 0.6), 100)
    shares = done.column(OP, "ct_prev_share")
    assert shares == {i: plain[i].get("prev_share") for i in texts}
