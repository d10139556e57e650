from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.dedup import exact
from longctx.dedup.exact import choose_exact, exact_key, paragraph_keys, paragraph_share
from longctx.errors import RunError
from longctx.ids import h128
from longctx.text.normalise import norm_dedup, norm_exact, pieces

COMPOSED = "Caf\u00e9  au\tlait\r\n"
DECOMPOSED = "Cafe\u0301 au lait"


def test_keys_of_the_specification():
    assert exact_key(COMPOSED) == ("10e57d34c453d51162dbbdbcb87d8ef1", 12)
    assert exact_key(DECOMPOSED) == exact_key(COMPOSED)
    assert exact_key(COMPOSED, "raw") == ("9ca46a79c93109d336de1576212ef6fe", len(COMPOSED))


def test_norm_dedup_ignores_case_and_punctuation():
    assert exact_key("The Cat, 7", "dedup") == exact_key("the cat 12.5!", "dedup")
    assert exact_key("The Cat, 7", "dedup", "code") != exact_key("the cat 12.5!", "dedup", "code")


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match="'nfkc'"):
        exact_key("a", "nfkc")  # type: ignore[arg-type]


@given(st.text("aB1,\u0301é \n\u2000.", max_size=40), st.integers(1, 5))
def test_keys_in_pieces_are_those_of_the_whole_text(text: str, size: int):
    whole = {"raw": text, "exact": norm_exact(text), "dedup": norm_dedup(text)}
    with mock.patch.object(exact, "pieces", lambda t: pieces(t, size)):
        found = {norm: exact_key(text, norm) for norm in whole}
    assert found == {norm: (h128(form.encode()), len(form)) for norm, form in whole.items()}


def test_the_highest_quality_survives_then_the_smallest_id():
    count, kept = choose_exact("aabaa", "43210", [None, 0.5, 9.0, 0.5, None])
    assert count.tolist() == [4, 4, 1, 4, 4]
    assert kept.tolist() == [3, 3, 2, 3, 3]


def test_without_quality_the_smallest_id_survives():
    assert choose_exact(["k"] * 3, ["b", "a", "c"])[1].tolist() == [1, 1, 1]


def test_scopes_keep_copies_apart():
    count, kept = choose_exact(["k"] * 3, ["a", "b", "c"], scopes=["x", "y", "x"])
    assert count.tolist() == [2, 1, 2]
    assert kept.tolist() == [0, 1, 0]


def test_empty_texts_are_nobodys_copies():
    key, length = exact_key(" \n")
    assert length == 0
    count, kept = choose_exact([key, key], ["a", "b"], lengths=[0, 0])
    assert count.tolist() == [1, 1]
    assert kept.tolist() == [0, 1]


def test_unequal_lengths_under_one_key_raise():
    with pytest.raises(RunError, match="collision"):
        choose_exact(["k", "k"], ["a", "b"], lengths=[3, 4])


@given(st.lists(st.sampled_from("abc"), max_size=30), st.randoms(use_true_random=False))
def test_one_survivor_per_key_whatever_the_order(keys: list[str], random):
    ids = [f"{i:02}" for i in range(len(keys))]
    _, kept = choose_exact(keys, ids)
    assert np.sum(kept == np.arange(len(keys))) == len(set(keys))
    rows = list(zip(keys, ids, strict=True))
    random.shuffle(rows)
    _, again = choose_exact([k for k, _ in rows], [i for _, i in rows])
    by_id = {rows[i][1]: rows[j][1] for i, j in enumerate(again)}
    assert by_id == {ids[i]: ids[j] for i, j in enumerate(kept)}


def test_share_of_paragraphs_seen_elsewhere():
    shared, own, short = "s" * 300, "o" * 200, "t" * 199
    docs = [f"{shared}\n \n{own}", f"{short}\n\n{shared}", f"{own[:-1]}p\n\n{own[:-1]}p", ""]
    rows = [(i, *row) for i, doc in enumerate(docs) for row in paragraph_keys(doc)]
    doc, keys, chars = (list(column) for column in zip(*rows, strict=True))
    lengths = np.array([len(d) for d in docs])
    share = paragraph_share(np.array(doc), keys, np.array(chars), lengths)
    assert share == pytest.approx([300 / 503, 300 / 501, 0.0, 0.0])
