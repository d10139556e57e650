"""SPLICE in runs: one tour for each example, whatever retrieves, and the same for any sharding."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from longctx.errors import RecipeError, RunError
from longctx.recipe import from_dict
from tests.conftest import make_rows
from tests.stages import Finished, recipe_of, run_rows

pytestmark = pytest.mark.ray

COUNTED = [{"op": "score.heuristics", "windows": False}, {"op": "embed"}]
BM25 = {"op": "order.splice", "retriever": "bm25", "length": 2000, "dup_action": "keep"}
COURT_ZH = [
    "法院审理著作权民事纠纷案件适用法律",
    "计算机软件著作权纠纷由法院审理",
    "著作权法律案件",
]
SEA_ZH = ["鲸鱼在深海之中游泳觅食", "深海之中的鲸鱼与鱼群", "鱼群在深海觅食"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for runs that differ in their last stage only."""
    return tmp_path_factory.mktemp("shared")


def splice(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Finished:
    return run_rows(folder, rows, [*COUNTED, {**BM25, **fields}])


def tours(done: Finished) -> list[list[str]]:
    """Ids by rank of each tour, of the documents that were not dropped."""
    found: dict[str, list[tuple[int, str]]] = {}
    for row in done.rows("order.splice"):
        if row["drop_reason"] is None:
            found.setdefault(row["tour_id"], []).append((row["rank"], row["doc_id"]))
    return [[i for _, i in sorted(placed)] for _, placed in sorted(found.items())]


@pytest.mark.parametrize("fields", [{}, {"retriever": "dense"}], ids=["bm25", "dense"])
def test_examples_are_full_and_on_one_topic(ray_local: int, shared: Path, fields: dict[str, Any]):
    rows = make_rows(48)
    done = splice(shared, rows, **fields)
    found = tours(done)
    assert sorted(i for tour in found for i in tour) == sorted(r["id"] for r in rows)
    tokens = done.column("score.heuristics", "n_tokens")
    for tour in found[:-1]:
        assert sum(tokens[i] for i in tour) >= 2000 > sum(tokens[i] for i in tour[:-1])
    link = done.column("order.splice", "link")
    assert {link[tour[0]] for tour in found} == {"start"}
    topic = {r["id"]: r["source"] for r in rows}
    followed = [(a, b) for tour in found for a, b in pairwise(tour) if link[b] == "retrieved"]
    assert len(followed) > len(rows) / 2
    assert sum(topic[a] != topic[b] for a, b in followed) < len(followed) / 5


def test_shards_change_no_row_and_a_resume_does_nothing_again(ray_local: int, shared: Path):
    rows = make_rows(48)
    whole = splice(shared, rows).rows("order.splice")
    cut = splice(shared, rows, shard_documents=11)
    assert cut.rows("order.splice") == whole
    assert splice(shared, rows, branches=3).rows("order.splice") != whole
    splice(shared, rows, shard_documents=11)
    again = splice(shared, rows, shard_documents=11).stage("order.splice")
    assert (again.skipped, again.why) == (again.units, {})


def test_near_copies_are_not_retrieved(ray_local: int, shared: Path):
    rows = make_rows(48)
    done = splice(shared, rows, dup_action="drop", dup_cos=0.999, length=10**6)
    gone = {i for i, r in done.column("order.splice", "drop_reason").items() if r}
    # Three exact copies and six that differ in two words; which of a pair leaves is by length.
    assert len(gone) == 9
    assert [sorted(tour) for tour in tours(done)] == [sorted({r["id"] for r in rows} - gone)]


def test_words_of_languages_that_the_encoder_does_not_know(ray_local: int, tmp_path: Path):
    rows = [
        {"id": f"{kind}{i}", "text": text, "language": "zh"}
        for kind, texts in (("court", COURT_ZH), ("sea", SEA_ZH))
        for i, text in enumerate(texts)
    ]
    rows.append({"id": "blank", "text": ""})
    done = splice(tmp_path, rows, length=10**6)
    (tour,) = tours(done)
    link = done.column("order.splice", "link")
    assert sorted(tour) == sorted(r["id"] for r in rows)
    assert sum(link[i] == "retrieved" for i in tour) == 4
    assert all(a[:3] == b[:3] for a, b in pairwise(tour) if link[b] == "retrieved")
    assert set(done.column("order.splice", "order_status").values()) == {"ok"}


@pytest.mark.parametrize("n", [1, 2])
def test_few_documents(ray_local: int, tmp_path: Path, n: int):
    rows = make_rows(24)[:n]
    for retriever in ("bm25", "dense"):
        # In one folder: what comes before the order is not run again.
        done = splice(tmp_path, rows, retriever=retriever, length=100)
        assert sorted(i for tour in tours(done) for i in tour) == sorted(r["id"] for r in rows)


PATHS = ["a/x.py", "a/b/y.py", "a/a.py", "c.py"]


def files(sources: list[str]) -> list[dict[str, Any]]:
    texts = [r["text"] for r in make_rows(12)]
    return [
        {"id": f"{s}:{p}", "text": texts[i], "source": s, "file": p, "repo": f"r{i % 2}"}
        for s in sources
        for i, p in enumerate(PATHS)
    ]


def repo(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Finished:
    order = {"op": "order.splice", "retriever": "repo", "dup_action": "keep", **fields}
    stages = [{"op": "embed"}, order]
    recipe = recipe_of(folder, rows, stages)
    inputs = [{**recipe["input"][0], "meta": ["file", "repo"]}]
    return run_rows(folder, rows, stages, input=inputs)


def test_a_tour_is_the_walk_of_one_tree(ray_local: int, tmp_path: Path):
    rows = [*files(["one", "two"]), {"id": "n", "text": "no path", "source": "one"}]
    done = repo(tmp_path, rows, path_field="file")
    walk = ["c.py", "a/a.py", "a/x.py", "a/b/y.py"]
    assert tours(done) == [[f"one:{p}" for p in walk], ["n"], [f"two:{p}" for p in walk]]
    assert done.column("order.splice", "link")["one:a/a.py"] == "walk"
    done = repo(tmp_path, rows, path_field="file", repo_field="repo")
    assert tours(done)[1:3] == [["one:a/a.py", "one:a/x.py"], ["one:c.py", "one:a/b/y.py"]]


def test_an_id_that_is_a_path_serves_where_meta_has_none(ray_local: int, tmp_path: Path):
    rows = [{"id": p, "text": f"text {p}"} for p in ["s/b/x", "s/a", "t"]]
    assert tours(repo(tmp_path, rows)) == [["s/a", "s/b/x"], ["t"]]


def test_a_corpus_without_paths_is_refused(ray_local: int, tmp_path: Path):
    with pytest.raises(RunError, match="no document has a path") as caught:
        repo(tmp_path, make_rows(8))
    assert "path_field" in caught.value.remedy


def test_a_context_of_unknown_length_is_refused(ray_local: int, tmp_path: Path):
    with pytest.raises(RecipeError, match="as long as one context") as caught:
        splice(tmp_path, make_rows(8), length=None)
    assert "`pack`" in caught.value.remedy


def test_the_length_is_that_of_pack(tmp_path: Path):
    stages = [*COUNTED, {**BM25, "length": None}, {"op": "pack", "length": 4096}]
    assert from_dict(recipe_of(tmp_path, [], stages)).ops[2].model_dump()["length"] == 4096


def test_documents_that_were_not_counted_are_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"reads `n_tokens`.*score\.heuristics"):
        from_dict(recipe_of(tmp_path, [], [{"op": "embed"}, BM25]))
    stages = [{"op": "embed"}, {**BM25, "retriever": "repo"}]
    assert len(from_dict(recipe_of(tmp_path, [], stages)).ops) == 2


def test_more_branches_than_are_searched_are_refused(tmp_path: Path):
    stages = [*COUNTED, {**BM25, "branches": 40}]
    with pytest.raises(RecipeError, match="branches = 40 exceeds k_search = 32"):
        from_dict(recipe_of(tmp_path, [], stages))
