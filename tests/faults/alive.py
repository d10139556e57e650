"""`python -m tests.faults.alive ADDRESS COUNT`: wait until so many nodes of a cluster are alive.

A process of its own, because a process can belong to one cluster only.
"""

import sys
import time

import ray

PATIENCE_SECONDS = 120


def main(address: str, count: int) -> int:
    """0 when the nodes are there, 1 when they did not come in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    ray.init(address=address, log_to_driver=False)
    while time.monotonic() < deadline:
        if sum(node["Alive"] for node in ray.nodes()) == count:
            return 0
        time.sleep(0.2)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
