"""`jobs/pretrain.py` submitted to a head of its own: the same bytes as a local run.

The head gets its ports, its token and its folder from the test, and goes with its process group.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from longctx import run
from longctx.engine import metrics
from longctx.engine.cluster import NODE_SETTINGS
from longctx.engine.manifest import StageRecord
from tests.conftest import make_recipe, output_bytes
from tests.deploy.manifests import RAY_METRICS
from tests.servers import wait_until

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[1]
STARTS_WITHIN = 120
RUNS_WITHIN = 400


@dataclass(frozen=True)
class Head:
    """A running head: where it listens, how to reach it, and where it keeps files."""

    address: str
    metrics: str
    health: str
    environment: dict[str, str]
    folder: Path

    def submit(self, *arguments: str, uploaded: bool = True) -> subprocess.CompletedProcess[str]:
        """Submit `jobs/pretrain.py` from the checkout and wait for it, as the README says.

        Unless the checkout is `uploaded`, the job starts where the head was started, as in the
        image. The agent that takes jobs comes up some seconds after the head: until then the
        submission itself fails and is tried again.
        """
        command = ["ray", "job", "submit", "--address", self.address]
        command += ["--working-dir", "."] if uploaded else []
        command += ["--", "python", "jobs/pretrain.py", *arguments]
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=RUNS_WITHIN,
            )
            if "submitted successfully" in done.stdout or time.monotonic() > deadline:
                return done


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Paths of Unix sockets are short: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="lc"))
    ports = free_ports(6)
    environment = {
        **{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        **NODE_SETTINGS,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    names = (
        "port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
        "metrics-export-port", "ray-client-server-port",
    )  # fmt: skip
    command = ["ray", "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder}"]
    command += ["--include-dashboard=true", "--node-ip-address=127.0.0.1"]
    command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _, dashboard, agent, _, exported, _ = (f"http://127.0.0.1:{port}" for port in ports)
        yield Head(dashboard, f"{exported}/metrics", f"{agent}/api/healthz", environment, folder)
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the head and everything that it started; `ray stop` would end other heads too."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
            process.wait(timeout=5)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def test_a_submitted_job_writes_the_bytes_of_a_local_run(
    head: Head, ray_local: int, corpus: Path, tmp_path: Path
):
    submitted = make_recipe(corpus, tmp_path / "job")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(submitted))
    done = head.submit(str(path), "--quiet")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "09-pack" in done.stdout

    local = run(make_recipe(corpus, tmp_path / "local"))
    assert output_bytes(tmp_path / "job") == output_bytes(local.run_dir)
    record = json.loads((tmp_path / "job" / "run.json").read_text())
    assert record["status"] == "done"
    assert [s["rows_out"] for s in record["stages"]] == [s.rows_out for s in local.stages]

    uploaded = list(head.folder.glob("session_*/runtime_resources/working_dir_files/*"))
    folders = {p.name for copy in uploaded if copy.is_dir() for p in copy.iterdir()}
    assert {"longctx", "jobs"} <= folders
    assert not folders & {".venv", ".git", "demo", "runs", "build", "tests"}

    recorded = [s for stage in record["stages"] for s in metrics.of_stage(StageRecord(**stage))]
    # Ray shows no counter that never grew.
    grown = [s for s in recorded if s.metric.is_counter and s.value]
    counters = {(f"ray_{s.metric.name}", s.labels): s.value for s in grown}
    # The driver sends its last figures when it ends; Ray keeps counters that it was told.
    wait_until(lambda: counters.items() <= scraped(head).items(), "what the job counted", 60)
    assert {name for name, _ in scraped(head)} >= RAY_METRICS
    with urllib.request.urlopen(head.health, timeout=60) as answer:
        assert answer.status == 200, "probes bring no token"


def scraped(head: Head) -> dict[tuple[str, tuple[str, ...]], float]:
    """What the head shows Prometheus: values by name and, of ours, the labels after the run."""
    with urllib.request.urlopen(head.metrics, timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    ours = {f"ray_{m.name}": m.labels[1:] for m in metrics.METRICS}
    return {
        (s.name, tuple(s.labels.get(label, "") for label in ours.get(s.name, ()))): s.value
        for family in families
        for s in family.samples
    }


@pytest.mark.parametrize("uploaded", [True, False])
def test_a_wrong_recipe_fails_the_job_with_its_line(head: Head, tmp_path: Path, uploaded: bool):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nrun_dir: r\ninput: [{path: x, source: s}]\nstages: [{op: pakc}]\n")
    done = head.submit(str(path), uploaded=uploaded)
    assert done.returncode != 0
    assert f"{path}:4: stages.0.op: there is no op 'pakc'; did you mean 'pack'?" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_run_folder_inside_the_upload_is_refused(head: Head, corpus: Path, tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(make_recipe(corpus, "runs/lost")))
    done = head.submit(str(path))
    assert done.returncode != 0
    assert "run_dir: `runs/lost` would lie in the job's temporary copy" in done.stdout
