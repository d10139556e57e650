"""Inputs: one canonical listing, however files are named, and groups that keep their names."""

import itertools
import os
import pickle
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.engine.inputs import Group, Listing, list_inputs
from longctx.errors import RecipeError
from longctx.recipe import Input

MB = 1 << 20


def fill(folder: Path, *names: str, size: int = 10) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)


def spec(path: Any, source: str | None = "s", **fields: Any) -> Input:
    path = [str(p) for p in path] if isinstance(path, list) else str(path)
    return Input(path=path, source=source, **fields)


def keys(listing: Listing) -> list[list[str]]:
    return [[f.key for f in g.files] for g in listing.groups]


def test_key_is_the_place_below_the_path_however_it_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "in/a.jsonl", "in/sub/b.jsonl")
    named = [tmp_path / "in", f"{tmp_path}/in/", f"{tmp_path}/in/**/*.jsonl", f"{tmp_path}/in/*"]
    for pattern in [*named, f"file://{tmp_path}/in"]:
        listing = list_inputs([spec(pattern)], MB)
        assert keys(listing) == [["a.jsonl", "sub/b.jsonl"]], pattern
    assert keys(list_inputs([spec(tmp_path / "in" / "sub" / "b.jsonl")], MB)) == [["b.jsonl"]]


@pytest.mark.parametrize("slashes", ["", "/"])
def test_keys_of_an_object_store_are_below_the_path(slashes: str) -> None:
    root = uuid.uuid4().hex
    fs = fsspec.filesystem("memory")
    for name in ("a/1.jsonl", "b/1.jsonl"):
        fs.pipe_file(f"/{root}/{name}", b"x")
    for pattern in (f"memory://{slashes}{root}", f"memory://{slashes}{root}/*/*.jsonl"):
        assert keys(list_inputs([spec(pattern)], MB)) == [["a/1.jsonl", "b/1.jsonl"]]


def test_moving_the_folder_changes_no_name(tmp_path: Path) -> None:
    fill(tmp_path, "here/a.jsonl", "there/a.jsonl")
    here, there = (list_inputs([spec(tmp_path / p)], MB).groups for p in ("here", "there"))
    assert [g.name for g in here] == [g.name for g in there]


def test_order_of_inputs_and_patterns_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, "x/a.jsonl", "x/b.jsonl", "y/c.jsonl", "z/d.parquet")
    x, y = spec([tmp_path / "x/b.jsonl", tmp_path / "x/a.jsonl"]), spec(tmp_path / "y", "other")
    z = spec(tmp_path / "z", None, source_field="origin")
    groups = list_inputs([x, y, z], MB).groups
    assert groups == list_inputs([z, y, x], MB).groups
    assert [[f.key for f in g.files] for g in groups] == [
        ["d.parquet"],
        ["c.jsonl"],
        ["a.jsonl", "b.jsonl"],
    ]


def test_each_group_has_one_input(tmp_path: Path) -> None:
    fill(tmp_path, "x/a.jsonl", "y/b.jsonl")
    listing = list_inputs([spec(tmp_path / "x"), spec(tmp_path / "y", text="body")], MB)
    assert [g.spec.text for g in listing.groups] == ["text", "body"]


@settings(derandomize=True, deadline=None)
@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=20), limit=st.integers(1, 500))
def test_groups_are_full_and_no_file_is_lost(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("in")
    for i, size in enumerate(sizes):
        fill(folder, f"{i:03d}.jsonl", size=size)
    groups = list_inputs([spec(folder)], limit).groups
    assert [f.key for g in groups for f in g.files] == [f"{i:03d}.jsonl" for i in range(len(sizes))]
    totals = [sum(f.text_bytes for f in g.files) for g in groups]
    for group, total in zip(groups, totals, strict=True):
        assert total <= limit or len(group.files) == 1
    for (left, after), total in zip(itertools.pairwise(groups), totals, strict=False):
        assert left.files
        assert total + after.files[0].text_bytes > limit
    assert len({g.name for g in groups}) == len(groups)


def test_compressed_files_count_as_the_text_they_hold(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl.gz", "b.jsonl.gz", "c.jsonl", "d.jsonl", size=100)
    assert keys(list_inputs([spec(tmp_path)], 450)) == [
        ["a.jsonl.gz"],
        ["b.jsonl.gz"],
        ["c.jsonl", "d.jsonl"],
    ]


def test_groups_of_one_source_and_key_do_not_share_a_name(tmp_path: Path) -> None:
    fill(tmp_path, "x/1.jsonl", "y/1.jsonl")
    x, y = (spec(tmp_path / p, id="id", text=p) for p in ("x", "y"))
    groups = list_inputs([x, y], MB).groups
    assert len({g.name for g in groups}) == 2
    assert groups == list_inputs([y, x], MB).groups


@pytest.mark.parametrize("source", [".tmp-x", "_x", "a/b c", "…", "日本", "x" * 300])
def test_group_name_is_a_visible_file_name(tmp_path: Path, source: str) -> None:
    fill(tmp_path, "a.jsonl")
    (group,) = list_inputs([spec(tmp_path, source)], MB).groups
    assert group.name[0].isalnum()
    assert "/" not in group.name
    assert len(group.name) < 80


class TestPassedOver:
    def test_unknown_formats_are_counted(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.jsonl", "b.pdf", "c.pdf", "README", "d.jsonl.bz2")
        listing = list_inputs([spec(tmp_path)], MB)
        assert keys(listing) == [["a.jsonl"]]
        assert listing.ignored == {
            "unknown format .pdf": 2,
            "no file ending": 1,
            "unknown format .jsonl.bz2": 1,
        }

    def test_declared_format_takes_all(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.pdf", "README")
        listing = list_inputs([spec(tmp_path, format="text")], MB)
        assert keys(listing) == [["README", "a.pdf"]]
        assert listing.ignored == {}

    def test_name_that_is_not_utf8(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.jsonl")
        (tmp_path / os.fsdecode(b"b\xff.jsonl")).write_bytes(b"x")
        listing = list_inputs([spec(tmp_path)], MB)
        assert keys(listing) == [["a.jsonl"]]
        assert listing.ignored == {"file name is not UTF-8": 1}

    def test_hidden_and_temporary_files_are_no_input(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.jsonl", ".b.jsonl", ".tmp-1-c.jsonl", "_SUCCESS", ".git/d.jsonl")
        listing = list_inputs([spec(tmp_path)], MB)
        assert (keys(listing), listing.ignored) == ([["a.jsonl"]], {})

    def test_many_files_are_listed_in_linear_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from longctx.io import paths

        compared = 0

        class Counted(paths.FileState):
            def __eq__(self, other: object) -> bool:
                nonlocal compared
                compared += 1
                return self is other

            __hash__ = None  # type: ignore[assignment]

        states = [Counted(f"/in/{i}.jsonl", 1, "", f"{i}.jsonl") for i in range(300)]
        monkeypatch.setattr(paths, "expand", lambda _: states)
        assert sum(len(g.files) for g in list_inputs([spec("/in")], MB).groups) == 300
        assert compared < 1000


class TestRefused:
    def refused(self, *inputs: Input) -> RecipeError:
        with pytest.raises(RecipeError) as caught:
            list_inputs(inputs, MB)
        assert caught.value.remedy
        return caught.value

    def test_path_that_matches_nothing(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.jsonl")
        error = self.refused(spec(tmp_path / "a.jsonl"), spec(f"{tmp_path}/*.parquet"))
        assert error.message == f"no file matches {tmp_path}/*.parquet"
        assert error.where == "input.1.path"

    def test_format_that_cannot_be_told(self, tmp_path: Path) -> None:
        fill(tmp_path, "README")
        error = self.refused(spec(tmp_path))
        assert error.message == f"cannot tell the format of {tmp_path}/README"
        assert error.where == "input.0.format"

    def test_file_named_by_two_inputs(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.jsonl")
        error = self.refused(spec(tmp_path), spec(tmp_path / "a.jsonl", "other"))
        assert error.message == f"{tmp_path}/a.jsonl is named by input 0 and again by input 1"

    def test_file_named_twice_by_one_input(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.jsonl")
        error = self.refused(spec([tmp_path, tmp_path / "a.jsonl"]))
        assert error.message == f"{tmp_path}/a.jsonl is named twice by input 0"

    def test_files_that_would_derive_the_same_ids(self, tmp_path: Path) -> None:
        fill(tmp_path, "x/1.jsonl", "y/1.jsonl")
        error = self.refused(spec(tmp_path / "x"), spec(tmp_path / "y"))
        assert "both are `1.jsonl` of source `s`" in error.message

    @pytest.mark.parametrize("fields", [{"source": "other"}, {"id": "id"}])
    def test_no_clash_with_another_source_or_with_ids(
        self, tmp_path: Path, fields: dict[str, Any]
    ) -> None:
        fill(tmp_path, "x/1.jsonl", "y/1.jsonl")
        for pair in ("xy", "yx"):
            inputs = [spec(tmp_path / pair[0]), spec(tmp_path / pair[1], **fields)]
            assert len(list_inputs(inputs, MB).groups) == 2

    def test_clash_is_found_between_other_files_of_that_name(self, tmp_path: Path) -> None:
        fill(tmp_path, "w/1.jsonl", "x/1.jsonl", "y/1.jsonl")
        self.refused(spec(tmp_path / "w"), spec(tmp_path / "x", id="id"), spec(tmp_path / "y"))


def test_a_group_is_small_and_picklable(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl")
    (group,) = list_inputs([spec(tmp_path)], MB).groups
    assert pickle.loads(pickle.dumps(group)) == group
    assert isinstance(group, Group)
