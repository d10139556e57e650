"""Arrays as committed files: the bytes of `.npy`, mapped, shared, and checked."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from longctx.engine.arrays import Matrix, mapped, npy_bytes
from longctx.engine.commit import FileRef
from longctx.engine.steps import StepRef
from longctx.errors import RunError
from longctx.io import paths


def committed(run_dir: str, array: np.ndarray, name: str = "stages/x/vectors.npy") -> StepRef:
    data = npy_bytes(array)
    paths.write_atomic(paths.join(run_dir, name), data)
    ref = FileRef(name, len(data), paths.checksum(data), 0)
    other = FileRef("stages/x/documents.parquet", 1, "", 1)
    return StepRef(run_dir, (("all", (other, ref)),))


@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 3), (12_345, 999), (5, 0)])
def test_a_matrix_becomes_the_file_that_numpy_would_write(n: int, m: int) -> None:
    matrix = Matrix(n, 7)
    matrix.rows[:] = np.random.default_rng(0).standard_normal((n, 7))
    content = matrix.content(m)
    assert bytes(content) == npy_bytes(matrix.rows[:m])
    np.testing.assert_array_equal(np.load(io.BytesIO(content)), matrix.rows[:m])


@pytest.mark.parametrize("shape", [(0, 4), (6, 4)])
def test_a_local_file_is_mapped_and_cannot_be_changed(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = mapped(committed(str(tmp_path), array), "vectors.npy")
    np.testing.assert_array_equal(found, array)
    assert type(found) is np.ndarray
    assert not found.flags.writeable or found.size == 0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run folder in a store, and a temporary folder of the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield "memory://arrays"
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm("/arrays", recursive=True)


def copies(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("longctx-*/*"))


def test_an_object_is_copied_to_this_machine_once(store: str, tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    step = committed(store, array)
    np.testing.assert_array_equal(mapped(step, "vectors.npy"), array)
    (copy,) = copies(tmp_path)
    os.utime(copy, (1, 1))
    fsspec.filesystem("memory").rm_file("/arrays/stages/x/vectors.npy")
    np.testing.assert_array_equal(mapped(step, "vectors.npy"), array)  # from the copy
    assert copy.stat().st_mtime > 1  # which was used just now


def test_copies_of_runs_that_are_over_go_when_another_comes(store: str, tmp_path: Path) -> None:
    first = committed(store, np.zeros((2, 2), dtype=np.float32))
    held = mapped(first, "vectors.npy")
    (old,) = copies(tmp_path)
    os.utime(old, (1, 1))
    second = committed(store, np.ones((2, 2), dtype=np.float32), "stages/y/vectors.npy")
    mapped(second, "vectors.npy")
    assert len(copies(tmp_path)) == 1
    assert not old.exists()
    np.testing.assert_array_equal(held, 0)


def test_a_folder_of_another_user_is_not_read(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = committed(store, np.zeros((2, 3), np.float32))
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    (tmp_path / f"longctx-{me + 1}").mkdir()
    with pytest.raises(RunError, match="belongs to another user"):
        mapped(step, "vectors.npy")


def test_a_view_of_bytes_is_written_like_bytes(store: str, tmp_path: Path) -> None:
    for url in (f"{store}/a.bin", str(tmp_path / "a.bin")):
        paths.write_atomic(url, memoryview(b"abc")[1:])
        assert paths.read_bytes(url) == b"bc"


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    step = committed(str(tmp_path), np.ones((9, 2), dtype=np.float32))
    file = tmp_path / "stages/x/vectors.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    with pytest.raises(RunError, match="damaged or gone") as raised:
        mapped(step, "vectors.npy")
    assert raised.value.where == str(file)
    assert "run again" in raised.value.remedy
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(RunError, match="its checksum is another"):
        mapped(step, "vectors.npy")
    file.unlink()
    with pytest.raises(RunError, match="damaged or gone"):
        mapped(step, "vectors.npy")
