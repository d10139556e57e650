"""The main job on a cluster, exactly as `longctx run RECIPE` runs it locally.

    export RAY_ADDRESS=http://HEAD:8265    # and RAY_AUTH_TOKEN, where the cluster wants one
    ray job submit --working-dir . -- python jobs/pretrain.py RECIPE [--set KEY=VALUE ...]

Submitted from the root of the checkout: the working directory travels (a few hundred kilobytes;
`.rayignore` leaves .git, .venv, demo/ and runs/ behind) and the package is imported from it, so the
nodes need its dependencies, not longctx itself. Inputs, `run_dir` and `output.path` must be places
that every node reaches: URLs, or absolute paths on a shared file system. Start nodes with
RAY_num_workers_soft_limit and RAY_idle_worker_killing_time_threshold_ms as in
`longctx/engine/cluster.py`, or each shuffle waits for Python to start.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from longctx.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
