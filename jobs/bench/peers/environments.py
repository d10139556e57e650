"""Environments of the tools that MinHash is measured against, one each below `build/peers`.

    python -m jobs.bench.peers.environments

They pin each other and the project's packages apart. The file NAME.txt beside this module lists
everything that NAME imports for the job, with versions; what a package requires for its other
scripts only (Spark, web pages, models) is left out, so nothing is resolved at install.
"""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parents[2] / "build" / "peers"
PEERS = ("datatrove", "text_dedup", "data_juicer")


def install(name: str) -> str | None:
    """Make one environment, unless it is there as listed; why it could not be made, or None."""
    place, requirements = FOLDER / name, HERE / f"{name}.txt"
    done = place / "installed"
    if done.is_file() and done.read_text() == requirements.read_text():
        return None
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place)
    pip = [sys.executable, "-m", "pip", "--python", python(name), "install", "--quiet", "--no-deps"]
    command = [*pip, "-r", str(requirements)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        said = made.stderr.strip().splitlines() or ["pip gave no reason"]
        return next((line for line in said if line.startswith("ERROR")), said[-1])
    done.write_text(requirements.read_text())
    return None


def python(name: str) -> str:
    """The interpreter of an environment."""
    return str(FOLDER / name / "bin" / "python")


def main() -> int:
    """Make all environments and say what became of each."""
    for name in PEERS:
        print(f"{name}: {install(name) or 'ready'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
