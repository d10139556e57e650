"""`synth.in2` as steps: a pool that no parts change, rows from rules, faults caught by checks."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from longctx.engine.barrier import BarrierContext
from longctx.errors import RunError
from longctx.llm.spec import close_client
from longctx.synth import film_fillers, film_rows, in2, rule_set, stages_in2, stages_in2_pool
from longctx.synth.film import Segment, n_segments
from longctx.synth.film_fillers import hash_bounds, piece_hashes
from longctx.synth.rows import FILM
from longctx.synth.stages_in2 import SynthIN2
from tests.in_process import run_here
from tests.synthesis import SCRIPTED, Row, output, run_op, table, told_by

pytestmark = pytest.mark.usefixtures("model_ops_here")

HELD_OUT = "alpha bravo charlie delta echo foxtrot golf hotel india juliet"


def documents(n: int, seed: int = 1, lang: str = "en") -> list[Row]:
    """Documents of two to five pieces, each sentence about a name and a year of its own."""
    rng = np.random.default_rng(seed)
    found: list[Row] = []
    for i in range(n):
        sentences = [
            f"The keeper {chr(65 + (i + k) % 26)}ora{k} Lund{i} built pier number "
            f"{rng.integers(999)} beside harbour{i}."
            for k in range(int(rng.integers(20, 60)))
        ]
        text = " ".join(sentences)
        found.append({"doc_id": f"{lang}{i:04d}", "text": text, "source": "ab"[i % 2]})
        found[-1] |= {"language": lang, "n_tokens": len(text.split())}
    return found


def op_of(**fields: Any) -> SynthIN2:
    usual: Row = {"op": "synth.in2", "generator": SCRIPTED, "rows": 40, "unit_rows": 16}
    usual |= {"min_context": 300, "max_context": 900, "shard_rows": 16}
    return SynthIN2.model_validate({**usual, **fields})


def made(
    folder: Path, docs: list[Row], parts: int = 3, *, dry: bool = False, **fields: Any
) -> BarrierContext:
    return run_op(op_of(**fields), folder, docs, parts, dry=dry)


def facts_of(context: BarrierContext) -> list[Row]:
    found: list[Row] = []
    for file in sorted(Path(context.folder).glob("rows/*.parquet")):
        said = pq.read_table(file, columns=["facts"]).column("facts").drop_null().to_pylist()
        found += map(json.loads, said)
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> BarrierContext:
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch)
        docs = documents(900)
        return made(tmp_path_factory.mktemp("large"), docs, rows=850, unit_rows=200)


def test_checks_over_all_rows_pass(large: BarrierContext) -> None:
    told, rows = told_by(large), table(large)
    assert told["chosen"] == 850 == len(rows) + sum(told["rejects"].values())
    assert told["rejects"] == {}
    checks = told["checks"]
    assert {n: c["ok"] for n, c in checks.items()} == {
        **dict.fromkeys(("depth", "token_depth", "adjacent", "order", "lengths"), True),
        **dict.fromkeys(("support", "rows", "target_len", "types"), True),
        "decontamination": None,  # no evaluation texts are named
    }
    assert (checks["types"]["fine"], checks["types"]["integration"]) == (603, 165)
    (first, *_) = sorted(Path(large.setting.output).glob("part-*.parquet"))
    assert pq.read_schema(first).equals(FILM)


def test_rows_hold_their_evidence_among_pieces_of_others(large: BarrierContext) -> None:
    texts = {d["doc_id"]: d["text"] for d in documents(900)}
    for row in table(large):
        user, assistant = row["messages"]
        assert row["context"] in user["content"]
        assert user["content"].endswith(row["question"])
        assert assistant["content"] == row["answer"]
        if row["type"] == "short":
            assert row["context"] == texts[row["id"]]
            continue
        assert row["target_len"] - 128 < row["context_tokens"] <= row["target_len"]
        fillers = [s for s in row["segments"] if s["role"] == "filler"]
        assert len({s["seg_id"] for s in row["segments"]}) == row["n_segments"]
        assert row["source_doc_id"] == row["id"] not in {s["doc_id"] for s in fillers}
        pieces = row["context"].split("\n")
        assert all(pieces[s["pos"]] in texts[s["doc_id"]] for s in row["segments"])
        evidence = " ".join(pieces[pos] for pos in row["needed_pos"])
        assert set(words(row["answer"])) <= set(words(evidence))
        assert len(row["gold_pos"]) == (
            1 if row["type"] == "fine" else row["n_segments"] - len(fillers)
        )


def words(text: str) -> list[str]:
    return [word.rstrip(".") for word in text.split()]


def changed(large: BarrierContext, **changes: Any) -> Row:
    """The checks of the large run's rows with something else in each fact."""
    rows = [
        {**r, **{n: c(r) if callable(c) else c for n, c in changes.items()}}
        for r in facts_of(large)
    ]
    return op_of().figures(rows)


def test_planted_faults_are_caught_by_their_checks(large: BarrierContext) -> None:
    def failed(**changes: Any) -> set[str]:
        return {name for name, found in changed(large, **changes).items() if found["ok"] is False}

    assert failed() == set()
    assert failed(place=lambda r: r["n"] // 3 + r["place"] // 3) == {"depth"}
    assert failed(token_depth=lambda r: r["token_depth"] / 2) == {"token_depth"}
    assert failed(golds=lambda r: list(range(len(r["golds"])))) == {"adjacent"}
    assert failed(in_order=True) == {"order"}
    assert failed(target=lambda r: r["target"] and 900) == {"target_len"}
    assert failed(context_tokens=901) == {"lengths"}
    assert failed(support=lambda r: 0.5 if r["place"] == 1 else 1.0) == {"support"}
    assert failed(problems=["filler_of_source"]) == {"rows"}
    assert "types" in failed(type=lambda r: "fine" if r["type"] == "short" else r["type"])


def test_a_fault_in_the_making_of_rows_shows_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def golds_first(n: int, golds: int, seed: int, row_id: str) -> list[int]:
        return list(range(n))

    monkeypatch.setattr(film_rows, "shuffled", golds_first)
    context = made(tmp_path, documents(720), rows=720, unit_rows=200)
    checks = told_by(context)["checks"]
    bad = {name for name, found in checks.items() if found["ok"] is False}
    assert bad == {"depth", "token_depth", "adjacent", "order"}
    assert len(context.step_stats["files"]["warnings"]) == 4


def test_parts_and_units_change_no_byte(tmp_path: Path) -> None:
    docs = documents(60)
    fields: Row = {"pool_segments": 90}
    one = made(tmp_path / "one", docs, 1, unit_rows=200, **fields)
    four = made(tmp_path / "four", docs[::-1], 4, unit_rows=3, **fields)
    assert output(one) == output(four)
    assert 60 < told_by(one)["pool"]["segments"]["en"] < 120
    assert told_by(one)["rows"] == 40


def test_a_pool_on_several_shelves_is_the_same_for_any_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = documents(60)
    whole = output(made(tmp_path / "whole", docs))
    monkeypatch.setattr(stages_in2_pool, "SHELF", 20)
    one, four = (made(tmp_path / str(n), docs, n) for n in (1, 4))
    assert output(one) == output(four)
    assert len(one.step_commits["shelves"]) == len(four.step_commits["shelves"]) > 5
    assert {r["id"] for r in table(one)} == {r["id"] for r in table(four)}
    assert whole.keys() == output(one).keys()


def test_a_finished_run_asks_nothing_more_and_lost_units_are_made_alike(tmp_path: Path) -> None:
    docs = documents(60)
    first = made(tmp_path, docs)
    before = output(first)
    again = made(tmp_path, docs)
    assert (again.skipped, again.units) == (first.units, first.units)
    assert made(tmp_path, docs, dry=True).skipped == first.units
    for step in ("fine", "fillers", "shelves", "rows"):
        for file in (tmp_path / "stages").glob(f"*/{step}/*.json"):
            file.unlink()
    lost = made(tmp_path, docs)
    assert output(lost) == before
    assert told_by(lost)["stages"]["fine"]["usage"]["calls"] == 0
    longer = made(tmp_path, docs, max_context=1300)
    assert told_by(longer)["stages"]["fine"]["usage"]["calls"] == 0
    assert max(r["context_tokens"] for r in table(longer)) > 900


def test_what_evaluation_sets_hold_is_asked_about_and_fills_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = documents(60)
    planted = [deepcopy(d) for d in docs]
    for doc in planted[::10]:
        doc["text"] = f"{HELD_OUT.upper()}, {doc['text']}"
        doc["n_tokens"] = len(doc["text"].split())
    file = tmp_path / "set.txt"
    file.write_text(f"{HELD_OUT}\n\nfew words\n")
    fields: Row = {"rows": 60, "against": [{"path": str(file)}]}
    context = made(tmp_path / "run", planted, **fields)
    bad = {d["doc_id"] for d in planted[::10]}
    rejects = table(context, "rejects")
    assert {r["row_id"]: r["code"] for r in rejects} == dict.fromkeys(bad, "contaminated")
    rows, told = table(context), told_by(context)
    assert {r["id"] for r in rows} == {d["doc_id"] for d in docs} - bad
    assert not bad & {s["doc_id"] for r in rows for s in r["segments"]}
    assert told["checks"]["decontamination"] == {"hits": 0, "texts": 1, "ngram": 10, "ok": True}
    assert told["rejects"] == {"contaminated": 6} == told["stages"]["screened"]["rejects"]
    assert told["stages"]["cleared"]["rejects"] == {}
    assert told["pool"]["contaminated"] == 6
    close = documents(60)
    close[0]["text"] = f"{HELD_OUT.rpartition(' ')[0]} {close[0]['text']}"
    assert told_by(made(tmp_path / "nine", close, **fields))["rejects"] == {}
    # Fillers that were not looked at are found in the rows.
    monkeypatch.setattr(SynthIN2, "held_out", lambda self, context: None)
    told = told_by(made(tmp_path / "blind", planted, **fields))
    assert told["stages"]["cleared"]["rejects"]["contaminated"] == 54 - told["rows"] > 0
    assert told["checks"]["decontamination"]["hits"] == 0


def test_near_duplicates_of_a_document_are_no_fillers_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = [{**d, "kin": str(i // 20)} for i, d in enumerate(documents(60))]
    kin = {d["doc_id"]: d["kin"] for d in docs}

    def shared(context: BarrierContext) -> int:
        pairs = [(r["id"], s) for r in table(context) for s in r["segments"]]
        return sum(s["role"] == "filler" and kin[s["doc_id"]] == kin[i] for i, s in pairs)

    assert shared(made(tmp_path / "blind", docs)) > 0
    context = made(tmp_path / "told", docs, cluster_column="kin")
    assert shared(context) == 0
    assert told_by(context)["checks"]["rows"]["ok"] is True
    real = film_fillers.choose_fillers

    def blind(rng: Any, pool: Any, source: list[Segment], *sizes: int) -> list[int] | None:
        strangers = [s._replace(doc_id="?", cluster_id=None) for s in source]
        return real(rng, pool, strangers, *sizes)

    monkeypatch.setattr(film_rows, "choose_fillers", blind)
    context = made(tmp_path / "fault", docs, cluster_column="kin")
    found = told_by(context)["checks"]["rows"]
    assert found["ok"] is False
    assert found["problems"].keys() == {"filler_of_source", "gold_count"}
    assert op_of(cluster_column="kin").reads_columns() == ("n_tokens", "kin")


def test_fillers_are_of_the_language_of_their_row(tmp_path: Path) -> None:
    docs = documents(40) + documents(30, lang="ko") + documents(10, lang="zh")
    context = made(tmp_path, docs, lang_share={"en": 0.5, "ko": 0.5}, rows=20)
    rows = table(context)
    assert {r["lang"] for r in rows} == {"en", "ko"}
    assert all(s["doc_id"][:2] == r["lang"] for r in rows for s in r["segments"])
    assert set(told_by(context)["pool"]["segments"]) == {"en", "ko"}


def test_a_question_that_needs_no_context_makes_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = documents(60)
    context = made(tmp_path / "unknown", docs, verify=True)
    assert told_by(context)["stages"]["verify"]["ok"] == 40 == told_by(context)["rows"]

    def knows(parts: Row) -> Row:
        return {"answer": parts["answer"], "confident": "pier number 1" in parts["answer"]}

    monkeypatch.setitem(rule_set._RULES, "film.verify", knows)
    close_client()
    context = made(tmp_path / "known", docs, verify=True, max_reject_rate=1)
    told = told_by(context)
    assert 0 < told["rejects"]["closed_book_solvable"] == 40 - told["rows"]
    assert not any("pier number 1" in r["answer"] for r in table(context))


def test_a_pool_that_fills_no_context_is_told_before_any_call(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"pool of fillers holds [\d,]+ tokens.*up to 90,000"):
        made(tmp_path, documents(30), max_context=90_000)
    (stage,) = (tmp_path / "stages").glob("*synth*")
    assert not (stage / "fine").exists()


def test_documents_that_have_fewer_pieces_than_their_number_of_tokens_says(tmp_path: Path) -> None:
    docs = documents(60)
    for doc in docs[::4]:
        doc["text"] = " ".join(doc["text"].split()[:20])
    context = made(tmp_path, docs, rows=60)
    told = told_by(context)
    assert told["rejects"] == {"too_short": 15}
    assert told["pool"]["absent"] == sum(n_segments(d["n_tokens"]) for d in docs[::4])


def test_one_type_alone(tmp_path: Path) -> None:
    docs = documents(60)
    for kind in ("fine", "integration", "short"):
        context = made(tmp_path / kind, docs, rows=20, types={kind: 1})
        told = told_by(context)
        assert {r["type"] for r in table(context)} == {kind}
        assert "types" not in told["checks"]
        assert told["rows"] == 20


def test_settings_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="max_context 300 is below min_context 400"):
        op_of(min_context=400, max_context=300)
    with pytest.raises(ValueError, match="have 1 to 64 pieces of 128 tokens"):
        op_of(min_tokens=100)
    assert op_of(min_tokens=100, types={"fine": 1}).min_tokens == 100
    with pytest.raises(ValueError, match="shares are 0 and above"):
        op_of(types={"fine": 0})


def test_a_plan_counts_short_prompts() -> None:
    fine, several, verify = op_of(rows=155, verify=True, reply_tokens=100).model_calls(1000)
    assert (fine.calls, several.calls, verify.calls) == (122, 33, 155)
    assert fine.prompt_tokens == 122 * 128
    assert several.prompt_tokens == pytest.approx(33 * (192 + 8192) / 2, rel=0.01)
    assert fine.completion_tokens == 12_200
    assert op_of().model_calls(0) == []


def test_a_sample_is_fixed_by_hashes() -> None:
    docs = np.arange(50_000, dtype=np.uint64)
    hashes = piece_hashes(docs, np.zeros(50_000, dtype=np.int64), 7)
    assert len(
        np.unique(np.concatenate([hashes, piece_hashes(docs, docs.astype(np.int64) + 1, 7)]))
    )
    bound = hash_bounds({"en": 50_000, "zh": 10, "ko": 0}, 5_000)
    assert bound.keys() == {"en", "zh"}
    assert bound["zh"] == 2**64 - 1
    assert 4_600 < int((hashes <= np.uint64(bound["en"])).sum()) < 5_400
    assert in2._share({"target": 300, "source_tokens": 10}, (300, 301)) == 0.25


def test_types_follow_hashes_of_ids_and_are_exact() -> None:
    chosen = [{"id": f"d{i}", "n_tokens": 300} for i in range(155)]
    typed = op_of()._typed(chosen, 3)
    counts = {t: sum(r["type"] == t for r in typed) for t in ("fine", "integration", "short")}
    assert counts == {"fine": 110, "integration": 30, "short": 15}
    assert op_of()._typed(chosen[::-1], 3) == typed[::-1]
    assert stages_in2.SynthIN2.ends == "rows"
