"""Lines through measured points, and the coefficients of a step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.cost.fit import Line, Seen, coefficients, growing, line
from longctx.cost.laws import LAWS, Size


def seen(docs: float, **taken: float | str) -> Seen:
    usual: dict[str, float | str] = {
        "place": "part",
        "units": 4,
        "cpu": 0.0,
        "stored": 0.0,
        "received": 0.0,
        "peak": 0.0,
        "grown": 0.0,
        "unit_bytes": docs,
    }
    return Seen(size=Size(docs, docs / 256, 8), **{**usual, **taken})  # type: ignore[arg-type]


def test_two_points_are_met_exactly() -> None:
    assert line([(1, 4), (2, 8), (4, 16)]) == Line(0, 4)
    assert line([(2, 1), (4, 2)]) == Line(0, 0.5)


@settings(derandomize=True, deadline=None)
@given(
    st.floats(0, 1000),
    st.floats(0.001, 1000),
    st.lists(st.integers(1, 10**9), min_size=2, max_size=5, unique=True),
)
def test_points_of_a_line_give_that_line(at: float, slope: float, xs: list[int]) -> None:
    found = line([(x, at + slope * x) for x in xs])
    for x in xs:
        assert found.at + found.slope * x == pytest.approx(at + slope * x, rel=1e-6)


def test_what_does_not_grow_is_constant_and_what_began_below_zero_begins_at_zero() -> None:
    assert line([(1, 8), (2, 8)]) == Line(8, 0)
    assert line([(1, 8), (2, 4)]).slope == 0
    falling = line([(1, 1), (2, 4)])
    assert falling.at == 0
    assert 1 < falling.slope < 2


def test_what_must_grow_does_so_in_proportion_where_noise_hid_it() -> None:
    assert growing([(1, 8), (4, 2)]) == Line(0, 0.5)
    assert growing([(2, 4), (4, 8)]) == Line(0, 2)
    assert growing([(1, 0), (2, 0)]) == Line(0, 0)


def test_a_single_point_is_a_line_through_the_origin_and_zeros_are_nothing() -> None:
    assert line([(4, 2)]) == Line(0, 0.5)
    assert line([(4, 0), (8, 0)]) == Line(0, 0)
    with pytest.raises(ValueError, match="at least one point"):
        line([])


def test_a_small_run_has_as_much_to_say_as_a_large_one() -> None:
    # Through the origin: 1 second a document at both ends and 2 in the middle, whatever the size.
    assert line([(1, 1), (2**20, 2**20)]) == Line(0, 1)


def test_time_follows_the_law_of_its_step_and_bytes_that_of_its_volume() -> None:
    text = [seen(256 * mb, cpu=2.0 * mb, stored=64.0 * 256 * mb) for mb in (1, 4)]
    found = coefficients("dedup.minhash", "signatures", text)
    assert (found.law, found.cpu, found.fixed) == ("text", 2, 0)
    assert (found.volume, found.stored) == ("documents", 64)
    squared = [seen(n, cpu=0.25 * n * n) for n in (4, 16)]
    assert coefficients("order.path", "neighbours", squared).cpu == 0.25
    roots = [seen(n, cpu=0.5 * n * n**0.5) for n in (4, 16)]
    assert coefficients("order.path", "candidates in cells", roots).cpu == 0.5


def test_one_place_holds_bytes_for_each_document_beside_the_process() -> None:
    alone = [
        seen(n, place="one", grown=2.0**20 + 104 * n, peak=2.0**28 + 2.0**20 + 104 * n)
        for n in (2**12, 2**14)
    ]
    found = coefficients("order.path", "tours", alone)
    assert found.held == pytest.approx(104)
    assert found.worker == pytest.approx(2**28 + 2**20)
    assert found.per_byte == 0


def test_a_worker_holds_bytes_for_each_byte_of_its_unit_whatever_the_documents() -> None:
    parts = [
        seen(10**6 * i, unit_bytes=b, grown=3.0 * b, peak=2.0**28 + 3.0 * b)
        for i, b in ((1, 2.0**20), (2, 2.0**24))
    ]
    found = coefficients("score.heuristics", "", parts)
    assert (found.held, found.worker, found.per_byte) == (0, 2**28, 3)


def test_json_is_short_and_whole() -> None:
    found = coefficients("x", "y", [seen(3, cpu=1.0)])
    assert found.to_json()["cpu"] == 0.3333
    assert type(found)(**found.to_json()).law == "documents"


def test_laws_are_what_their_names_say() -> None:
    size = Size(docs=2**10, mb=7, clusters=2)
    assert {name: law(size) for name, law in LAWS.items()} == {
        "nothing": 1,
        "documents": 2**10,
        "text": 7,
        "documents x log documents": 10 * 2**10,
        "documents x sqrt documents": 2**15,
        "documents squared": 2**20,
        "documents x clusters": 2**11,
        "sample": 2**9,
        "sample x clusters": 2**10,
        "documents squared / clusters": 2**19,
    }


def test_what_has_no_text_costs_a_constant() -> None:
    assert line([(0.0, 3.0), (0.0, 3.0)]) == Line(3.0, 0.0)
    assert growing([(0.0, 0.0), (0.0, 2.0)]).slope == 0
