"""Estimates, prices and sums: the worked examples, and what may never be guessed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.errors import RecipeError
from longctx.llm.accounting import (
    USAGE_SCHEMA,
    Price,
    cost_usd,
    estimate_tokens,
    parse_prices,
    summed,
    usage_table,
)
from longctx.llm.types import Usage


def test_the_estimate_of_the_worked_example() -> None:
    assert estimate_tokens([{"role": "user", "content": "hi"}]) == 5
    assert estimate_tokens([]) == 0
    # 9 bytes of UTF-8, and a half pair, which no server would take but which has a size.
    assert estimate_tokens([{"role": "user", "content": "北京市"}]) == 3 + 4
    assert estimate_tokens([{"role": "user", "content": "\ud800"}]) == 1 + 4


def test_the_cost_of_the_worked_example() -> None:
    usage = Usage(prompt=120_000, cached=100_000, completion=8_000)
    price = Price(input=0.50, cached_input=0.05, output=1.50)
    assert cost_usd(usage, price) == pytest.approx(0.027)
    assert cost_usd(usage, Price(input=0.50, output=1.50)) == pytest.approx(0.072)
    assert cost_usd(usage, Price(input=0.50, output=1.50, cached_input=0)) == pytest.approx(0.022)
    assert cost_usd(usage, None) is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_cached_tokens_never_cost_more(prompt: int, cached: int, completion: int) -> None:
    price = Price(input=2.0, cached_input=0.2, output=8.0)
    cached = min(cached, prompt)
    fresh = cost_usd(Usage(prompt, completion), price)
    found = cost_usd(Usage(prompt, completion, cached), price)
    assert found is not None
    assert fresh is not None
    assert found <= fresh


def test_a_price_file() -> None:
    found = parse_prices('{"api:m": {"input": 1, "output": 2, "cached_input": 0.1}}', "prices.json")
    assert found == {"api:m": Price(input=1, output=2, cached_input=0.1)}
    assert parse_prices("{}", "prices.json") == {}


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1, 2]",
        "3",
        '{"api:m": 3}',
        '{"api:m": {"input": 1}}',
        '{"api:m": {"input": 1, "output": -2}}',
        '{"api:m": {"input": 1, "output": NaN}}',
        '{"api:m": {"input": 1, "output": 2, "price": 3}}',
    ],
)
def test_what_is_no_price_file_is_named(text: str) -> None:
    with pytest.raises(RecipeError, match=r"prices\.json: this is no list of prices"):
        parse_prices(text, "prices.json")


def row(stage: str, **changes: Any) -> dict[str, Any]:
    return {
        "system": "longreward",
        "stage": stage,
        "model": "api:m",
        "requests": 10,
        "cache_hits": 4,
        "calls": 6,
        "attempts": 7,
        "prompt_tokens": 100,
        "cached_tokens": 50,
        "completion_tokens": 20,
        "estimated": False,
        "waited_s": 0.5,
        "used_s": 2.0,
        "rejects": {"refusal": 1},
        "cost_usd": 0.25,
        **changes,
    }


def test_sums_of_actors() -> None:
    two = row("answer", rejects={"refusal": 2, "empty": 1}, estimated=True, repairs=3)
    found = summed([row("support"), row("answer"), two])
    assert [r["stage"] for r in found] == ["answer", "support"]
    assert found[0] == row(
        "answer",
        requests=20,
        cache_hits=8,
        calls=12,
        attempts=14,
        prompt_tokens=200,
        cached_tokens=100,
        completion_tokens=40,
        estimated=True,
        waited_s=1.0,
        used_s=4.0,
        rejects={"empty": 1, "refusal": 3},
        cost_usd=0.5,
        repairs=3,
    )


def test_an_unknown_part_makes_the_cost_unknown() -> None:
    for costs in ([None, 0.5], [0.5, None], [None]):
        (found,) = summed([row("answer", cost_usd=c) for c in costs])
        assert found["cost_usd"] is None


def test_the_table() -> None:
    table = usage_table(summed([row("answer"), row("judge", cost_usd=None)]), "run-1")
    assert table.schema == USAGE_SCHEMA
    assert table.column("run_id").to_pylist() == ["run-1", "run-1"]
    assert table.column("rejects").to_pylist() == [[("refusal", 1)], [("refusal", 1)]]
    assert table.column("cost_usd").to_pylist() == [0.25, None]
    assert table.column("repairs").to_pylist() == [0, 0]
