"""Proxy runs on a cluster, exactly as `longctx mix train` makes them locally.

    ray job submit --working-dir . -- python jobs/mix_train.py --mixtures m.csv --data s3://b/run \\
        --budget-tokens 3e8 --target-tokens 2e10 --model 15m --out s3://b/losses.csv

See `jobs/pretrain.py` for the cluster. `--data`, `--out` and `--work` must be places that every
node reaches: URLs, or absolute paths on a shared file system; the mixture table may travel with the
working directory. A job that was killed is submitted again: finished proxies are kept in `--work`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from longctx.cli import main

if __name__ == "__main__":
    sys.exit(main(["mix", "train", *sys.argv[1:]]))
