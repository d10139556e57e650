"""`cluster.kmeans` in runs: fewer documents than clusters, and documents without a vector."""

from pathlib import Path

import pytest

from tests.conftest import make_rows
from tests.stages import Finished, run_rows

pytestmark = pytest.mark.ray

OP = "cluster.kmeans"
KOREAN = {"id": "korean", "text": "하나 둘", "language": "ko"}


def test_every_document_with_a_vector_has_a_cluster(ray_local: int, tmp_path: Path):
    rows = [*make_rows(40)[:40], KOREAN]
    for k, most in ((4, 4), (500, 40)):
        done = run_rows(tmp_path, rows, [{"op": "embed"}, {"op": OP, "k": k}])
        cluster, similarity = done.column(OP, "cluster"), done.column(OP, "cluster_sim")
        assert cluster.pop("korean") is None
        assert similarity.pop("korean") is None
        assert None not in cluster.values()
        assert 1 < len(set(cluster.values())) <= most
        assert all(-1.001 <= s <= 1.001 for s in similarity.values())
        assert done.stage(OP).rows_out == 41
    # As many clusters as documents: each lies on its own centroid.
    assert min(similarity.values()) > 0.99


def test_the_parts_do_not_change_the_clusters(ray_local: int, tmp_path: Path):
    found = []
    for mb in (0.02, 10):
        stages = [{"op": "embed"}, {"op": OP, "k": 5}]
        done = run_rows(tmp_path / str(mb), make_rows(40), stages, engine={"part_mb": mb})
        found.append(done.column(OP, "cluster"))
    assert found[0] == found[1]


def test_no_vectors_and_no_cluster(ray_local: int, tmp_path: Path):
    done = run_rows(tmp_path, [KOREAN], [{"op": "embed"}, {"op": OP}])
    assert done.column(OP, "cluster") == {"korean": None}


def test_a_corpus_that_grew_is_clustered_as_if_it_were_new(ray_local: int, tmp_path: Path):
    """Parts that stay give other rows to the sample, because there are more clusters."""
    rows = [{**row, "text": row["text"][:200]} for row in make_rows(600)]
    stages = [{"op": "embed"}, {"op": OP, "per_cluster": 300}]

    def clustered(folder: Path, files: int) -> Finished:
        read = [
            {"path": str(folder / "data" / f"{i}.jsonl"), "source": f"s{i}", "id": "id"}
            for i in range(files)
        ]
        return run_rows(folder, rows, stages, input=read, engine={"part_mb": 1})

    clustered(tmp_path / "grown", 1)
    done, fresh = clustered(tmp_path / "grown", 2), clustered(tmp_path / "fresh", 2)
    assert done.stage("embed").skipped == 1
    for column in ("cluster", "cluster_sim"):
        assert done.column(OP, column) == fresh.column(OP, column)
    assert len(set(done.column(OP, "cluster").values())) == 2
