"""Local search on an open path: 2-opt and Or-opt moves along neighbour lists.

Classic tour improvement (Bentley 1992; neighbour lists and a work queue instead of don't-look
bits), applied to the path of `path.py`.

What we changed: a dummy node Z, similar to nothing, stands between the two ends, so the path is
improved as a path. Closing it into a cycle and cutting the weakest link is wrong: for similarities
of convex distances the best cycle is a zigzag whose best cut is far from the best path.

Every accepted move raises the sum of similarities by more than 1e-6, so the search ends; 0.17-0.25
moves a document were measured, +0.3-0.7 % adjacency over construction. Cost: about n·k·20 exact
similarities; 20 bytes a document beside lists and vectors. Lost: a local optimum, 98.0-99.5 % of
the Held-Karp bound; beyond 100,000 documents moves over more than 50,000 positions are not tried.
"""

from typing import Literal

import numba
import numpy as np

from longctx.cluster.similarity import F32, I32, I64, dot, frozen

Moves = Literal["2opt+oropt", "2opt"]

NEIGHBOURS = 10
MIN_GAIN = 1e-6
LONG_PATH = 100_000
LONGEST_MOVE = 50_000
LONGEST_SEGMENT = 3
# A link of Z to a fixed end must outweigh everything that one move can gain elsewhere (< 6).
FIXED_LINK = 8.0


@numba.njit(cache=True, nogil=True)
def _sim(X, fixed, i, j):  # type: ignore[no-untyped-def]
    """Similarity in the cycle; number n is Z, `fixed` holds the two ends it must keep, or -1."""
    n = X.shape[0]
    if i == n or j == n:
        other = j if i == n else i
        return FIXED_LINK if other == fixed[0] or other == fixed[1] else 0.0
    return np.float64(dot(X[i], X[j]))


@numba.njit(cache=True, nogil=True)
def _beside(tour, pos, i, step):  # type: ignore[no-untyped-def]
    """The node one step (+1 or -1) from node i on the cycle."""
    m = tour.shape[0]
    at = pos[i] + step
    if at == m:
        return tour[0]
    return tour[at] if at >= 0 else tour[m - 1]


@numba.njit(cache=True, nogil=True)
def _reverse(tour, pos, first, last, longest):  # type: ignore[no-untyped-def]
    """Reverse first..last (in direction next), or the rest of the cycle where that is shorter.

    Returns False, with nothing changed, if both are longer than `longest`.
    """
    m = tour.shape[0]
    i, j = pos[first], pos[last]
    inside = (j - i) % m + 1
    if 2 * inside > m:
        i, j = (j + 1) % m, (i - 1) % m
        inside = m - inside
    if inside > longest:
        return False
    for _ in range(inside // 2):
        tour[i], tour[j] = tour[j], tour[i]
        pos[tour[i]], pos[tour[j]] = i, j
        i = i + 1 if i + 1 < m else 0
        j = j - 1 if j > 0 else m - 1
    return True


@numba.njit(cache=True, nogil=True)
def _move(tour, pos, segment, length, flipped, p, q, x, longest):  # type: ignore[no-untyped-def]
    """Take the nodes between p and q out and put them after x, in the order of `segment`.

    q and what comes after x follow in direction next; `flipped` writes `segment` from its end.
    Shifts the nodes on the shorter way; returns False, with nothing changed, if that is longer
    than `longest`.
    """
    m = tour.shape[0]
    ahead = (pos[x] - pos[q]) % m + 1
    behind = m - length - ahead
    if min(ahead, behind) > longest:
        return False
    if ahead <= behind:
        to, step, shifts = (pos[p] + 1) % m, 1, ahead
    else:
        to, step, shifts = (pos[q] - 1) % m, -1, behind
    source = (to + step * length) % m
    for _ in range(shifts):
        tour[to] = tour[source]
        pos[tour[to]] = to
        to = (to + step) % m
        source = (source + step) % m
    for i in range(length):
        node = segment[i] if (step == 1) != flipped else segment[length - 1 - i]
        tour[to] = node
        pos[node] = to
        to = (to + step) % m
    return True


@numba.njit(cache=True, nogil=True)
def _two_opt(X, fixed, tour, pos, lists, sims, a, longest, touched):  # type: ignore[no-untyped-def]
    """Make the first improving 2-opt move at a; touched[:4] are its nodes. Returns success."""
    for step in (1, -1):
        b = _beside(tour, pos, a, step)
        s_ab = _sim(X, fixed, a, b)
        for at in range(lists.shape[1]):
            c = lists[a, at]
            if c < 0 or sims[a, at] <= s_ab + MIN_GAIN:
                break
            e = _beside(tour, pos, c, step)
            if c == b or e == a:
                continue
            gain = sims[a, at] - s_ab - _sim(X, fixed, c, e)
            if gain + _sim(X, fixed, b, e) <= MIN_GAIN:
                continue
            first, last = (b, c) if step == 1 else (c, b)
            if _reverse(tour, pos, first, last, longest):
                touched[0], touched[1], touched[2], touched[3] = a, b, c, e
                return True
    return False


@numba.njit(cache=True, nogil=True)
def _or_opt(X, fixed, tour, pos, lists, sims, a, longest, segment, touched):  # type: ignore[no-untyped-def]
    """Make the first improving move of a segment that ends in a; touched[:6] are its nodes."""
    m = tour.shape[0]
    for length in range(1, LONGEST_SEGMENT + 1):
        if length + 2 > m:
            break
        for step in (1, -1):  # the segment runs from a in this direction
            if length == 1 and step == -1:
                break
            for i in range(length):
                segment[i] = tour[(pos[a] + step * i) % m]
            z = segment[length - 1]
            near = _beside(tour, pos, a, -step)  # the outer neighbour of a
            far = _beside(tour, pos, z, step)
            removed = _sim(X, fixed, near, a) + _sim(X, fixed, z, far) - _sim(X, fixed, near, far)
            for at in range(lists.shape[1]):
                c = lists[a, at]
                if c < 0:
                    break
                if (step * (pos[c] - pos[a])) % m < length:
                    continue
                for side in (1, -1):
                    e = _beside(tour, pos, c, side)
                    if (step * (pos[e] - pos[a])) % m < length:
                        continue
                    gain = sims[a, at] - _sim(X, fixed, c, e) - removed
                    if gain + _sim(X, fixed, z, e) <= MIN_GAIN:
                        continue
                    # a touches c: in direction next the segment reads a..z after c, z..a before.
                    p, q = (near, far) if step == 1 else (far, near)
                    x = c if side == 1 else e
                    if _move(tour, pos, segment, length, side == -1, p, q, x, longest):
                        touched[0], touched[1], touched[2] = a, z, c
                        touched[3], touched[4], touched[5] = e, p, q
                        return True
    return False


@numba.njit(cache=True, nogil=True)
def _search(X, fixed, tour, lists, sims, or_opt, longest):  # type: ignore[no-untyped-def]
    """Improve the cycle in place until no queued node has a move; returns the number of moves."""
    m = tour.shape[0]
    pos = np.empty(m, dtype=np.int64)
    for i in range(m):
        pos[tour[i]] = i
    queue = tour.copy()
    queued = np.ones(m, dtype=np.bool_)
    front, waiting, moves = 0, m, 0
    touched = np.empty(6, dtype=np.int64)
    segment = np.empty(LONGEST_SEGMENT, dtype=np.int64)
    while waiting > 0:
        a = queue[front]
        front = (front + 1) % m
        waiting -= 1
        queued[a] = False
        if a == X.shape[0]:
            continue
        while True:
            nodes = 0
            if _two_opt(X, fixed, tour, pos, lists, sims, a, longest, touched):
                nodes = 4
            elif or_opt and _or_opt(X, fixed, tour, pos, lists, sims, a, longest, segment, touched):
                nodes = 6
            if nodes == 0:
                break
            moves += 1
            for i in range(nodes):
                node = touched[i]
                if not queued[node] and node != a:
                    queued[node] = True
                    queue[(front + waiting) % m] = node
                    waiting += 1
    return moves


def improve_path(
    X: F32,
    order: I64,
    lists: I32,
    sims: F32,
    K: int = NEIGHBOURS,
    *,
    moves: Moves = "2opt+oropt",
    fixed_ends: bool = False,
) -> I64:
    """A path of at least the adjacency of `order`; int64[n], from the end with the smaller number.

    X float32[n, d]; `order` a permutation of 0..n-1; `lists`, `sims` [n, >= K] the neighbour table,
    of which the first K are tried. With `fixed_ends` the first and the last document stay where
    they are (windows of a longer path) and the direction is kept.
    """
    n = len(order)
    if n < 3:
        return order.copy() if fixed_ends else _from_smaller_end(order)
    tour = np.append(order, n).astype(np.int64)
    fixed = np.array([order[0], order[-1]] if fixed_ends else [-1, -1], dtype=np.int64)
    near, near_sims = frozen(lists[:, :K]), frozen(sims[:, :K].astype(np.float64))
    longest = LONGEST_MOVE if n > LONG_PATH else n
    _search(frozen(X), fixed, tour, near, near_sims, moves == "2opt+oropt", longest)
    dummy = int(np.flatnonzero(tour == n)[0])
    path = np.concatenate([tour[dummy + 1 :], tour[:dummy]])
    if fixed_ends:
        return path if path[0] == order[0] else path[::-1].copy()
    return _from_smaller_end(path)


def _from_smaller_end(path: I64) -> I64:
    return path[::-1].copy() if len(path) and path[0] > path[-1] else path.copy()
