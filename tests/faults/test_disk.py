"""A disk that is full, read-only or locked: one clear error, and a resume that ends right.

The disks are real ones: a small tmpfs, a mount that is made read-only, a folder that the file
system refuses to change even for root.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from longctx import run
from longctx.engine.manifest import RunRecord
from longctx.errors import RunError
from tests.conftest import make_recipe, make_rows, output_bytes, write_corpus

pytestmark = [pytest.mark.faults, pytest.mark.ray]
OPS = ("score.heuristics", "dedup.exact", "order.random")
STAGES = [*({"op": op} for op in OPS), {"op": "pack", "length": 1024}]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("small"), make_rows(40))


@pytest.fixture(scope="module")
def undisturbed(ray_local: int, small: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run(make_recipe(small, tmp_path_factory.mktemp("undisturbed") / "run", stages=STAGES))


def as_root(*command: str) -> None:
    """Run a command that needs rights which a container may lack; the test is skipped then."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A tmpfs of a size (as mount takes it) on a folder."""
    folder.mkdir()
    as_root("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def holds(run_dir: Path) -> int:
    return sum(f.stat().st_size for f in run_dir.rglob("*") if f.is_file())


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_full_disk(undisturbed: RunRecord, small: Path, tmp_path: Path, share: float) -> None:
    """The disk holds a share of what the whole run writes, then it is made larger."""
    disk = tmp_path / "disk"
    recipe = make_recipe(small, disk / "run", stages=STAGES)
    with mounted(disk, f"{int(holds(Path(undisturbed.run_dir)) * share) // 1024}k"):
        with pytest.raises(RunError, match="No space left on device") as caught:
            run(recipe)
        assert str(disk) in caught.value.where
        assert "free space" in caught.value.remedy
        assert not [f for f in disk.rglob(".tmp-*") if f.is_file()]
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        run(recipe)
        assert output_bytes(disk / "run") == output_bytes(undisturbed.run_dir)


def test_disk_that_turns_read_only(undisturbed: RunRecord, small: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "100m"):
        run(make_recipe(small, disk / "run", stages=STAGES[:1]))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        recipe = make_recipe(small, disk / "run", stages=STAGES)
        with pytest.raises(RunError, match="Read-only file system") as caught:
            run(recipe)
        assert str(disk / "run") in caught.value.where
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        again = run(recipe)
        assert again.stages[0].skipped == again.stages[0].units
        assert output_bytes(disk / "run") == output_bytes(undisturbed.run_dir)


@pytest.mark.parametrize("locked", ["run", "run/stages", "run/output"])
def test_folder_that_may_not_be_written(
    undisturbed: RunRecord, small: Path, tmp_path: Path, locked: str
) -> None:
    folder = tmp_path / locked
    folder.mkdir(parents=True)
    recipe = make_recipe(small, tmp_path / "run", stages=STAGES)
    as_root("chattr", "+i", str(folder))
    try:
        with pytest.raises(RunError, match="access denied") as caught:
            run(recipe)
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
    assert str(folder) in caught.value.where
    assert "owner and mode" in caught.value.remedy
    run(recipe)
    assert output_bytes(tmp_path / "run") == output_bytes(undisturbed.run_dir)
