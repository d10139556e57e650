"""Environments of the trainers' own packages, one each below `build/readers`.

    python -m tests.readers.environments

They pin each other and the project's packages apart, so none of them enters the project's own
environment. Each is a venv that holds the package with the few of its requirements that its readers
import, and sees the rest (torch, NumPy, pyarrow) in the project's environment behind its own.
What cannot be installed leaves the reason in `failed`, and its tests are skipped with it.
"""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "readers"
_PYARROW_TOOLS = ("dill==0.4.0", "multiprocess==0.70.19", "xxhash==4.1.0")
CONSUMERS: dict[str, tuple[str, ...]] = {
    "datasets": ("datasets==5.2.0", *_PYARROW_TOOLS),
    "datatrove": (
        "datatrove==0.10.1",
        "dill==0.4.1",
        "multiprocess==0.70.19",
        "humanize==4.17.0",
        "loguru==0.7.3",
    ),
    "megatron-core": ("megatron-core==0.16.1",),
    "mosaicml-streaming": (
        "mosaicml-streaming==0.13.0",
        "catalogue==2.0.10",
        "zstd==1.5.7.2",
        "brotli==1.2.1",
        "python-snappy==0.7.3",
        "cramjam==2.14.0",
        "pillow==13.0.0",
        "xxhash==4.1.0",
        "boto3==1.44.8",
        "s3transfer==0.19.3",
    ),
    "trl": ("trl==1.16.0", "accelerate==1.15.0", "datasets==5.2.0", *_PYARROW_TOOLS),
    "webdataset": ("webdataset==1.0.2", "braceexpand==0.1.7"),
}


def install(name: str) -> str | None:
    """Make one environment, unless it is there as listed; why it could not be made, or None."""
    place, wanted = FOLDER / name, "\n".join(CONSUMERS[name])
    done, failed = place / "installed", place / "failed"
    if done.is_file() and done.read_text() == wanted:
        return None
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True)
    site = next(place.glob("lib/python*/site-packages"))
    (site / "project.pth").write_text(sysconfig.get_path("purelib"))
    command = [python(name), "-m", "pip", "install", "--quiet", "--no-deps", *CONSUMERS[name]]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        reason = (made.stderr.strip().splitlines() or ["no reason was given"])[-1]
        failed.write_text(reason)
        return reason
    done.write_text(wanted)
    return None


def python(name: str) -> str:
    """The interpreter of an environment."""
    return str(FOLDER / name / "bin" / "python")


def missing(name: str) -> str | None:
    """Why the tests of a consumer cannot run, or None."""
    if (FOLDER / name / "installed").is_file():
        return None
    failed = FOLDER / name / "failed"
    if failed.is_file():
        return f"{name} could not be installed: {failed.read_text()}"
    return f"{name} is not installed: `make test-readers` does it"


def main() -> int:
    """Make all environments and say what became of each."""
    for name in CONSUMERS:
        reason = install(name)
        print(f"{name}: {reason or 'ready'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
