"""The main job for `ray job submit --working-dir . -- python jobs/pretrain.py RECIPE`.

Runs exactly what `longctx run RECIPE` runs, on the cluster that the job was submitted to.
"""

import sys
from pathlib import Path

# A job's working directory is uploaded as it is: the package is found there, not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from longctx.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
