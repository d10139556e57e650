"""Spans of framed documents: what slicing each framed document gives."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.pack.spans import cut


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12), st.integers(0, 12)), max_size=8),
    st.lists(st.integers(90, 99), max_size=2),
    st.lists(st.integers(80, 89), max_size=2),
)
@settings(deadline=None)
def test_spans_are_slices_of_framed_documents(spans, prefix, separator):
    sizes = np.array([size for size, _, _ in spans], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tokens = np.arange(first[-1], dtype=np.int32)
    framed = [
        [*prefix, *tokens[a : a + n].tolist(), *separator]
        for a, n in zip(first[:-1], sizes, strict=True)
    ]
    bounds = [
        sorted((min(a, len(document)), min(b, len(document))))
        for (_, a, b), document in zip(spans, framed, strict=True)
    ]
    start, end = np.array(bounds, dtype=np.int64).reshape(-1, 2).T
    found, at = cut(tokens, first[:-1], sizes, start, end, prefix, separator)
    assert found.dtype == np.int32
    expected = [document[a:b] for document, (a, b) in zip(framed, bounds, strict=True)]
    assert [found[a:b].tolist() for a, b in pairwise(at)] == expected
