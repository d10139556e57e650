import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from longctx.order.repo import NO_PATH, WALK, depth_first, looks_like_path, repository_tours


def walked(paths: list[str]) -> list[str]:
    return [paths[i] for i in depth_first(paths)]


def test_files_stand_before_subdirectories():
    paths = ["a/x.py", "a/b/y.py", "a/a.py", "c.py"]
    assert walked(paths) == ["c.py", "a/a.py", "a/x.py", "a/b/y.py"]


def test_a_directory_is_finished_before_the_next_one_begins():
    paths = ["b/x", "a/z/q", "a-b/x", "a/b/c/d", "a/b/x", "z", "a/y"]
    # By whole strings a-b/x would stand inside a/.
    assert walked(paths) == ["z", "a/y", "a/b/x", "a/b/c/d", "a/z/q", "a-b/x", "b/x"]


def test_names_are_compared_by_code_point_and_written_forms_do_not_count():
    assert walked(["./b", "/A", "ä", "a//c", "a/b", "a\\d"]) == [
        "/A",
        "./b",
        "ä",
        "a/b",
        "a//c",
        "a\\d",
    ]


def test_equal_paths_stay_in_the_order_given():
    np.testing.assert_array_equal(depth_first(["b", "a", "b", "a"]), [1, 3, 0, 2])
    assert depth_first([]).tolist() == []


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), max_size=30))
def test_every_subtree_is_one_run(parts):
    paths = ["/".join(p) for p in parts]
    order = depth_first(paths)
    assert sorted(order) == list(range(len(paths)))
    for depth in (1, 2, 3):
        inside = [tuple(parts[i][:depth]) if len(parts[i]) > depth else None for i in order]
        runs = [d for d, before in zip(inside, [None, *inside], strict=False) if d != before]
        named = [d for d in runs if d is not None]
        assert len(named) == len(set(named))


def test_an_id_is_a_path_when_it_names_a_directory():
    assert looks_like_path("django/db/models.py")
    assert looks_like_path("https://example.org/a")
    assert not looks_like_path("law-zh:8d8cb109c1a1")
    assert not looks_like_path("/README")


def test_each_tree_is_a_tour_and_documents_without_a_path_follow_theirs():
    trees = ["two", "one", "two", "one", "one", "two", "three"]
    paths = ["b", "x/y", None, "a", None, "a", None]
    priority = np.array([0, 0, 9, 0, 3, 0, 1], dtype=np.uint64)
    order, starts, link = repository_tours(trees, paths, priority)
    tours = [t.tolist() for t in np.split(order, starts[1:])]
    assert tours == [[3, 1], [4], [6], [5, 0], [2]]
    assert link == [WALK, WALK, NO_PATH, NO_PATH, WALK, WALK, NO_PATH]


def test_documents_without_a_path_are_in_order_of_priority():
    priority = np.array([3, 1, 2, 1], dtype=np.uint64)
    order, starts, _ = repository_tours(["t"] * 4, [None] * 4, priority)
    assert order.tolist() == [1, 3, 2, 0]
    assert starts.tolist() == [0]
    empty, none, link = repository_tours([], [], priority[:0])
    assert (len(empty), len(none), link) == (0, 0, [])
