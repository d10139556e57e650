"""SPLICE (arXiv 2312.17296): each training example is a tree of retrieved documents.

An example starts at the unused document of smallest priority and grows breadth first: the oldest
document of the example that has not been asked yet brings its nearest documents, each document of
the corpus is used once, and the example ends as soon as it holds `length` tokens.

What we changed: the paper retrieves from the whole index and skips what is used (`pool="index"`),
so that with one branch most examples end at once, because the nearest document is taken or is the
parent itself; by default the nearest *unused* documents of a longer list are taken. An example that
can retrieve nothing more goes on from the next root (`on_empty="restart"`) and is not left short
(`"emit_short"`). A shuffled example is sorted by the priority mixed once more: by the priority
itself the root, which had the smallest of all unused, would always stand first. The paper trims an
example to the context; here the packer cuts (`cross_tours: false, fill_policy: crop,
long_documents: truncate` does as the paper).

Cost: linear in the entries of the lists that are looked at, 26 bytes a document. Lost: the last
document reaches beyond the context by about half its length, and late examples consist of what is
left: their documents come by restarts (`link`), which is a random order.
"""

from typing import Literal

import numba
import numpy as np
import numpy.typing as npt

from longctx.cluster.similarity import I32, I64, frozen
from longctx.ids import U64, mix64

Pool = Literal["index", "unused"]
OnEmpty = Literal["restart", "emit_short"]
Inside = Literal["identity", "reverse", "shuffle"]
I8 = npt.NDArray[np.int8]

# How a document came into its example, as `link` says it; the kernel writes the positions.
LINKS = ("root", "retrieved", "restart")
_ROOT, _RETRIEVED, _RESTART = range(3)


@numba.njit(cache=True, nogil=True)
def _grow(  # type: ignore[no-untyped-def]
    roots, lists, branches, whole_list, restart, tokens, length, order, starts, how
):
    """Fill `order`, `starts` and `how`; returns the number of examples.

    The queue of an example is its own tail: whatever is appended is also asked, in that order.
    """
    used = np.zeros(roots.shape[0], dtype=np.bool_)
    at = asked = root = examples = 0
    held = length
    while at < roots.shape[0]:
        full = held >= length
        if full or asked == at:  # nobody left to ask: the next root
            while used[roots[root]]:
                root += 1
            begins = full or not restart
            if begins:
                starts[examples] = asked = at
                examples += 1
                held = 0
            here = roots[root]
            used[here] = True
            order[at], how[at] = here, _ROOT if begins else _RESTART
            held += tokens[here]
            at += 1
            continue
        here, taken = order[asked], 0
        asked += 1
        for j in lists[here, : lists.shape[1] if whole_list else branches]:
            if taken == branches or held >= length:
                break
            if j >= 0 and not used[j]:
                used[j] = True
                order[at], how[at] = j, _RETRIEVED
                held += tokens[j]
                at += 1
                taken += 1
    return examples


def splice_tours(
    lists: I32,
    tokens: I64,
    length: int,
    branches: int = 1,
    *,
    priority: U64 | None = None,
    pool: Pool = "unused",
    on_empty: OnEmpty = "restart",
    order: Inside = "identity",
) -> tuple[I64, I64, I8]:
    """All documents in examples of at least `length` tokens, each document once.

    `lists` int32[n, w] what each document retrieves, best first, -1 where there is no more;
    `tokens` int64[n]; `branches` documents are retrieved by each. `priority` uint64[n] chooses the
    roots (default: the number itself; ties go to the smaller number). pool="unused" looks through
    the whole list for unused documents, "index" through its first `branches` entries.

    Returns the order int64[n], the places int64[examples] at which examples start, and for each
    place the position in LINKS of how its document came, int8[n].
    """
    n = len(lists)
    ties = np.arange(n, dtype=np.uint64) if priority is None else priority
    placed, starts = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    how = np.empty(n, dtype=np.int8)
    examples = _grow(
        frozen(np.argsort(ties, kind="stable")),
        frozen(lists),
        branches,
        pool == "unused",
        on_empty == "restart",
        frozen(tokens),
        length,
        placed,
        starts,
        how,
    )
    starts = starts[:examples]
    if order != "identity":
        example = np.repeat(np.arange(examples), np.diff(np.append(starts, n)))
        inside = -np.arange(n) if order == "reverse" else mix64(ties)[placed]
        again = np.lexsort((placed, inside, example))
        placed, how = placed[again], how[again]
    return placed, starts, how


def among(lists: I32, members: I64) -> I32:
    """The lists of `members` under their numbers there; what is not a member is taken out.

    `lists` int32[n, w] with -1 where there is no more; `members` int64[m], ascending. int32[m, w].
    """
    position = np.full(len(lists) + 1, -1, dtype=np.int32)
    position[members] = np.arange(len(members), dtype=np.int32)
    left = position[lists[members]]  # -1 reads the extra last entry
    first = np.argsort(left < 0, axis=1, kind="stable")
    return np.take_along_axis(left, first, axis=1)
