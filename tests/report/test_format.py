"""Numbers, shares and times for people."""

import math

import pytest

from longctx.report import format as fmt


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (1234, "1,234"), (1_234_567, "1,234,567"), (None, "-"), (math.nan, "-")],
)
def test_counts_are_grouped_and_unknown_ones_are_a_dash(value: float | None, written: str) -> None:
    assert fmt.count(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (999, "999"),
        (9_999, "9,999"),
        (10_000, "10.0 k"),
        (12_345_678, "12.3 M"),
        (999_950, "1.00 M"),
        (999_499, "999 k"),
        (2_000_000_000, "2.00 B"),
        (1.5e12, "1.50 T"),
        (None, "-"),
        (math.inf, "-"),
    ],
)
def test_large_numbers_keep_three_digits(value: float | None, written: str) -> None:
    assert fmt.compact(value) == written


def test_axis_labels_have_no_idle_zeros() -> None:
    assert [fmt.rounded(v) for v in (0, 500, 20_000, 2_500_000)] == ["0", "500", "20 k", "2.5 M"]


@pytest.mark.parametrize(
    ("value", "written"), [(0, "0 B"), (999, "999 B"), (1_234_567_890, "1.23 GB"), (None, "-")]
)
def test_sizes_are_decimal(value: float | None, written: str) -> None:
    assert fmt.size(value) == written


def test_nouns_follow_their_number() -> None:
    assert fmt.tokens(12_345_678) == "12.3 M tokens"
    assert fmt.tokens(1) == "1 token"
    assert fmt.plural(1, "window") == "1 window"
    assert fmt.plural(0, "window") == "0 windows"


@pytest.mark.parametrize(
    ("share", "written"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.1234, "12.3 %"),
        (0.0001, "<0.1 %"),
        (0.9994, "99.9 %"),
        (0.9998, "99.98 %"),
        (0.999999, ">99.99 %"),
        (None, "-"),
    ],
)
def test_shares_never_round_something_to_nothing_or_all(share: float | None, written: str) -> None:
    assert fmt.percent(share) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 s"),
        (0.01, "<0.1 s"),
        (3.42, "3.4 s"),
        (9.96, "10 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3_599.8, "1 h"),
        (3_720, "1 h 2 min"),
        (86_399, "1 d"),
        (90_000, "1 d 1 h"),
        (None, "-"),
    ],
)
def test_durations_have_two_units_and_carry(seconds: float | None, written: str) -> None:
    assert fmt.duration(seconds) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (0.45678, "0.457"), (-0.2, "-0.200"), (5.234, "5.23"), (12.34, "12.3")],
)
def test_decimals_have_three_digits(value: float, written: str) -> None:
    assert fmt.decimal(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(512, "512"), (1024, "1k"), (131_072, "128k"), (1 << 20, "1M"), (50_000, "50.0 k")],
)
def test_lengths_are_binary_where_that_is_exact(value: float, written: str) -> None:
    assert fmt.binary(value) == written


def test_control_characters_cannot_reach_a_terminal() -> None:
    assert fmt.printable("a\x1b[31mb\u202ec\ud800d\te\n") == "a?[31mb?c?d\te\n"


def test_one_line_is_cut_within_its_limit() -> None:
    assert fmt.one_line("  a \n b\t c ", 10) == "a b c"
    assert fmt.one_line("x" * 50, 10) == "xxxxxxx..."
