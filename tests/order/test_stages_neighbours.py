"""kNN-Pretraining in runs: spans beside the ordinary tour, the same bytes however rows arrive."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longctx import run
from longctx.errors import RecipeError
from longctx.order.neighbours import jaccard
from longctx.recipe import from_dict
from longctx.text.tokenize import load_tokenizer
from tests.conftest import make_rows
from tests.stages import Finished, recipe_of, run_rows

COUNTED = {"op": "score.heuristics", "windows": False}
KNN = {"op": "order.neighbours", "length": 512, "p_knn": 0.3}


def rows() -> list[dict[str, Any]]:
    """Documents on four topics, copies among them, and some that the encoder cannot read."""
    return [
        *make_rows(40),
        {"id": "korean", "text": "밤늦게 조류가 바뀌었고 바람도 멎었다. " * 9, "language": "ko"},
        {"id": "blank", "text": ""},
        {"id": "brief", "text": "Too short."},
    ]


@pytest.fixture(scope="module")
def done(ray_local: int, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_rows(tmp_path_factory.mktemp("knn"), rows(), [COUNTED, KNN])


def tours(done: Finished) -> dict[str, list[tuple[str, int, int]]]:
    """Span tour -> (document, start, end) by rank."""
    found: dict[str, list[tuple[int, str, int, int]]] = {}
    for doc, spans in done.column("order.neighbours", "spans").items():
        for s in spans:
            found.setdefault(s["tour_id"], []).append((s["rank"], doc, s["start"], s["end"]))
    for placed in found.values():
        assert sorted(p[0] for p in placed) == list(range(len(placed)))
    return {tour: [p[1:] for p in sorted(placed)] for tour, placed in sorted(found.items())}


def said(spans: list[tuple[str, int, int]]) -> list[str]:
    tokenizer = load_tokenizer("embedded")
    text = {r["id"]: r["text"] for r in rows()}
    return [tokenizer.decode(tokenizer.encode_batch([text[d]])[0][a:b]) for d, a, b in spans]


@pytest.mark.ray
def test_every_document_stands_once_in_the_ordinary_tour(done: Finished):
    table = done.rows("order.neighbours")
    assert {r["tour_id"] for r in table} == {"t00000000"}
    assert sorted(r["rank"] for r in table) == list(range(len(rows())))
    assert Counter(r["link"] for r in table) == {"start": 1, "random": len(rows()) - 1}
    assert all(r["drop_reason"] is None for r in table)


@pytest.mark.ray
def test_examples_are_sentences_of_several_documents_and_no_copies(done: Finished):
    found = tours(done)
    steps = done.stage("order.neighbours").steps
    stats = steps["tours"]
    assert len(found) == stats["examples"] == stats["examples_wanted"] > 5
    assert all(tour > "t00000000" for tour in found)
    used = Counter(span for spans in found.values() for span in spans)
    assert max(used.values()) == 1
    topic = {r["id"]: r.get("source") for r in rows()}
    pairs = same = 0
    for spans in found.values():
        assert 2 <= len({doc for doc, _, _ in spans}) == len(spans)
        assert all(16 <= b - a <= 128 for _, a, b in spans)
        assert sum(b - a + 1 for _, a, b in spans) <= 512
        texts = said(spans)
        assert all(t.endswith(".") and t.lstrip().startswith("Th") for t in texts)
        assert all(jaccard(a, b) < 0.7 for i, a in enumerate(texts) for b in texts[:i])
        pairs += len(spans) - 1
        same += sum(topic[doc] == topic[spans[0][0]] for doc, _, _ in spans[1:])
    assert same > 0.9 * pairs
    assert stats["units_in_examples"] == pairs + len(found)
    assert stats["mean_similarity"] > steps["anchors"]["mean_similarity_random"] + 0.1
    assert sum(stats["histogram"]) == pairs
    assert stats["share_of_windows"] == pytest.approx(0.3, abs=0.02)


@pytest.mark.ray
def test_documents_that_the_encoder_cannot_read_stand_in_no_example(done: Finished):
    spans = done.column("order.neighbours", "spans")
    assert spans["korean"] == spans["blank"] == spans["brief"] == []
    assert done.stage("order.neighbours").steps["units"]["documents_in_unknown_languages"] == 1


@pytest.mark.ray
def test_parts_files_and_row_order_change_nothing(done: Finished, tmp_path: Path):
    shuffled = [rows()[i] for i in np.random.default_rng(1).permutation(len(rows()))]
    other = run_rows(tmp_path, shuffled, [COUNTED, KNN], engine={"part_mb": 0.02})
    assert len(other.rows(KNN["op"])) == len(done.rows(KNN["op"]))
    for column in ("spans", "rank"):
        assert other.column(KNN["op"], column) == done.column(KNN["op"], column)


@pytest.mark.ray
def test_another_rule_builds_other_examples_from_the_same_candidates(
    done: Finished, tmp_path: Path
):
    folder = tmp_path / "run"
    shutil.copytree(done.record.run_dir, folder)
    stages = [COUNTED, {**KNN, "inner_order": "ascending"}]
    other = Finished(run({**done.record.recipe, "run_dir": str(folder), "stages": stages}))
    assert [spans[::-1] for spans in tours(done).values()] == list(tours(other).values())
    # Only the examples and the sidecar are made again.
    stage = other.stage("order.neighbours")
    parts = len(list(folder.glob("documents/*.parquet")))
    assert stage.units - stage.skipped == 1 + parts


@pytest.mark.ray
def test_a_corpus_without_related_sentences_says_so(ray_local: int, tmp_path: Path):
    few = [{"id": "a", "text": make_rows(24)[0]["text"]}, {"id": "b", "text": "Brief."}]
    done = run_rows(tmp_path, few, [COUNTED, KNN])
    assert tours(done) == {}
    steps = done.stage("order.neighbours").steps
    assert steps["tours"]["examples"] == 0
    assert any("of 1 examples found company" in w for w in steps["tours"]["warnings"])
    # All sentences are of one topic, so rel_lo tells nothing apart.
    assert steps["anchors"]["mean_similarity_random"] > 0.5
    assert steps["anchors"]["random_pairs_above_rel_lo"] == 1
    assert any("taken at random" in w for w in steps["anchors"]["warnings"])


@pytest.mark.ray
def test_only_documents_without_sentences(ray_local: int, tmp_path: Path):
    done = run_rows(tmp_path, [{"id": "a", "text": "말", "language": "ko"}], [COUNTED, KNN])
    assert done.column("order.neighbours", "spans") == {"a": []}
    assert done.column("order.neighbours", "rank") == {"a": 0}


@pytest.mark.ray
def test_knn_repeat_gives_every_document_a_context(ray_local: int, tmp_path: Path):
    stages = [
        COUNTED,
        {"op": "embed"},
        {**KNN, "variant": "knn_repeat", "length": 2048, "dup_hi": 1},
    ]
    given = rows()
    done = run_rows(tmp_path, given, stages)
    found = tours(done)
    first = [spans[0] for spans in found.values()]
    size = done.column("score.heuristics", "n_tokens")
    assert sorted(first) == sorted((d, 0, n) for d, n in size.items() if n)
    topic = {r["id"]: r.get("source", r["id"]) for r in given}
    near = [spans for spans in found.values() if spans[0][0] not in ("korean", "brief")]
    assert all(len({topic[d] for d, _, _ in spans}) == 1 for spans in near)
    for spans in near:
        assert 2 <= len({d for d, _, _ in spans}) == len(spans)
        assert all(a == 0 for _, a, _ in spans)
        assert sum(b + 1 for _, _, b in spans) == 2048
    assert [len(found[t]) for t in found if found[t][0][0] == "korean"] == [1]
    assert {r["tour_id"] for r in done.rows("order.neighbours")} == {None}
    stats = done.stage("order.neighbours").steps["tours"]
    assert stats["tours"] == len(found)
    assert stats["tokens_repeated"] > 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_unit": 20}, "twice `min_unit`"),
        ({"rel_lo": 0.96}, "nothing lies between"),
        ({"p_knn": 1}, "less than 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, change: dict, message: str):
    with pytest.raises(RecipeError, match=message):
        from_dict(recipe_of(tmp_path, rows()[:1], [COUNTED, {**KNN, **change}]))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("length", "message"), [(None, "length of a context is not known"), (33, "no room for two")]
)
def test_a_length_is_needed(ray_local: int, tmp_path: Path, length: int | None, message: str):
    with pytest.raises(RecipeError, match=message):
        run_rows(tmp_path, rows()[:1], [COUNTED, {**KNN, "length": length}])


def test_tokens_are_needed_before(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"reads `tokens`, `n_tokens`.*add `score.heuristics`"):
        from_dict(recipe_of(tmp_path, rows()[:1], [KNN]))
