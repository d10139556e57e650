"""Commits: a unit is finished or it is not, whatever a crash left behind."""

import json
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.engine import commit
from longctx.engine.commit import Commit, FileRef, fingerprint, is_valid
from longctx.io import paths

FILE = FileRef("stages/01-x/part.parquet", 3, "abc", 7)
DONE = Commit("part", "f1", (FILE,), {"rows_in": 7})


@pytest.fixture(params=["local", "memory"])
def run_dir(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def folder(run_dir: str) -> str:
    return paths.join(run_dir, "stages", "01-x")


def test_what_is_written_is_loaded(folder: str) -> None:
    assert commit.load(folder) == {}
    other = Commit("other", "f2", ())
    commit.write(folder, DONE)
    commit.write(folder, other)
    assert commit.load(folder) == {"part": DONE, "other": other}


def test_revoked_commit_is_gone(folder: str) -> None:
    commit.write(folder, DONE)
    commit.revoke(folder, "part")
    commit.revoke(folder, "part")
    assert commit.load(folder) == {}


def test_manifest_stands_for_all_commits_until_the_step_is_reopened(folder: str) -> None:
    commit.write(folder, DONE)
    listed = Commit("listed", "f3", (FILE,))
    commit.finish(folder, [listed])
    assert commit.load(folder) == {"listed": listed}
    commit.reopen(folder)
    assert commit.load(folder) == {"part": DONE}


@pytest.mark.parametrize("left", [b"", b'{"unit": "par', b"[]", b"3", b'{"unit": "part"}'])
def test_commit_that_cannot_be_understood_is_none(folder: str, left: bytes) -> None:
    commit.write(folder, DONE)
    paths.write_atomic(paths.join(folder, "broken.commit.json"), left)
    assert commit.load(folder) == {"part": DONE}


@pytest.mark.parametrize("left", [b"", b'{"commits": [', b"[]", b'{"commits": [{"unit": 3}]}'])
def test_manifest_that_cannot_be_understood_is_none(folder: str, left: bytes) -> None:
    commit.write(folder, DONE)
    paths.write_atomic(paths.join(folder, "manifest.json"), left)
    assert commit.load(folder) == {"part": DONE}


def test_temporary_file_of_a_killed_writer_is_no_commit(folder: str) -> None:
    whole = json.dumps(DONE.to_json()).encode()
    for content in (whole, whole[:10]):
        paths.write_atomic(paths.join(folder, f".tmp-{len(content)}-part.commit.json"), content)
    assert commit.load(folder) == {}


def test_file_of_a_newer_version_is_done_again(folder: str) -> None:
    newer = {**DONE.to_json(), "files": [{**vars(FILE), "colour": "red"}]}
    paths.write_atomic(paths.join(folder, "part.commit.json"), json.dumps(newer).encode())
    assert commit.load(folder) == {}


@pytest.mark.parametrize("slash", ["", "/"])
def test_sizes_are_named_like_the_files_of_commits(run_dir: str, folder: str, slash: str) -> None:
    paths.write_atomic(paths.join(run_dir, FILE.name), b"123")
    paths.write_atomic(paths.join(folder, "step", "x.parquet"), b"1")
    assert commit.sizes(run_dir + slash, folder) == {
        "stages/01-x/part.parquet": 3,
        "stages/01-x/step/x.parquet": 1,
    }


@pytest.mark.parametrize(
    ("present", "expected", "valid"),
    [
        ({FILE.name: 3}, "f1", True),
        ({FILE.name: 3, "more": 1}, "f1", True),
        ({FILE.name: 2}, "f1", False),
        ({}, "f1", False),
        ({FILE.name: 3}, "f2", False),
    ],
)
def test_commit_is_trusted_only_whole_and_for_its_fingerprint(
    present: dict[str, int], expected: str, valid: bool
) -> None:
    assert is_valid(DONE, expected, present) is valid


def test_no_commit_is_never_valid() -> None:
    assert not is_valid(None, "f1", {FILE.name: 3})


def test_digest_follows_the_content_of_the_files_only() -> None:
    assert Commit("a", "f", (FILE,)).digest == Commit("b", "g", (FILE,), {"x": 1}).digest
    changed = FileRef(FILE.name, FILE.size, "other", FILE.rows)
    assert Commit("a", "f", (changed,)).digest != DONE.digest


NAMES = st.text(min_size=1)
COMMITS = st.builds(
    Commit,
    NAMES,
    NAMES,
    st.lists(st.builds(FileRef, NAMES, st.integers(0), NAMES, st.integers(0))).map(tuple),
    st.dictionaries(NAMES, st.integers() | st.none() | st.lists(st.integers())),
)


@settings(derandomize=True, deadline=None)
@given(COMMITS)
def test_json_and_back_is_the_same(done: Commit) -> None:
    assert Commit.from_json(json.loads(json.dumps(done.to_json()))) == done


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(st.text(), st.integers(), min_size=1))
def test_fingerprint_knows_content_not_order(content: dict[str, int]) -> None:
    assert fingerprint(content) == fingerprint(dict(reversed(content.items())))
    name = next(iter(content))
    assert fingerprint({**content, name: content[name] + 1}) != fingerprint(content)
