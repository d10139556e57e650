"""SIGKILL at seeded random instants of the whole job on a cluster of three nodes.

The instant is "after so many commits", the victim one of the processes that then run. A run must
survive the end of a worker, an actor or a node without the driver; after the end of its driver, or
of the head, the command is started again. Either way the output is that of an undisturbed run, and
every row is accounted for as there.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from longctx import run
from longctx.io import paths
from tests.conftest import make_recipe, make_rows, output_bytes, write_corpus
from tests.faults.cluster import Cluster, local_cluster
from tests.servers import Command, Ended

SEED = 20_000
KILLS = 30
KINDS = ("driver", "worker", "actor", "raylet", "node")
HEAD = "head"
SHORT = [
    {"op": "score.heuristics"},
    {"op": "dedup.minhash"},
    {"op": "embed"},
    {"op": "order.path", "dup_action": "keep"},
    {"op": "pack", "length": 512, "shard_tokens": 2048},
]


@dataclass(frozen=True)
class Undisturbed:
    """What a run without faults leaves: its output, the fate of its rows, its commits by step."""

    output: dict[str, bytes]
    rows: list[tuple[Any, ...]]
    commits: dict[str, int]

    @property
    def total(self) -> int:
        """Commits of all steps."""
        return sum(self.commits.values())

    @property
    def embed(self) -> str:
        """The step whose units run in actors."""
        return next(step for step in self.commits if step.endswith("-embed"))

    def check(self, run_dir: Path) -> None:
        """Assert that another run came to the same, from files that are what they claim to be."""
        assert output_bytes(run_dir) == self.output
        assert fate_of_rows(run_dir) == self.rows
        assert damaged_files(run_dir) == []


def undisturbed_by(run_dir: Path) -> Undisturbed:
    """Describe a finished run."""
    commits: dict[str, int] = {}
    for file in committed(run_dir):
        step = str(file.parent.relative_to(run_dir / "stages"))
        commits[step] = commits.get(step, 0) + 1
    return Undisturbed(output_bytes(run_dir), fate_of_rows(run_dir), commits)


def fate_of_rows(run_dir: Path) -> list[tuple[Any, ...]]:
    """Rows in, out, dropped by reason and quarantined, of every stage."""
    record = json.loads((run_dir / "run.json").read_text())
    assert record["status"] == "done"
    return [
        (s["stage"], s["rows_in"], s["rows_out"], s["dropped"], s["quarantined"])
        for s in record["stages"]
    ]


def committed(run_dir: Path) -> list[Path]:
    """All commit files; what a kill left half-written is none."""
    found = run_dir.glob("stages/**/*.commit.json")
    return [f for f in found if not f.name.startswith(paths.TEMPORARY)]


def damaged_files(run_dir: Path) -> list[str]:
    """Files whose content is not what their commit says; the folder may be a copy of the run's."""
    origin = json.loads((run_dir / "run.json").read_text())["run_dir"]
    refs = [ref for f in committed(run_dir) for ref in json.loads(f.read_text())["files"]]
    places = [run_dir / ref["name"].removeprefix(origin).lstrip("/") for ref in refs]
    return [
        str(place)
        for ref, place in zip(refs, places, strict=True)
        if paths.checksum(place.read_bytes()) != ref["checksum"]
    ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with local_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("small"), make_rows(160), files=6)


@pytest.fixture(scope="module")
def undisturbed(
    cluster: Cluster, small: Path, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = finish(cluster, make_recipe(small, folder / "run"), folder)
    assert ended.code == 0, ended.said
    return undisturbed_by(folder / "run")


def finish(cluster: Cluster, recipe: dict[str, Any], folder: Path) -> Ended:
    """Run to the end on a cluster whose nodes all live."""
    cluster.mend()
    with Command(recipe, folder, env=cluster.environment) as command:
        return command.end()


# Victims


def title(process: psutil.Process) -> str:
    """What a Ray worker calls itself: `ray::` and what it does now; "" if it ended."""
    try:
        return (process.cmdline() or [""])[0]
    except psutil.NoSuchProcess:
        return ""


def is_task(name: str) -> bool:
    """Whether a worker with this title runs a task of a dataset."""
    return name.startswith("ray::") and ("Map" in name or "Reduce" in name) and not is_actor(name)


def is_actor(name: str) -> bool:
    """Whether a worker with this title belongs to the pool of a Model stage."""
    return name.startswith("ray::MapWorker")


def running(cluster: Cluster, wanted: Callable[[str], bool]) -> list[psutil.Process]:
    """Ray workers on all nodes, in order of their number."""
    workers = [p for node in cluster.nodes for p in node.processes() if wanted(title(p))]
    return sorted(workers, key=lambda p: p.pid)


@dataclass(frozen=True)
class Blow:
    """A kill that was drawn: what, and after how many commits below a folder of `stages/`."""

    kind: str
    after: int
    folder: str
    rng: np.random.Generator

    @staticmethod
    def draw(kind: str, number: int, undisturbed: Undisturbed) -> "Blow":
        """Anywhere in the first nine tenths; actors live only while `embed` begins and works."""
        rng = np.random.default_rng([SEED, number])
        if kind == "actor":
            return Blow(kind, int(rng.integers(2)), undisturbed.embed, rng)
        return Blow(kind, int(rng.integers(0.9 * undisturbed.total)), ".", rng)

    def strike(self, cluster: Cluster, command: Command, run_dir: Path) -> str:
        """Wait for the instant, kill, and say whom: "head" if no run can survive that."""
        below = run_dir / "stages" / self.folder

        def come() -> bool:
            return sum(f.is_relative_to(below) for f in committed(run_dir)) >= self.after

        command.wait_for(come, f"{self.after} commits below {below}")
        if self.kind == "driver":
            command.kill()
            return self.kind
        if self.kind in ("worker", "actor"):
            return self._strike_worker(cluster, command)
        number = int(self.rng.integers(len(cluster.nodes)))
        node = cluster.nodes[number]
        if self.kind == "raylet":
            node.raylet().kill()
        else:
            node.kill()
        return f"{self.kind} {number}" if number else HEAD

    def _strike_worker(self, cluster: Cluster, command: Command) -> str:
        wanted = is_actor if self.kind == "actor" else is_task
        found: list[psutil.Process] = []

        def come() -> bool:
            found[:] = running(cluster, wanted)
            return bool(found)

        command.wait_for(come, f"a running {self.kind}")
        victim = found[int(self.rng.integers(len(found)))]
        name = title(victim)
        victim.kill()
        return name


def survive(
    blow: Blow, cluster: Cluster, recipe: dict[str, Any], folder: Path
) -> tuple[str, Ended]:
    """One run with one kill, started again if it could not survive it: the victim, and the end."""
    run_dir = Path(recipe["run_dir"])
    cluster.mend()
    with Command(recipe, folder, env=cluster.environment) as command:
        victim = blow.strike(cluster, command, run_dir)
        if victim not in ("driver", HEAD):
            return victim, command.end()
        if victim == HEAD:
            lost = command.end()
            assert lost.code not in (0, 2), lost.said
            assert "remedy: " in lost.said
            assert "run again" in lost.said
    return victim, finish(cluster, recipe, folder)


@pytest.mark.slow_faults
@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_instant(
    cluster: Cluster,
    small: Path,
    undisturbed: Undisturbed,
    number: int,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    blow = Blow.draw(KINDS[number % len(KINDS)], number, undisturbed)
    victim, ended = survive(blow, cluster, make_recipe(small, tmp_path / "run"), tmp_path)
    record_property("killed", f"{victim} after {blow.after} commits")
    print(f"killed {victim} after {blow.after} commits")
    assert ended.code == 0, ended.said
    undisturbed.check(tmp_path / "run")


@pytest.mark.faults
@pytest.mark.ray
def test_worker_actor_and_driver_killed_in_one_run(
    ray_local: int, cluster: Cluster, tmp_path: Path
) -> None:
    """The shortest form of the same, against a run on this process's own Ray."""
    small = write_corpus(tmp_path, make_rows(40))
    changes = {"stages": SHORT, "engine": {"part_mb": 0.03}}
    run(make_recipe(small, tmp_path / "undisturbed", **changes))
    undisturbed = undisturbed_by(tmp_path / "undisturbed")
    recipe, rng = make_recipe(small, tmp_path / "run", **changes), np.random.default_rng(SEED)
    blows = [
        Blow("worker", 2, ".", rng),
        Blow("actor", 0, undisturbed.embed, rng),
        Blow("driver", undisturbed.total - 4, ".", rng),
    ]
    with Command(recipe, tmp_path, env=cluster.environment) as command:
        killed = [blow.strike(cluster, command, tmp_path / "run") for blow in blows]
    assert is_task(killed[0])
    assert is_actor(killed[1])
    ended = finish(cluster, recipe, tmp_path)
    assert ended.code == 0, ended.said
    undisturbed.check(tmp_path / "run")
