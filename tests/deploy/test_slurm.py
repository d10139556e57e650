"""`cluster/slurm.sh` run for real: two nodes on one machine, stand-ins for Slurm's own commands."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import make_recipe
from tests.deploy.manifests import CLUSTER
from tests.servers import clean_environment, wait_until

pytestmark = pytest.mark.cluster

SCRIPT = CLUSTER / "slurm.sh"
# As srun, for one task on this machine: everything up to the first word without a dash is its own.
SRUN = """#!/usr/bin/env bash
echo "$*" >> "$0.log"
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
[ "$*" = "show hostnames two-nodes" ] && printf 'localhost\\nsecond\\n'
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a batch script on the first of two nodes."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    # Paths of Unix sockets are short: pytest's own folders are too deep.
    scratch = tempfile.mkdtemp(prefix="lc")
    yield {
        **clean_environment(),
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "LONGCTX_BIN": str(Path(sys.executable).parent),
        "LONGCTX_SCRATCH": scratch,
        "SLURM_SUBMIT_DIR": str(CLUSTER.parent),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "two-nodes",
        "SLURM_CPUS_PER_TASK": "1",
        # On a busy machine Ray's processes need longer than its usual minute.
        "RAY_raylet_start_wait_time_s": "300",
    }
    shutil.rmtree(scratch, ignore_errors=True)


def left_over(scratch: str) -> list[psutil.Process]:
    """Processes of a Ray whose files lie in this folder."""
    found = psutil.process_iter(["cmdline"])
    return [p for p in found if any(scratch in word for word in p.info["cmdline"] or [])]


def test_a_recipe_runs_on_two_nodes_and_nothing_is_left(
    slurm: dict[str, str], corpus: Path, tmp_path: Path
):
    recipe = make_recipe(corpus, tmp_path / "run")
    recipe["stages"] = recipe["stages"][:4]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = subprocess.run(
        ["bash", SCRIPT, tmp_path / "recipe.yaml", "--quiet"],
        env=slurm,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "done"
    assert [s["stage"] for s in record["stages"]][-1] == "04-dedup.minhash"

    asked = (tmp_path / "srun.log").read_text().splitlines()
    # Both nodes are started at once, so either may be the first in the log.
    named = [line.split("--nodelist=")[1].split()[0] for line in asked if "--nodelist=" in line]
    assert sorted(named) == ["localhost", "second"]
    scratch = slurm["LONGCTX_SCRATCH"]
    wait_until(lambda: not left_over(scratch), "the end of all that the job started", 60)
    assert list(Path(scratch).iterdir()) == []
    # The token is known to the job's processes, and named in no command.
    assert "RAY_AUTH_TOKEN" not in "".join(asked) + done.stdout + done.stderr
