"""Scores made of columns: the specification's examples, nulls, and parts that know their group."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from longctx.filter.cut import percent_rank, zscore
from longctx.filter.derived import (
    CLASSES,
    DERIVED,
    classes_of,
    derive,
    hmg_of_each,
    spread_of,
    wanjuan,
)

NAN = math.nan
steady = settings(derandomize=True, deadline=None)
ATTENTION = {"la_ds": [0.30, 0.40, 0.50], "la_var": [1e-6, 3e-6, 2e-6]}
GATEAU = {
    "ga_nll_a": np.array([3, 2, 2.5, 4]),
    "ga_nll_b": np.array([1, 1.5, 2.5, 2]),
    "ga_hmg": np.array([2, 0.5, 0, 2]),
    "ga_cas": np.array([0.9, 0.5, 0.7, 0.6]),
}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("longfilter", "lf_score"),
        ("delta_ppl", "dnll_mean"),
        ("longppl", "lp_key_share"),
        ("prolong", "pl_lds_per_pair"),
        ("ladm", "ld_cds"),
    ],
)
def test_some_are_a_column_by_the_name_of_its_method(name, column):
    assert_allclose(derive(name, {column: [1, NAN, math.inf, -2]}), [1, NAN, NAN, -2])


def test_longattn_as_in_the_specification():
    assert_allclose(derive("longattn", ATTENTION, alpha=0.5), [-0.5, -0.5, 1.0])
    assert_allclose(derive("longattn_released", ATTENTION), [0, 0, 0.75], atol=1e-12)
    assert_allclose(derive("longattn", ATTENTION, alpha=0), [-1, 0, 1])


def test_a_part_that_knows_its_group_scores_as_the_group_does():
    for name in ("longattn", "longattn_released"):
        known = {n: spread_of(x) for n, x in ATTENTION.items()}
        whole = derive(name, ATTENTION)
        one_by_one = [
            derive(name, {n: [x[i]] for n, x in ATTENTION.items()}, known)[0] for i in range(3)
        ]
        assert one_by_one == whole.tolist()


def test_gateau_as_in_the_specification():
    assert_allclose(zscore(GATEAU["ga_hmg"]), [0.848875, -0.606339, -1.091410, 0.848875], atol=1e-6)
    score = derive("gateau", GATEAU)
    assert_allclose(score, [0.942593, -0.690010, -0.843851, 0.591269], atol=1e-6)
    assert np.argsort(-score).tolist() == [0, 3, 1, 2]
    assert_allclose(hmg_of_each(GATEAU), [1.308280, -0.637397, -1.601050, 0.930167], atol=1e-6)
    assert derive("gateau", GATEAU, norm="released").argmax() == 3


def test_gateau_alone_is_one_of_its_parts():
    for alpha, part in ((1, "ga_hmg"), (0, "ga_cas")):
        assert np.corrcoef(derive("gateau", GATEAU, alpha=alpha), GATEAU[part])[0, 1] == (
            pytest.approx(1)
        )
    without = {**GATEAU, "ga_cas": np.full(4, NAN)}
    assert_allclose(derive("gateau", without, alpha=1), zscore(GATEAU["ga_hmg"]))
    assert np.isnan(derive("gateau", without)).all()


def test_other_norms_of_gateau():
    ranks = derive("gateau", GATEAU, norm="rank", alpha=0.5)
    assert_allclose(ranks, (percent_rank(GATEAU["ga_hmg"]) + percent_rank(GATEAU["ga_cas"])) / 2)
    each = derive("gateau", GATEAU, hmg="z_each", alpha=1)
    assert_allclose(each, zscore(hmg_of_each(GATEAU)))
    assert each.std(ddof=1) == pytest.approx(1)
    soft = derive("gateau", GATEAU, norm="paper_softmax", alpha=0.8)
    assert soft.sum() == pytest.approx(1)
    released = derive("gateau", GATEAU, norm="released", alpha=0)
    assert_allclose(released, GATEAU["ga_cas"])


def test_softmax_gives_hmg_no_say_beside_a_cosine_of_many_samples():
    # The scale mismatch that makes z-scores the default.
    rng = np.random.default_rng(0)
    many = {n: rng.random(9888) for n in ("ga_nll_a", "ga_nll_b", "ga_cas")}
    soft = derive("gateau", many, norm="released", alpha=1)
    assert soft.max() < 7.5e-4


@steady
@given(st.permutations(range(8)), st.sampled_from(["z", "rank", "paper_softmax", "released"]))
def test_no_bit_depends_on_the_order_of_rows(order, norm):
    rng = np.random.default_rng(1)
    columns = {n: rng.random(8) for n in GATEAU}
    whole = derive("gateau", columns, norm=norm)
    mixed = derive("gateau", {n: x[list(order)] for n, x in columns.items()}, norm=norm)
    assert mixed.tolist() == whole[list(order)].tolist()


@pytest.mark.parametrize(
    ("ranks", "name"),
    [
        ((0.5, 0.5, 0.5), "holistic"),
        ((0.03, 0.02, 0.99), "chaotic"),
        ((0.03, 0.02, 0.01), "chaotic"),
        ((0.03, 0.02, 0.5), "aggregated"),
        ((0.03, 0.5, 0.99), "aggregated"),
        ((0.07, 0.5, 0.5), "aggregated"),
        ((0.5, 0.5, 0.99), "aggregated"),
        ((0.5, NAN, 0.5), None),
        ((NAN, 0.5, 0.99), None),
    ],
)
def test_classes_of_wanjuan_as_in_the_specification(ranks, name):
    C, H, X = (np.array([r]) for r in ranks)
    assert classes_of(C, H, X, DERIVED["wanjuan"].options).tolist() == [name]


def texts(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = ("lw_acc_long", "lw_acc_diff", "lw_pron_rate", "lw_conn_rate", "lw_ttr_win")
    return {name: rng.random(n) for name in names}


def test_ranks_of_wanjuan_and_the_weights_of_its_classes():
    columns = texts(500)
    found = wanjuan(columns)
    mean = (percent_rank(columns["lw_acc_long"]) + percent_rank(columns["lw_acc_diff"])) / 2
    assert_allclose(found.C, percent_rank(mean))
    assert_allclose(found.X, percent_rank(columns["lw_ttr_win"]))
    assert set(found.name) <= set(CLASSES)
    weights = {"holistic": 1, "aggregated": 2, "chaotic": 0}
    assert [weights[n] for n in found.name] == found.weight.tolist()


def test_ranks_of_wanjuan_by_hand():
    columns = {
        "lw_acc_long": [0.1, 0.9, 0.5],
        "lw_acc_diff": [0.1, 0.9, 0.5],
        "lw_pron_rate": [0.1, 0.1, 0.1],
        "lw_conn_rate": [0.3, 0.2, 0.1],
        "lw_ttr_win": [3.0, 2.0, 1.0],
    }
    found = wanjuan(columns)
    assert [x.tolist() for x in found[:3]] == [[0, 1, 0.5], [1, 0.5, 0], [1, 0.5, 0]]
    assert wanjuan({**columns, "lw_dmr": [0.1, 0.2, 0.3]}).H.tolist() == [0.5, 0.5, 0.5]


def test_planted_classes_are_found():
    # Books in the middle of all scales, fragments that hang together badly, random characters.
    rng = np.random.default_rng(2)
    n = 300
    kind = np.repeat([0, 1, 2], [n - 40, 32, 8])
    level = np.array([0.6, 0.25, 0.02])[kind]
    columns = {name: level + 0.02 * rng.random(n) for name in texts(1)}
    columns["lw_ttr_win"] = np.where(kind == 2, 0.99, 0.5) + 0.01 * rng.random(n)
    found = wanjuan(columns, p_lo=0.03, p_hi=0.12, x_hi=0.97)
    means = [found.C[kind == k].mean() for k in range(3)]
    assert means == sorted(means, reverse=True)
    assert set(found.name[kind == 2]) == {"chaotic"}
    assert set(found.name[kind == 1]) == {"aggregated"}
    assert (found.name[kind == 0] == "holistic").mean() > 0.9


def test_discourse_markers_count_where_a_row_has_them():
    columns = texts(6)
    plain = wanjuan(columns)
    dmr = np.array([NAN, NAN, NAN, NAN, NAN, NAN])
    assert wanjuan({**columns, "lw_dmr": dmr}).H.tolist() == plain.H.tolist()
    some = np.array([0.9, NAN, 0.1, NAN, 0.5, 0.4])
    assert not np.isnan(wanjuan({**columns, "lw_dmr": some}).H).any()


def test_a_null_of_any_part_leaves_no_class():
    columns = texts(6)
    columns["lw_conn_rate"][2] = NAN
    found = wanjuan(columns)
    assert [n is None for n in found.name] == [i == 2 for i in range(6)]
    assert math.isnan(found.weight[2])


def test_a_name_or_a_column_that_is_not_there():
    with pytest.raises(KeyError, match="longfiltr"):
        derive("longfiltr", {})
    with pytest.raises(KeyError, match="la_var"):
        derive("longattn", {"la_ds": [1.0]})
