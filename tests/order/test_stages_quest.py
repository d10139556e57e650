"""order.quest in runs: tours by keyword, what is recorded of them, budgets, languages, a model."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from longctx import run
from longctx.errors import RecipeError
from longctx.ids import doc_keys, priorities
from tests.order.doc2query import save_tiny_t5
from tests.stages import Finished, recipe_of, run_rows

TOPICS = ("coral reef", "rye bread", "court ruling", "stack pointer")
BEFORE = [{"op": "score.heuristics", "windows": False}, {"op": "embed"}]
QUEST = {"op": "order.quest", "length": 500, "dup_action": "keep"}


def rows_of(n: int = 36) -> list[dict[str, Any]]:
    """Documents about four topics in turn; every ninth says nothing that another one says."""
    rng = np.random.default_rng(1)
    rows = []
    for i in range(n):
        own = [f"word{int(x)}" for x in rng.integers(10**6, 10**7, 9)]
        opening = f"On the {TOPICS[i % 4]} and the {own[0]}. " if i % 9 else f"On {own[0]}. "
        text = opening + " ".join(f"Of {a} with {b}." for a, b in pairwise(own))
        rows.append({"id": f"d{i:02d}", "text": text})
    return rows


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for runs that differ in their last stage only."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def plain(ray_local: int, shared: Path) -> Finished:
    return run_rows(shared, rows_of(), [*BEFORE, QUEST])


def keywords_of(done: Finished) -> list[dict[str, Any]]:
    folder = Path(done.record.run_dir) / "stages" / done.record.stages[-1].stage / "keywords"
    return pq.read_table(folder / "keywords.parquet").to_pylist()


def placed(done: Finished) -> dict[str, list[dict[str, Any]]]:
    """tour -> its rows by rank, of the documents that stay."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in done.rows("order.quest"):
        if row["drop_reason"] is None:
            found.setdefault(row["tour_id"], []).append(row)
    return {t: sorted(rows, key=lambda r: r["rank"]) for t, rows in sorted(found.items())}


@pytest.mark.ray
def test_documents_stand_with_those_of_their_keyword(plain: Finished):
    tours = placed(plain)
    assert sorted(r["doc_id"] for rows in tours.values() for r in rows) == sorted(
        r["id"] for r in rows_of()
    )
    tokens = plain.column("score.heuristics", "n_tokens")
    long = [rows for rows in tours.values() if rows[0]["link"].startswith("long")]
    assert len(long) >= 4
    for rows in long:
        topic = rows[0]["link"].removeprefix("long: ")
        assert {r["link"] for r in rows} == {f"long: {topic}"}
        assert {TOPICS[int(r["doc_id"][1:]) % 4] for r in rows} == {topic}
        assert sum(tokens[r["doc_id"]] for r in rows) >= 500
    pool = {r["doc_id"] for rows in tours.values() for r in rows if r["link"] == "pool"}
    assert pool >= {f"d{i:02d}" for i in range(0, 36, 9)}


@pytest.mark.ray
def test_the_keywords_of_tours_and_the_generator_are_recorded(plain: Finished):
    tokens = plain.column("score.heuristics", "n_tokens")
    expected = {}
    for tour, rows in placed(plain).items():
        for row in rows:
            kind, _, word = row["link"].partition(": ")
            entry = expected.setdefault((tour, kind, word or None), [0, 0])
            entry[0] += 1
            entry[1] += tokens[row["doc_id"]]
    found = {
        (r["tour_id"], r["kw_class"], r["keyword"]): [r["documents"], r["tokens"]]
        for r in keywords_of(plain)
    }
    assert found == expected
    steps = plain.stage("order.quest").steps
    assert steps["queries"]["generator"] == {"extractive": 36}
    assert steps["frequent"]["usual_phrases"] == 4
    assert steps["keywords"]["keywords"] == 4
    assert steps["keywords"]["classes"]["long"]["tours"] >= 4
    assert [w for w in steps["keywords"]["warnings"] if "extractive" in w]


@pytest.mark.ray
def test_parts_buckets_and_the_order_of_rows_change_nothing(plain: Finished, tmp_path: Path):
    small = {"part_mb": 0.003, "exchange_mb": 0.002}
    again = run_rows(tmp_path, rows_of()[::-1], [*BEFORE, QUEST], engine=small)
    steps = Path(again.record.run_dir) / "stages" / "03-order.quest"
    assert len(list((steps / "queries").glob("*.parquet"))) > 2
    assert len(list((steps / "frequent").glob("*.parquet"))) > 2
    for name in ("tour_id", "rank", "link"):
        assert again.column("order.quest", name) == plain.column("order.quest", name)
    assert keywords_of(again) == keywords_of(plain)


@pytest.mark.ray
def test_what_a_budget_leaves_out_is_counted(plain: Finished, shared: Path):
    done = run_rows(shared, rows_of(), [*BEFORE, {**QUEST, "budget_tokens": 1300}])
    tours = placed(done)
    kept = {r["doc_id"] for rows in tours.values() for r in rows}
    assert done.stage("order.quest").dropped == {"quest_budget": 36 - len(kept)}
    tokens = done.column("score.heuristics", "n_tokens")
    sizes = [sum(tokens[r["doc_id"]] for r in rows) for rows in tours.values()]
    assert sum(sizes) >= 1300 > sum(sizes) - max(sizes)
    kinds = sorted(rows[0]["link"].partition(":")[0] for rows in tours.values())
    assert set(kinds) == {"long", "short"}
    # The keywords did not depend on the budget.
    assert all(
        r["link"] in {p["link"] for p in plain.rows("order.quest")} | {None}
        for r in done.rows("order.quest")
    )


@pytest.mark.ray
def test_languages_without_stop_words_are_grouped_by_their_vectors(ray_local: int, tmp_path: Path):
    german = [
        {"id": f"g{i}", "text": f"Das Korallenriff und die Nummer{i}.", "language": "de_AT"}
        for i in range(6)
    ]
    korean = [{"id": f"k{i}", "text": f"산호초 {i}", "language": "ko"} for i in range(3)]
    rows = [*rows_of(12), *german, *korean]
    embed = {"op": "embed", "languages": ["en", "de"]}
    order = {**QUEST, "length": 40}
    done = run_rows(tmp_path, rows, [BEFORE[0], embed, order])
    link = done.column("order.quest", "link")
    assert {link[f"g{i}"] for i in range(6)} == {"language: de"}
    assert {link[f"k{i}"] for i in range(3)} == {"language: ko"}
    steps = done.stage("order.quest").steps
    assert steps["queries"]["generator"] == {"extractive": 12}
    (warning,) = [w for w in steps["keywords"]["warnings"] if "languages" in w]
    assert "9 of 21" in warning
    assert "(de, ko)" in warning
    # Documents without a vector stand by priority.
    rank = {
        i: r["tour_id"] + str(r["rank"]) for r in done.rows("order.quest") if (i := r["doc_id"])
    }
    ids = [f"k{i}" for i in range(3)]
    chance = dict(zip(ids, priorities(doc_keys(ids), 3).tolist(), strict=True))
    assert sorted(ids, key=rank.__getitem__) == sorted(ids, key=chance.__getitem__)
    told = {**order, "stop_words": {"DE": ["das", "und", "die"]}}
    again = run_rows(tmp_path, rows, [BEFORE[0], embed, told])
    link = again.column("order.quest", "link")
    assert {link[f"g{i}"] for i in range(6)} <= {
        "long: korallenriff",
        "short: korallenriff",
        "pool",
    }
    assert "long: korallenriff" in link.values()


@pytest.mark.ray
def test_a_model_asks_inside_the_workers(ray_local: int, shared: Path, tmp_path: Path):
    folder = save_tiny_t5(tmp_path)
    order = {**QUEST, "generator": str(folder), "min_documents": 1}
    done = run_rows(shared, rows_of(), [*BEFORE, order])
    steps = done.stage("order.quest").steps
    assert steps["queries"]["generator"] == {"tiny-t5": 36}
    assert not [w for w in steps["keywords"]["warnings"] if "extractive" in w]
    assert sum(len(rows) for rows in placed(done).values()) == 36


@pytest.mark.ray
@pytest.mark.parametrize("n", [1, 2])
def test_few_documents(ray_local: int, tmp_path: Path, n: int):
    done = run_rows(tmp_path, rows_of(n), [*BEFORE, QUEST])
    assert [len(rows) for rows in placed(done).values()] == [n]


def test_a_recipe_must_say_how_long_a_context_is(tmp_path: Path):
    with pytest.raises(RecipeError, match="how long that is"):
        run(recipe_of(tmp_path, rows_of(2), [*BEFORE, {"op": "order.quest"}]))


def test_a_missing_model_is_named_before_anything_runs(tmp_path: Path):
    order = {**QUEST, "generator": str(tmp_path / "nowhere")}
    with pytest.raises(RecipeError, match="no model folder"):
        run(recipe_of(tmp_path, rows_of(2), [*BEFORE, order]))
    assert not (tmp_path / "run" / "documents").exists()
