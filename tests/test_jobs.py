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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from longctx import run
from longctx.engine.cluster import _WORKER_SETTINGS
from tests.conftest import make_recipe, output_bytes

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[1]
STARTS_WITHIN = 120
RUNS_WITHIN = 400


@dataclass(frozen=True)
class Head:
    """A running head: where its dashboard listens, how to reach it, and where it keeps files."""

    address: str
    environment: dict[str, str]
    folder: Path

    def submit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Submit `jobs/pretrain.py` from the checkout and wait for it, as the README says.

        The agent that takes jobs comes up some seconds after the head: until then the submission
        itself fails and is tried again.
        """
        command = ["ray", "job", "submit", "--address", self.address, "--working-dir", "."]
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
        **_WORKER_SETTINGS,
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
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield Head(f"http://127.0.0.1:{ports[1]}", environment, folder)
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


def test_a_wrong_recipe_fails_the_job_with_its_line(head: Head, tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nrun_dir: r\ninput: [{path: x, source: s}]\nstages: [{op: pakc}]\n")
    done = head.submit(str(path))
    assert done.returncode != 0
    assert f"{path}:4: stages.0.op: there is no op 'pakc'; did you mean 'pack'?" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_run_folder_inside_the_upload_is_refused(head: Head, corpus: Path, tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(make_recipe(corpus, "runs/lost")))
    done = head.submit(str(path))
    assert done.returncode != 0
    assert "run_dir: `runs/lost` would lie in the job's temporary copy" in done.stdout
