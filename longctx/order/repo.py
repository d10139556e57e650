"""The order of a repository's files: a depth-first walk of its directory tree.

The third retriever of SPLICE (arXiv 2312.17296, after the repository-level data of code models): no
search, files stand next to each other because they lie next to each other. In each directory first
its files by name, then its subdirectories by name.

What we changed: names are compared by code point, whatever the locale, and documents that have no
path are not left out. Cost: one sort of the paths.
"""

import re
from collections.abc import Sequence

import numpy as np

from longctx.cluster.similarity import I64
from longctx.ids import U64

WALK, NO_PATH = "walk", "no_path"

_SEPARATOR = re.compile(r"[/\\]")


def looks_like_path(name: str) -> bool:
    """Whether an id can stand for a path: it names a directory."""
    return len(_components(name)) > 1


def depth_first(paths: Sequence[str]) -> I64:
    """Positions int64[n] of the paths in the order of the walk; equal paths in the order given.

    Both / and \\ separate; empty components and "." do not count, so "./a/b", "a//b" and "/a/b" are
    one path.
    """
    # A file sorts before every directory beside it, whatever their names.
    keys = [
        [(depth < len(parts), part) for depth, part in enumerate(parts, start=1)]
        for parts in map(_components, paths)
    ]
    return np.array(sorted(range(len(paths)), key=keys.__getitem__), dtype=np.int64)


def repository_tours(
    trees: Sequence[str], paths: Sequence[str | None], priority: U64
) -> tuple[I64, I64, list[str]]:
    """One tour for each tree, trees by name; then its documents without a path, by priority.

    `trees` names the tree of each document, `paths` its place there or None, `priority` uint64[n].
    Returns the order int64[n], the places int64[tours] at which tours start, and for each place
    WALK or NO_PATH. The documents of a tree that have no path are a tour of their own.
    """
    members: dict[tuple[str, bool], list[int]] = {}
    for i, (tree, path) in enumerate(zip(trees, paths, strict=True)):
        members.setdefault((tree, path is None), []).append(i)
    order: list[int] = []
    starts: list[int] = []
    link: list[str] = []
    for (_, lost), found in sorted(members.items()):
        numbers = np.array(found, dtype=np.int64)
        inside = (
            np.argsort(priority[numbers], kind="stable")
            if lost
            else depth_first([paths[i] or "" for i in found])
        )
        starts.append(len(order))
        order += numbers[inside].tolist()
        link += [NO_PATH if lost else WALK] * len(found)
    return np.array(order, dtype=np.int64), np.array(starts, dtype=np.int64), link


def _components(path: str) -> list[str]:
    return [part for part in _SEPARATOR.split(path) if part not in ("", ".")]
