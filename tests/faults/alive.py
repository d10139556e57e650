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
    while time.monotonic() < deadline:
        if alive(address) == count:
            return 0
        time.sleep(0.2)
    return 1


def alive(address: str) -> int:
    """Nodes that the head knows to be alive; none while it cannot be joined."""
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, RuntimeError):
            return 0
    return sum(node["Alive"] for node in ray.nodes())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
