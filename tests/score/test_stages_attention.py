"""The ops of the attention passes and GATEAU on small tables, read by tiny models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from longctx.engine.op import RowsFailedError, Setting
from longctx.engine.summary import Stats
from longctx.errors import RecipeError, RunError
from longctx.score.causal_lm import load_causal_lm
from longctx.score.gateau import cas, importance
from longctx.score.gateau_rows import Fields, Limits, parts_of, read_row, role_of
from longctx.score.ladm import ladm_index, ladm_windows
from longctx.score.layer0 import load_layer0
from longctx.score.longattn import attn_windows, framed
from longctx.score.stages_gateau import SelectGateau
from longctx.score.stages_ladm import ScoreLADM
from longctx.score.stages_longattn import ScoreLongAttn
from longctx.score.stages_model import ScoringModel
from tests.score.models import tiny_model

SETTING = Setting(seed=5, tokenizer="embedded", stage="02-score", run_dir="", output="")
LONG = "The river rises in the hills north of the town and flows past the old mill. " * 3
TEXTS = [LONG, "", "  \n" * 100, "short", LONG[:100], "x" * 500]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def steady_threads() -> Iterator[None]:
    """Loading sets torch's threads in this process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def table(texts: list[str], metas: list[dict[str, Any]] | None = None) -> pa.Table:
    meta = [None if m is None else json.dumps(m) for m in metas or [None] * len(texts)]
    return pa.table(
        {
            "doc_id": [f"d{i}" for i in range(len(texts))],
            "text": pa.array(texts, pa.large_string()),
            "meta": pa.array(meta, pa.string()),
        }
    )


def answered(op: ScoringModel, found: pa.Table, model: Any) -> tuple[list[Any], dict[str, Any]]:
    answer, stats = Stats.detach(op.batch(found, SETTING, model))
    assert tuple(answer.column_names) == op.writes_columns()
    assert answer.num_rows == found.num_rows
    return answer.to_pylist(), stats


def longattn(folder: Path, **fields: Any) -> ScoreLongAttn:
    defaults: dict[str, Any] = {"window": 100, "batch_tokens": 64, "device": "cpu"}
    return ScoreLongAttn(op="score.longattn", model=str(folder), **defaults | fields)


def ladm(folder: Path, **fields: Any) -> ScoreLADM:
    defaults: dict[str, Any] = {"window": 80, "span": 4, "dtype": "float32", "device": "cpu"}
    return ScoreLADM(op="score.ladm", model=str(folder), **defaults | fields)


def gateau(folder: Path, **fields: Any) -> SelectGateau:
    defaults: dict[str, Any] = {"short_window": 120, "segment": 64, "dtype": "float32"}
    return SelectGateau(op="select.gateau", model=str(folder), device="cpu", **defaults | fields)


def test_longattn_is_what_the_pass_says_of_each_window(folder: Path) -> None:
    op = longattn(folder)
    rows, stats = answered(op, table(TEXTS), op.load(SETTING))
    assert [r["la_status"] for r in rows] == ["ok", "empty", "empty", "too_short", "ok", "ok"]
    layer = load_layer0(str(folder), device="cpu")
    ids = layer.encode(TEXTS)
    for row, own in zip(rows, ids, strict=True):
        if row["la_status"] != "ok":
            assert {v for k, v in row.items() if k != "la_status"} == {None}
            continue
        windows = attn_windows(len(own), 100)
        found = [layer.longattn(own[a:b]) for a, b in windows]
        assert [(w["start"], w["end"]) for w in row["la_windows"]] == windows
        assert [w["ds"] for w in row["la_windows"]] == pytest.approx([f.ds for f in found])
        assert row["la_n_windows"] == len(windows)
        assert row["la_ds"] == pytest.approx(np.mean([f.ds for f in found]))
        assert row["la_var"] == pytest.approx(np.mean([f.var for f in found]))
        assert row["la_ds_nosink"] == pytest.approx(np.mean([f.nosink for f in found]))
    assert stats["status"] == {"empty": 2, "ok": 3, "too_short": 1}
    ((scorer, count),) = stats["scorer"].items()
    assert json.loads(scorer)["window"] == 100
    assert count == 6


def test_longattn_fields_change_what_they_say(folder: Path) -> None:
    found = {}
    for name, fields in {
        "plain": {},
        "triangle": {"var_mode": "triangle"},
        "exact": {"keep_exact": False},
        "rope": {"rope_theta": 2.5e6},
        "default": {"window": None},
        "beginning": {"max_tokens": 100},
    }.items():
        op = longattn(folder, **fields)
        found[name] = answered(op, table(TEXTS), op.load(SETTING))[0]
    assert found["triangle"][0]["la_var"] > found["plain"][0]["la_var"]
    assert found["triangle"][0]["la_ds"] == found["plain"][0]["la_ds"]
    assert [r["la_status"] for r in found["exact"]][4] == "too_short"
    assert found["rope"][0]["la_ds"] != found["plain"][0]["la_ds"]
    assert [r["la_n_windows"] for r in found["default"]] == [None] * 6
    assert [r["la_n_windows"] for r in found["beginning"]] == [1, None, None, None, 1, 1]


def test_ladm_is_what_the_pass_says_of_each_window(folder: Path) -> None:
    op = ladm(folder, batch_tokens=200)
    model = op.load(SETTING)
    rows, stats = answered(op, table(TEXTS), model)
    assert [r["ld_status"] for r in rows] == ["ok", "empty", "empty", "too_short", "ok", "ok"]
    pairs = ladm_index(20)
    for row, own in zip(rows, model.encode(TEXTS), strict=True):
        if row["ld_status"] != "ok":
            assert {v for k, v in row.items() if k != "ld_status"} == {None}
            continue
        starts = range(0, len(own) - 79, 80)
        windows = [framed(own[s : s + 80], model.bos) for s in starts]
        found = [ladm_windows(model, w[None], 4, pairs) for w in windows]
        assert row["ld_n_windows"] == len(starts)
        assert row["ld_n_spans"] == 20
        assert row["ld_cds"] == pytest.approx(np.mean([f.mean for f in found]), rel=1e-4)
        assert row["ld_cds_sum"] == pytest.approx(np.mean([f.sum for f in found]), rel=1e-4)
    assert json.loads(*stats["scorer"])["span"] == 4


def test_ladm_window_is_what_the_model_reads_in_whole_spans(folder: Path) -> None:
    op = ladm(folder, window=None, span=10)
    assert op.sizes(op.room(op.load(SETTING)), "s") == 1020
    with pytest.raises(RunError, match=r"`window` needs 2,048 tokens at once, .* reads 1,024"):
        ladm(folder, window=2048).check(SETTING)
    with pytest.raises(RunError, match=r"windows of 72 tokens are 18 spans of 4, .* takes 19"):
        ladm(folder, window=72).check(SETTING)
    with pytest.raises(RunError, match=r"windows of 81 tokens are 20\.25 spans"):
        ladm(folder, window=81).check(SETTING)
    ladm(folder, window=76).check(SETTING)


ANSWER = {"instruction": "Where does the river rise?", "response": "In the hills of the north."}


def test_gateau_is_what_the_readings_say(folder: Path) -> None:
    op = gateau(folder)
    rows, stats = answered(op, table([LONG], [ANSWER]), op.load(SETTING))
    lm = load_causal_lm(str(folder), dtype="float32", device="cpu")
    role = role_of(lm, 1024)
    parts = parts_of(lm, Fields(LONG, ANSWER["instruction"], ANSWER["response"]))
    raw = read_row((role_of(lm, 120), parts), (role, parts), limits=Limits(64))
    assert raw is not None
    (row,) = rows
    assert row["ga_status"] == "ok"
    assert row["ga_nll_a"] == pytest.approx(raw.nll_a)
    assert row["ga_nll_b"] == pytest.approx(raw.nll_b)
    assert row["ga_hmg"] == row["ga_nll_a"] - row["ga_nll_b"]
    assert row["ga_cas"] == pytest.approx(raw.cas("ppl"))
    assert row["ga_cas"] == pytest.approx(cas(row["ga_is"], row["ga_attn"]), rel=1e-4)
    assert row["ga_is"] == pytest.approx(importance(raw.alone), rel=1e-5)
    assert row["ga_n_seg"] == len(row["ga_is"]) == len(row["ga_attn"]) == 4
    assert row["ga_truncated"] is False
    ((scorer, _),) = stats["scorer"].items()
    assert json.loads(scorer)["short"]["window"] == 120


def test_gateau_reads_chats_and_says_why_a_row_has_no_score(folder: Path) -> None:
    def chat(user: str, answer: str) -> dict[str, Any]:
        said = zip(("user", "assistant"), (user, answer), strict=True)
        return {"chat": [{"role": r, "content": c} for r, c in said]}

    op = gateau(folder, messages="chat", window=400)
    metas = [
        chat(f"{LONG}\n\n{ANSWER['instruction']}", ANSWER["response"]),
        chat(f"{LONG}\n{ANSWER['instruction']}", ANSWER["response"]),
        {"other": 1},
        chat(f"{LONG}\n\n{ANSWER['instruction']}", "  "),
        chat(f"Short.\n\n{ANSWER['instruction']}", ANSWER["response"]),
        chat(f"{LONG}\n\n{ANSWER['instruction']}", "long " * 100),
        chat(f"{LONG * 3}\n\n{ANSWER['instruction']}", ANSWER["response"]),
    ]
    rows, stats = answered(op, table([""] * 7, metas), op.load(SETTING))
    assert [r["ga_status"] for r in rows] == [
        "ok",
        "error:no_instruction",
        "error:no_fields",
        "empty",
        "too_short",
        "error:too_long",
        "ok",
    ]
    for row in rows[1:4] + rows[5:6]:
        assert {v for k, v in row.items() if k != "ga_status"} == {None}
    assert rows[4]["ga_cas"] is None
    assert rows[4]["ga_hmg"] == 0
    assert [r["ga_truncated"] for r in rows if r["ga_hmg"] is not None] == [False, False, True]
    plain = gateau(folder, window=400)
    expected = answered(plain, table([LONG], [ANSWER]), plain.load(SETTING))[0]
    assert rows[0] == expected[0]
    op.finished({"status": stats["status"]}, SETTING)
    with pytest.raises(RunError, match="no document has the fields `chat` in its meta"):
        op.finished({"status": {"error:no_fields": 7}}, SETTING)


def test_gateau_with_another_short_model(folder: Path, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other", seed=1, max_position_embeddings=300)
    op = gateau(folder, short_model=str(other), short_window=None)
    model = op.load(SETTING)
    assert (model.long.window, model.short.window) == (1024, 300)
    (row,), stats = answered(op, table([LONG], [ANSWER]), model)
    short = load_causal_lm(str(other), dtype="float32", device="cpu")
    role = role_of(short, 300)
    parts = parts_of(short, Fields(LONG, ANSWER["instruction"], ANSWER["response"]))
    raw = read_row((role, parts), (role, parts), limits=Limits(1000))
    assert raw is not None
    assert row["ga_nll_a"] == pytest.approx(raw.nll_b)
    weights = json.loads(*stats["scorer"])
    assert weights["weights"] != weights["short"]["weights"]
    full = gateau(folder, short_model=str(other), short_mode="full")
    with pytest.raises(RunError, match="`short_mode: full` needs 1,024 tokens"):
        full.load(SETTING)
    with pytest.raises(RunError, match="`short_window` needs 301 tokens"):
        gateau(folder, short_model=str(other), short_window=301).load(SETTING)


def test_wrong_fields_are_told_before_the_run(folder: Path) -> None:
    with pytest.raises(RecipeError, match="no model folder /no/such") as caught:
        gateau(folder, short_model="/no/such").check(SETTING)
    assert caught.value.where == "02-score: short_model"
    with pytest.raises(ValidationError, match="`max_tokens` is not used here"):
        gateau(folder, max_tokens=10)
    with pytest.raises(RunError, match="`window` needs 4,096 tokens"):
        gateau(folder, window=4096).check(SETTING)


@pytest.mark.parametrize("name", ["longattn", "ladm", "gateau"])
def test_a_document_without_numbers_fails_alone(folder: Path, name: str) -> None:
    """The others are answered in the same reading; `~` is a token whose embedding is broken."""
    op: ScoringModel = {"longattn": longattn, "ladm": ladm, "gateau": gateau}[name](folder)
    model = op.load(SETTING)
    texts = [LONG, LONG.replace("river", "~iver"), LONG[::-1]]
    good = answered(op, table([texts[0], texts[2]], [ANSWER] * 2), model)[0]
    lm = model.long.lm if name == "gateau" else model
    token = int(lm.encode(["~"])[0][0])
    with torch.no_grad():
        if name == "longattn":
            model.weights["model.embed_tokens.weight"][token] = float("nan")
        else:
            lm.model.get_input_embeddings().weight[token] = float("nan")
    with pytest.raises(RowsFailedError) as caught:
        op.batch(table(texts, [ANSWER] * 3), SETTING, model)
    assert set(caught.value.errors) == {1}
    kept = Stats.detach(caught.value.output)[0].to_pylist()
    for expected, found in zip(good, (kept[0], kept[2]), strict=True):
        for column, value in expected.items():
            if isinstance(value, float):
                assert found[column] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("make", [longattn, ladm, gateau])
def test_a_batch_without_rows_keeps_its_columns(folder: Path, make: Any) -> None:
    op = make(folder)
    assert answered(op, table([]), op.load(SETTING))[0] == []
