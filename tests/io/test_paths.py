"""Paths: whole files or none, listings without leftovers, errors that say what to do."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from longctx.errors import RunError
from longctx.io import paths


@pytest.fixture(params=["local", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder on disk, or in memory as a stand-in for an object store."""
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def put(base: str, *names: str) -> None:
    for name in names:
        paths.write_atomic(paths.join(base, name), name.encode())


class TestJoin:
    @pytest.mark.parametrize(
        ("parts", "expected"),
        [
            (("a", "b", "c"), "a/b/c"),
            (("a/", "/b/", "c"), "a/b/c"),
            (("s3://b/x", "/etc/passwd"), "s3://b/x/etc/passwd"),
            (("/run", "/etc"), "/run/etc"),
            (("a", ""), "a"),
            (("a", "/"), "a"),
            (("/", "a"), "/a"),
            (("", "a"), "a"),
            (("memory://", "a"), "memory://a"),
            (("s3://", "bucket", "k"), "s3://bucket/k"),
        ],
    )
    def test_names_go_below_the_base(self, parts: tuple[str, ...], expected: str) -> None:
        assert paths.join(*parts) == expected


class TestAbsolute:
    def test_local_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", "/home/me")
        assert paths.absolute("a/../b") == str(tmp_path / "b")
        assert paths.absolute("~/x") == "/home/me/x"
        assert paths.absolute("file:///x") == "/x"
        assert paths.absolute("local:///x") == "/x"

    def test_urls_stay(self) -> None:
        assert paths.absolute("s3://b/k") == "s3://b/k"
        assert not paths.is_local("memory://x")


class TestFiles:
    def test_written_is_read(self, base: str) -> None:
        url = paths.join(base, "deep", "er", "a.bin")
        assert paths.read_if_exists(url) is None
        paths.write_atomic(url, b"1")
        paths.write_atomic(url, b"22")
        assert paths.read_bytes(url) == b"22"
        assert list(paths.list_files(paths.join(base, "deep"), recursive=True)) == ["er/a.bin"]
        paths.remove(url)
        paths.remove(url)
        assert paths.read_if_exists(url) is None

    def test_only_the_first_creates(self, base: str) -> None:
        url = paths.join(base, "lock", "0.json")
        assert paths.create_exclusive(url, b"first")
        assert not paths.create_exclusive(url, b"second")
        assert paths.read_bytes(url) == b"first"
        assert list(paths.list_files(paths.join(base, "lock"), temporary=True)) == ["0.json"]

    @pytest.mark.parametrize("failing", ["fsync", "replace"])
    def test_writer_that_raises_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        def fail(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        file = tmp_path / "a.bin"
        paths.write_atomic(str(file), b"old")
        monkeypatch.setattr(os, failing, fail)
        with pytest.raises(RunError, match="No space left on device") as caught:
            paths.write_atomic(str(file), b"new")
        assert "free space" in caught.value.remedy
        assert os.listdir(tmp_path) == ["a.bin"]
        assert file.read_bytes() == b"old"

    def test_exclusive_writer_that_raises_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "link", fail)
        with pytest.raises(RunError):
            paths.create_exclusive(str(tmp_path / "a"), b"x")
        assert os.listdir(tmp_path) == []

    def test_writer_killed_before_the_rename_leaves_the_old_file(self, tmp_path: Path) -> None:
        file = tmp_path / "unit.commit.json"
        paths.write_atomic(str(file), b"old")
        program = (
            "import os, signal\n"
            "from longctx.io import paths\n"
            "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            f"paths.write_atomic({str(file)!r}, b'new')\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True)
        assert done.returncode == -9
        assert file.read_bytes() == b"old"
        assert list(paths.list_files(str(tmp_path))) == [file.name]
        assert len(paths.list_files(str(tmp_path), temporary=True)) == 2
        assert [f.url for f in paths.expand(str(tmp_path))] == [str(file)]

    def test_checksum_is_of_the_bytes(self) -> None:
        assert paths.checksum(b"a") != paths.checksum(b"b")
        assert len(paths.checksum(b"")) == 32


class TestList:
    def test_names_are_relative_sorted_and_whole(self, base: str) -> None:
        put(base, "b.txt", "a.txt", "sub/c.txt", ".tmp-1-a.txt", "sub/.tmp-2/d.txt")
        assert list(paths.list_files(base)) == ["a.txt", "b.txt"]
        assert list(paths.list_files(base + "/", recursive=True)) == [
            "a.txt",
            "b.txt",
            "sub/c.txt",
        ]
        assert ".tmp-1-a.txt" in paths.list_files(base, temporary=True)

    def test_no_folder_is_empty(self, base: str) -> None:
        assert paths.list_files(paths.join(base, "none")) == {}

    def test_stamp_changes_with_the_file(self, base: str) -> None:
        url = paths.join(base, "a.txt")
        paths.write_atomic(url, b"one")
        (before,) = paths.expand(url)
        if paths.is_local(url):
            os.utime(url, ns=(1, 1))
        else:
            fsspec.filesystem("memory").rm(url)
            paths.write_atomic(url, b"two")
        (after,) = paths.expand(url)
        assert before.size == after.size == 3
        assert before.stamp != after.stamp


class TestExpand:
    NAMES = (
        "z.jsonl",
        "a.jsonl",
        "sub/b.jsonl",
        "sub/deep/c.jsonl",
        ".hidden.jsonl",
        "_SUCCESS",
        ".tmp-1-x.jsonl",
        ".git/d.jsonl",
        "_temporary/0/e.jsonl",
        "sub/.tmp-2/f.jsonl",
    )

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("", ["a.jsonl", "sub/b.jsonl", "sub/deep/c.jsonl", "z.jsonl"]),
            ("*.jsonl", ["a.jsonl", "z.jsonl"]),
            ("**/*.jsonl", ["a.jsonl", "sub/b.jsonl", "sub/deep/c.jsonl", "z.jsonl"]),
            ("?.jsonl", ["a.jsonl", "z.jsonl"]),
            ("[a-y].jsonl", ["a.jsonl"]),
            ("s*", ["sub/b.jsonl", "sub/deep/c.jsonl"]),
            ("sub", ["b.jsonl", "deep/c.jsonl"]),
            ("sub/", ["b.jsonl", "deep/c.jsonl"]),
            ("sub/*", ["b.jsonl", "deep/c.jsonl"]),
            ("a.jsonl", ["a.jsonl"]),
            (".hidden.jsonl", [".hidden.jsonl"]),
            (".git", ["d.jsonl"]),
            ("none*", []),
            ("none", []),
            ("none/none.jsonl", []),
        ],
    )
    def test_order_and_what_is_skipped(self, base: str, pattern: str, expected: list[str]) -> None:
        put(base, *self.NAMES)
        found = paths.expand(f"{base}/{pattern}" if pattern else base)
        assert [f.below for f in found] == expected
        assert [paths.read_bytes(f.url).decode().rpartition("/")[2] for f in found] == [
            name.rpartition("/")[2] for name in expected
        ]

    def test_name_with_brackets_is_taken_literally(self, base: str) -> None:
        put(base, "data[1].jsonl", "data1.jsonl")
        assert [f.below for f in paths.expand(f"{base}/data[1].jsonl")] == ["data[1].jsonl"]

    def test_links_are_followed_once(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        folder = tmp_path / "in"
        (outside / "more").mkdir(parents=True)
        folder.mkdir()
        (outside / "blob").write_bytes(b"12345")
        (outside / "more" / "x.jsonl").write_bytes(b"x")
        (folder / "a.jsonl").symlink_to(outside / "blob")
        (folder / "sub").symlink_to(outside / "more")
        (outside / "more" / "back").symlink_to(folder)
        (folder / "broken.jsonl").symlink_to("/nowhere")
        assert {f.below: f.size for f in paths.expand(str(folder))} == {
            "a.jsonl": 5,
            "sub/x.jsonl": 1,
        }
        matched = [f.below for f in paths.expand(f"{folder}/*")]
        assert matched[0] == "a.jsonl"
        assert matched[-1] == "sub/x.jsonl"

    def test_folder_with_a_link_beside_it_is_read_once_under_its_own_name(
        self, tmp_path: Path
    ) -> None:
        put(str(tmp_path), "real/x.jsonl")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert [f.below for f in paths.expand(str(tmp_path))] == ["real/x.jsonl"]

    def test_stamp_of_a_link_is_that_of_its_file(self, tmp_path: Path) -> None:
        (tmp_path / "blob").write_bytes(b"1")
        link = tmp_path / "a.jsonl"
        link.symlink_to(tmp_path / "blob")
        os.utime(tmp_path / "blob", ns=(5, 5))
        assert paths.expand(str(link))[0].stamp == "5"

    def test_directory_markers_are_no_files(self) -> None:
        root = uuid.uuid4().hex
        put(f"memory://{root}", "sub/a.jsonl")
        fsspec.filesystem("memory").mkdir(f"/{root}/empty")
        assert [f.below for f in paths.expand(f"memory://{root}")] == ["sub/a.jsonl"]


class TestErrors:
    def test_unknown_kind_of_url(self) -> None:
        with pytest.raises(RunError, match="there is no file system for nope://") as caught:
            paths.read_bytes("nope://x/y")
        assert "s3://" in caught.value.remedy

    def test_missing_file_is_an_answer(self, base: str) -> None:
        with pytest.raises(FileNotFoundError):
            paths.read_bytes(paths.join(base, "none"))

    def test_file_where_a_folder_is_needed(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_bytes(b"")
        for act in (paths.write_atomic, paths.create_exclusive):
            with pytest.raises(RunError, match="a file stands where a folder is needed"):
                act(str(tmp_path / "run" / "x"), b"")
            with pytest.raises(RunError, match="a file stands where a folder is needed"):
                act(str(tmp_path / "run" / "deeper" / "x"), b"")

    def test_folder_where_a_file_is_needed(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="this is a folder"):
            paths.read_bytes(str(tmp_path))

    @pytest.mark.parametrize(
        ("error", "url", "message", "remedy"),
        [
            (PermissionError(13, "no"), "/x", "access denied", "owner and mode"),
            (PermissionError("no"), "s3://b/k", "access denied", "AWS_ACCESS_KEY_ID"),
            (OSError(28, "No space left"), "/x", "No space left", "free space"),
            (TimeoutError("slow"), "s3://b/k", "slow", "AWS_ENDPOINT_URL"),
            (FileNotFoundError("The specified bucket does not exist"), "s3://b/k", "bucket", "cre"),
            (ImportError("Install gcsfs"), "gs://b/k", "no driver .*gcsfs", "pip install"),
        ],
    )
    def test_storage_errors_say_what_to_do(
        self, error: Exception, url: str, message: str, remedy: str
    ) -> None:
        with pytest.raises(RunError, match=message) as caught, paths.clear_errors(url):
            raise error
        assert caught.value.where == url
        assert remedy in caught.value.remedy
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize("error", [ValueError("bug"), KeyError("bug"), RunError("said")])
    def test_other_errors_pass(self, error: Exception) -> None:
        with pytest.raises(type(error)) as caught, paths.clear_errors("/x"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("write", [paths.write_atomic, paths.create_exclusive])
def test_a_place_without_folders_is_said(write: Callable[[str, bytes], object]) -> None:
    with pytest.raises(RunError, match="no folder can be made here") as caught:
        write("/proc/nowhere/file", b"x")
    assert caught.value.remedy == "choose another path"
