"""Quotas and units: bins and their shares, first documents by hash, slices that lose nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.synth.items import Quotas, bin_name, first_of_bins, language_of, units_of

LONG = Quotas(100, 8_192, 64_512, 8_192, {"en": 0.9, "zh": 0.1})


def test_longalign_has_seven_bins_of_8192() -> None:
    assert LONG.bins == 7
    assert LONG.bounds(0) == (8_192, 16_383)
    assert LONG.bounds(6) == (57_344, 64_512)
    assert [LONG.wanted()["en", at] for at in range(7)] == [13, 13, 13, 13, 13, 13, 12]
    assert sum(LONG.wanted().values()) == 100
    assert LONG.mean_tokens() == pytest.approx(35_840, rel=0.02)


@pytest.mark.parametrize(
    ("lang", "tokens", "found"),
    [
        ("en", 8_192, ("en", 0)),
        ("zh", 16_384, ("zh", 1)),
        ("en", 64_512, ("en", 6)),
        ("en", 8_191, None),
        ("en", 64_513, None),
        ("ko", 9_000, None),
        (None, 9_000, None),
        ("en", None, None),
    ],
)
def test_documents_without_a_bin_are_not_chosen(lang: Any, tokens: Any, found: Any) -> None:
    assert LONG.bin_of(lang, tokens) == found


@pytest.mark.parametrize(
    ("tag", "found"), [("en", "en"), ("zh-Hant", "zh"), ("EN_us", "en"), ("", "ko"), (None, "ko")]
)
def test_a_tag_begins_with_its_language(tag: str | None, found: str) -> None:
    assert language_of(tag, "ko") == found


def test_what_a_bin_lacks_is_reported_not_filled() -> None:
    quotas = Quotas(10, 0, 99, 50, {"en": 1})
    found = first_of_bins(
        {("en", 0): [f"a{i}" for i in range(20)], ("en", 1): ["b"]}, quotas, 3, "s"
    )
    assert [len(found["en", at]) for at in (0, 1)] == [5, 1]
    reached = {bin_name(place): len(ids) for place, ids in found.items()}
    told = quotas.report({"en:0": 20, "en:1": 1}, reached)
    assert [(q["wanted"], q["available"], q["reached"]) for q in told] == [(5, 20, 5), (5, 1, 1)]


@given(st.integers(1, 5), st.lists(st.integers(0, 999), unique=True, max_size=60))
def test_first_of_parts_hold_the_first_of_all(parts: int, numbers: list[int]) -> None:
    quotas = Quotas(8, 0, 0, 1, {"en": 1})
    ids = [f"d{n}" for n in numbers]
    dealt = [first_of_bins({("en", 0): ids[i::parts]}, quotas, 1, "s") for i in range(parts)]
    again = [i for part in dealt for i in part["en", 0]]
    whole = first_of_bins({("en", 0): ids}, quotas, 1, "s")
    assert first_of_bins({("en", 0): again}, quotas, 1, "s") == whole


@given(st.integers(1, 7), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99)), unique=True))
def test_units_hold_every_row_once_in_the_order_of_the_corpus(
    size: int, places: list[tuple[int, int]]
) -> None:
    units = units_of([{"part": part, "row": row} for part, row in places], size)
    found = [(part, r["row"]) for unit in units for part, rows in unit for r in rows]
    assert found == sorted(places)
    counts = [sum(len(rows) for _, rows in unit) for unit in units]
    assert counts == [size] * (len(places) // size) + [len(places) % size] * bool(
        len(places) % size
    )
