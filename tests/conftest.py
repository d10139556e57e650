"""Shared by all tests: one local Ray for the session, and a small corpus with known duplicates."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"
TOPICS = {
    "sea": "wave tide reef coral fish salt harbour current shore whale net sail anchor storm deep",
    "law": "court clause judge appeal statute party contract claim ruling evidence tort lien deed",
    "code": "function loop array pointer stack thread class module parser token lexer cache heap",
    "bread": "flour yeast dough oven crust salt knead rise bake loaf crumb proof butter rye seed",
}


@pytest.fixture(scope="session")
def ray_local() -> Iterator[int]:
    """A local Ray with two CPUs, started once and used by every test that is marked `ray`."""
    import ray

    from longctx.engine.cluster import connect

    yield connect(num_cpus=2)
    ray.shutdown()


@pytest.fixture
def model_ops_here(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Ops that ask a model run in this process, but for tests with a Ray; clients end with each."""
    from longctx.llm.spec import close_client
    from tests.in_process import run_here

    if "ray_local" not in request.fixturenames:
        run_here(monkeypatch)
    yield
    close_client()


@pytest.fixture
def shared_data() -> Path:
    """The folder of real corpora; the test is skipped, visibly, where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real corpora are not there: {SHARED}")
    return SHARED


def make_rows(count: int = 240, seed: int = 0) -> list[dict[str, str]]:
    """Documents on four topics, with three exact copies and six near-copies among them."""
    rng = np.random.default_rng(seed)
    topics = list(TOPICS)
    rows = []
    for i in range(count):
        topic = topics[i % len(topics)]
        words = TOPICS[topic].split()
        sentences = []
        for _ in range(int(rng.integers(20, 60))):
            picked = rng.choice(words, size=8)
            sentences.append(
                " ".join(["The", *picked, "of", f"number{rng.integers(10_000)}"]) + "."
            )
        rows.append({"id": f"{topic}-{i:04d}", "text": " ".join(sentences), "source": topic})
    for i in range(3):
        rows.append({**rows[i], "id": f"copy-{i}"})
    for i in range(6):
        text = rows[10 + i]["text"].replace("The", "That", 2)
        rows.append({**rows[10 + i], "id": f"near-{i}", "text": text})
    return rows


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small corpus as four JSONL files."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), make_rows())


def write_corpus(folder: Path, rows: list[dict[str, str]], files: int = 4) -> Path:
    """Rows dealt to JSONL files, `part-0.jsonl` and so on; returns the folder."""
    for k in range(files):
        lines = "".join(json.dumps(r) + "\n" for r in rows[k::files])
        (folder / f"part-{k}.jsonl").write_text(lines)
    return folder


RecipeFactory = Callable[..., dict[str, Any]]


def make_recipe(corpus: str | Path, run_dir: str | Path, **changes: Any) -> dict[str, Any]:
    """The main job on the small corpus: every stage, several parts, windows of 512 tokens."""
    recipe: dict[str, Any] = {
        "name": "small",
        "input": [{"path": f"{corpus}/*.jsonl", "source_field": "source", "id": "id"}],
        "run_dir": str(run_dir),
        "seed": 7,
        "stages": [
            {"op": "score.heuristics"},
            {"op": "decide", "rules": {"n_tokens": {"min": 10}}},
            {"op": "dedup.exact"},
            {"op": "dedup.minhash"},
            {"op": "embed"},
            {"op": "dedup.semantic", "eps": 0.001},
            {"op": "cluster.kmeans"},
            {"op": "order.path", "dup_action": "keep"},
            {"op": "pack", "length": 2048, "shard_tokens": 20_000},
        ],
        "output": {"format": ["parquet", "mds"]},
        "engine": {"part_mb": 0.1},
    }
    return {**recipe, **changes}


def output_bytes(run_dir: str | Path) -> dict[str, bytes]:
    """Every data file of a run's output by its name; `manifest.json` names no place or time."""
    root = Path(run_dir) / "output"
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "_longctx.json")
    return {str(p.relative_to(root)): p.read_bytes() for p in files}
