"""The ops of the likelihood pass on parts of documents, read by a tiny model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from longctx.engine.corpus import ROW, Corpus
from longctx.engine.mapwork import MapWork
from longctx.engine.op import RowsFailedError, Setting
from longctx.engine.summary import Stats
from longctx.engine.units import Sink
from longctx.errors import RecipeError, RunError
from longctx.ids import rng_for
from longctx.score.causal_lm import CausalLM
from longctx.score.likelihood import columns, contrasts, longce_weights, split_gain
from longctx.score.plan import Windows
from longctx.score.prolong import columns as prolong_columns
from longctx.score.prolong import draw, perplexities
from longctx.score.stages_likelihood import ScoreLikelihood
from longctx.score.stages_model import ScoringModel
from longctx.score.stages_prolong import ScoreProlong
from longctx.score.stages_wanjuan import ScoreWanjuan
from longctx.score.wanjuan import Chunks, coherence
from tests.engine.parts import documents, put
from tests.score.models import tiny_model

SETTING = Setting(seed=5, tokenizer="embedded", stage="02-score", run_dir="", output="")
WINDOWS = {"long": 64, "short": 16, "stride": 8}
CHUNKS = {"window": 32, "short": 16, "target": 8}
TEXTS = [
    "The river rises in the hills north of the town and flows past the old mill to the sea.",
    "",
    " \n\t ",
    "a",
    "ab",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ኢትዮጵያ በምሥራቅ አፍሪካ የምትገኝ አገር ናት",
    "However, it rained; as a result we stayed in. " * 5,
]
LIKELIHOOD = {"op": "score.likelihood", **WINDOWS}
OPS: list[ScoringModel] = [
    ScoreLikelihood(**LIKELIHOOD, split_gain=True, store_token_nll=True, longce=True),
    ScoreWanjuan(op="score.wanjuan", **CHUNKS),
    ScoreProlong(op="score.prolong", chunk=16, pairs=3),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), tie_word_embeddings=False)


@pytest.fixture(scope="module")
def lm(folder: Path) -> Any:
    op = ScoreLikelihood(**LIKELIHOOD, model=str(folder), dtype="float32", batch_tokens=200)
    return op.load(SETTING)


def table(texts: list[str], first: int = 0, languages: list[str | None] | None = None) -> pa.Table:
    return pa.table(
        {
            "doc_id": [f"d{first + i}" for i in range(len(texts))],
            "text": pa.array(texts, pa.large_string()),
            "language": pa.array(languages or ["en"] * len(texts), pa.string()),
            ROW: pa.array(range(len(texts)), pa.int32()),
        }
    )


def answered(op: ScoringModel, found: pa.Table, model: Any) -> tuple[pa.Table, dict[str, Any]]:
    answer, stats = Stats.detach(op.batch(found, SETTING, model))
    assert tuple(answer.column_names) == op.writes_columns()
    assert answer.num_rows == found.num_rows
    return answer, stats


def near(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """Rows are the same but for float rounding; nulls are the same exactly."""
    for a, b in zip(one, other, strict=True):
        assert [k for k in a if a[k] is None] == [k for k in b if b[k] is None]
        for name, value in a.items():
            if isinstance(value, float | list):
                np.testing.assert_allclose(value, b[name], rtol=1e-3, atol=1e-4, err_msg=name)
            else:
                assert value == b[name], name


def test_likelihood_is_what_the_pure_functions_say(lm: CausalLM) -> None:
    op = OPS[0]
    answer, stats = answered(op, table(TEXTS), lm)
    ids = lm.encode(TEXTS)
    rows = answer.to_pylist()
    assert [r["lf_status"] for r in rows] == ["ok", "empty", "empty", "too_short", *["ok"] * 4]
    for own, row in zip(ids, rows, strict=True):
        if row["lf_status"] != "ok":
            assert {v for k, v in row.items() if k != "lf_status"} == {None}
            continue
        (found,) = contrasts(lm, [own], Windows(**WINDOWS), split=True)
        expected: dict[str, Any] = {**columns(found), "split_gain": split_gain(found)}
        expected["longce_w"] = longce_weights(found.long, found.short).tolist()
        expected |= {"nll_long": found.long.tolist(), "nll_short": found.short.tolist()}
        near([row], [{**expected, "lf_status": "ok"}])
    assert rows[4]["n_scored"] == 1
    assert rows[4]["lf_score"] == rows[4]["n_far"] == 0
    assert rows[7]["n_far"] == len(ids[7]) - 24
    assert stats["status"] == {"empty": 2, "ok": 5, "too_short": 1}
    ((scorer, count),) = stats["scorer"].items()
    assert json.loads(scorer) == {**lm.identity, **WINDOWS}
    assert count == 8


def test_stored_likelihoods_give_the_scores_again(lm: CausalLM) -> None:
    for row in answered(OPS[0], table(TEXTS), lm)[0].to_pylist():
        if row["lf_status"] == "ok":
            long, short = np.array(row["nll_long"]), np.array(row["nll_short"])
            score = np.mean(np.exp(-long) * (short - long))
            assert row["lf_score"] == pytest.approx(score, abs=1e-6)


def test_wanjuan_is_what_the_pure_functions_say(lm: CausalLM) -> None:
    languages = ["en", "en", "en", None, "ko", "zh", "am", "en-GB"]
    answer, stats = answered(OPS[1], table(TEXTS, languages=languages), lm)
    rows = answer.to_pylist()
    long = [len(own) >= 32 for own in lm.encode(TEXTS)]
    status = ["ok" if has else "too_short" for has in long]
    status[1:3] = ["empty", "empty"]
    assert [r["lw_status"] for r in rows] == status
    for own, row in zip(lm.encode(TEXTS), rows, strict=True):
        (expected,) = coherence(lm, [own], Chunks(**CHUNKS))
        if expected is None or row["lw_status"] == "empty":
            assert row["lw_acc_long"] is row["lw_ppl_ratio"] is row["lw_n_chunks"] is None
        else:
            near([{k: row[k] for k in expected}], [expected])
    assert rows[7]["lw_conn_rate"] == pytest.approx(4 / 12)
    assert rows[5]["lw_conn_rate"] == 0
    assert [r["lw_pron_rate"] is None for r in rows] == [i in (1, 2, 3, 4, 6) for i in range(8)]
    assert rows[5]["lw_line_max"] == 57
    assert rows[5]["lw_ttr"] < 0.5
    ((scorer, _),) = stats["scorer"].items()
    assert json.loads(scorer)["window"] == 32


def test_wanjuan_without_coherence_needs_no_model() -> None:
    op = ScoreWanjuan(op="score.wanjuan", coherence=False, model="no/such")
    op.check(SETTING)
    op.prepare(SETTING)
    model = op.load(SETTING)
    assert model is None
    answer, stats = answered(op, table(TEXTS), model)
    assert set(answer.column("lw_status").to_pylist()) == {"ok", "empty"}
    assert not any("acc" in name or "ppl" in name for name in answer.column_names)
    assert "scorer" not in stats


def test_prolong_is_what_the_pure_functions_say(lm: CausalLM) -> None:
    answer, _ = answered(OPS[2], table(TEXTS), lm)
    for i, (own, row) in enumerate(zip(lm.encode(TEXTS), answer.to_pylist(), strict=True)):
        if not TEXTS[i].strip():
            assert row["pl_status"] == "empty"
            assert row["pl_n_chunks"] is None
            continue
        one = draw(len(own), rng_for(5, "prolong", f"d{i}"), chunk=16, max_pairs=3)
        if not len(one.pairs):
            assert (row["pl_status"], row["pl_lds"], row["pl_pairs"]) == ("too_short", None, 0)
            continue
        expected = prolong_columns(one, *perplexities(lm, [own], [one], 16)[0])
        near([row], [{**expected, "pl_status": "ok"}])
    assert answer.column("pl_pairs").to_pylist()[7] == 3


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.op)
def test_neither_batches_nor_order_nor_company_matter(op: ScoringModel, lm: CausalLM) -> None:
    together = table(TEXTS)
    rows = answered(op, together, lm)[0].to_pylist()
    back = answered(op, together.take(list(range(len(TEXTS)))[::-1]), lm)[0].to_pylist()
    near(rows, back[::-1])
    near(rows, [r for i in range(len(TEXTS)) for r in _one(op, together.slice(i, 1), lm)])
    size, lm.batch_tokens = lm.batch_tokens, 70
    try:
        near(rows, answered(op, together, lm)[0].to_pylist())
    finally:
        lm.batch_tokens = size
    assert answered(op, together.slice(0, 0), lm)[0].schema == answered(op, together, lm)[0].schema


def _one(op: ScoringModel, found: pa.Table, lm: CausalLM) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = answered(op, found, lm)[0].to_pylist()
    return rows


@pytest.fixture
def broken(lm: CausalLM) -> Iterator[CausalLM]:
    """The model with no number for the byte "q"."""
    import torch

    (token,) = lm.encode(["q"])[0].tolist()
    weight = lm.model.get_input_embeddings().weight
    kept = weight[token].clone()
    with torch.no_grad():
        weight[token] = float("nan")
    yield lm
    with torch.no_grad():
        weight[token] = kept


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.op)
def test_a_document_without_numbers_is_quarantined_alone_and_at_once(
    op: ScoringModel, broken: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*TEXTS, TEXTS[0].replace("e", "q"), TEXTS[0]]
    with pytest.raises(RowsFailedError) as failed:
        op.batch(table(texts), SETTING, broken)
    assert list(failed.value.errors) == [8]
    calls: list[int] = []
    real = CausalLM.scores
    monkeypatch.setattr(CausalLM, "scores", lambda self, s: calls.append(len(s)) or real(self, s))
    found = _scored(op, broken, tmp_path, texts, (4, 6))
    status = next(name for name in op.writes if name.endswith("_status"))
    assert [r["drop_reason"] for r in found] == [
        "quarantined:FloatingPointError" if i == 8 else None for i in range(10)
    ]
    assert found[8][status] is None
    assert found[9][status] == "ok"
    # Two row groups, each with an empty batch for its schema; nothing was tried again.
    assert len([n for n in calls if n]) == 2


def _scored(
    op: ScoringModel, lm: CausalLM, folder: Path, texts: list[str], groups: tuple[int, ...]
) -> list[dict[str, Any]]:
    """The sidecar of one part with these texts, by the engine's own work."""
    rows = documents(len(texts), text=texts, language=["en"] * len(texts))
    found = Corpus(str(folder), (put(str(folder), "documents/s-0000.parquet", rows, groups),))
    work = MapWork(op, SETTING, list(op.reads_columns()), [], 1 << 20, "stages/02", lm)
    sink = Sink(str(folder))
    work(found.part(0), sink)
    made: list[dict[str, Any]] = pq.read_table(folder / sink.files[0].name).to_pylist()
    return made


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.op)
def test_row_groups_do_not_matter(op: ScoringModel, lm: CausalLM, tmp_path: Path) -> None:
    near(
        _scored(op, lm, tmp_path / "a", TEXTS, (8,)),
        _scored(op, lm, tmp_path / "b", TEXTS, (1, 5, 2)),
    )


def test_windows_follow_the_model(folder: Path) -> None:
    op = ScoreLikelihood(op="score.likelihood", model=str(folder))
    assert op.sizes(1023, "s") == Windows(511, 63, 15)
    op.check(SETTING)
    assert ScoreWanjuan(op="score.wanjuan").sizes(1024, "s") == Chunks(1024, 512, 256)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (
            ScoreLikelihood(op="score.likelihood", long=600),
            "`long` needs 1,200 tokens at once, and",
        ),
        (ScoreLikelihood(op="score.likelihood", short=500), "together more than `long` 512"),
        (ScoreWanjuan(op="score.wanjuan", window=2048), "`window` needs 2,048 tokens"),
        (ScoreWanjuan(op="score.wanjuan", target=600), "must grow"),
        (ScoreProlong(op="score.prolong", chunk=600), "`chunk` needs 1,200 tokens"),
    ],
)
def test_windows_that_do_not_fit_are_told_before_the_run(
    op: ScoringModel, message: str, folder: Path
) -> None:
    with pytest.raises(RunError) as caught:
        op.model_copy(update={"model": str(folder)}).check(SETTING)
    assert message in caught.value.message
    assert caught.value.where == "02-score"


def test_a_bos_counts_when_the_model_is_loaded(folder: Path) -> None:
    op = ScoreLikelihood(op="score.likelihood", long=512, model=str(folder))
    op.check(SETTING)
    with pytest.raises(RunError, match=r"`long` needs 1,024 tokens at once, and .* reads 1,023"):
        op.load(SETTING)


def test_a_missing_folder_is_told() -> None:
    with pytest.raises(RecipeError, match="no model folder /no/such"):
        ScoreProlong(op="score.prolong", model="/no/such").check(SETTING)


def test_likelihood_may_be_left_out_for_the_packer_alone() -> None:
    op = ScoreLikelihood(op="score.likelihood", likelihood=False, zip_gain=True)
    assert op.writes_columns() == ("zip_gain", "lf_status")
    assert op.load(SETTING) is None
    rows = answered(op, table(["abc", " "]), None)[0].to_pylist()
    assert rows == [{"zip_gain": 0, "lf_status": "ok"}, {"zip_gain": None, "lf_status": "empty"}]
    with pytest.raises(ValidationError, match="leaves nothing to do"):
        ScoreLikelihood(op="score.likelihood", likelihood=False)
    with pytest.raises(ValidationError, match="`longce` needs likelihoods"):
        ScoreLikelihood(op="score.likelihood", likelihood=False, zip_gain=True, longce=True)


def test_only_what_is_asked_for_is_written() -> None:
    plain = ScoreLikelihood(op="score.likelihood").writes_columns()
    assert not {"split_gain", "zip_gain", "longce_w", "nll_long", "nll_short"} & set(plain)
    stored = ScoreLikelihood(op="score.likelihood", store_token_nll=True).writes_columns()
    assert set(stored) - set(plain) == {"nll_long", "nll_short"}


def test_parts_of_different_scorers_end_the_run() -> None:
    op = ScoreProlong(op="score.prolong")
    op.finished({"scorer": {'{"weights": "a"}': 3}}, SETTING)
    op.finished({}, SETTING)
    with pytest.raises(RunError, match="different scorers"):
        op.finished({"scorer": {'{"weights": "a"}': 3, '{"weights": "b"}': 1}}, SETTING)
