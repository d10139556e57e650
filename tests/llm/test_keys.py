"""Keys and seeds of requests: the worked examples, what is in the key and what is not."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.llm.keys import (
    BadRequestError,
    canonical_key,
    canonical_text,
    key_pair,
    logical_key,
)
from longctx.llm.seeds import derive_seed, messages_digest
from longctx.llm.types import GenRequest

HI = GenRequest(
    request_id="r",
    messages=[{"role": "user", "content": "hi"}],
    max_tokens=16,
    stop=None,
    extra=None,
)


def test_the_worked_example() -> None:
    assert canonical_text(HI, "m") == (
        '{"extra":{},"max_tokens":16,"messages":[{"content":"hi","role":"user"}],"model":"m",'
        '"sample_index":0,"schema":null,"seed":null,"stop":[],"temperature":0.0,"top_p":1.0,"v":1}'
    )
    assert canonical_key(HI, "m") == (
        "b014cf0e7fd241f834827812fede80b31f0894e3bcb8b69f387a531a8201f5e9"
    )
    assert logical_key(HI, "m") == (
        "f816a9f6da36d681dbd23d4df7ea68266f4fa771c478f3ee866c2871f0b51f87"
    )


def test_seeds_of_the_worked_example() -> None:
    assert derive_seed(0, "longreward", "sample", "11", 0) == 1987418216
    assert derive_seed(0, "longreward", "sample", "11", 1) == 589255387
    assert derive_seed(0, "longreward", "sample", "1", 10) == 1932511659


@given(st.integers(), st.text(max_size=5).filter(lambda t: t.isprintable()))
def test_seeds_are_31_bits(seed: int, row: str) -> None:
    assert 0 <= derive_seed(seed, "s", "t", row, 0) < 2**31


SAME: list[dict[str, Any]] = [
    {"request_id": "other"},
    {"system": "x"},
    {"stage": "judge"},
    {"row_id": "7"},
    {"parts": {"question": "?"}},
    {"temperature": 0},
    {"top_p": 1},
    {"stop": []},
    {"extra": {}},
    {"max_tokens": 16.0},
    {"messages": [{"content": "hi", "role": "user", "name": "never sent"}]},
]
DIFFERENT: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "hi "}]},
    {"messages": [{"role": "system", "content": "hi"}]},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}]},
    {"temperature": 0.5},
    {"top_p": 0.9},
    {"seed": 0},
    {"stop": ["\n"]},
    {"schema": {}},
    {"schema": {"type": "object"}},
    {"sample_index": 1},
    {"extra": {"top_k": 5}},
]


@pytest.mark.parametrize("change", SAME, ids=str)
def test_who_asks_and_how_it_is_written_is_not_in_the_key(change: dict[str, Any]) -> None:
    assert canonical_key(replace(HI, **change), "m") == canonical_key(HI, "m")


@pytest.mark.parametrize("change", DIFFERENT, ids=str)
def test_what_can_change_the_answer_is_in_both_keys(change: dict[str, Any]) -> None:
    assert canonical_key(replace(HI, **change), "m") != canonical_key(HI, "m")
    assert logical_key(replace(HI, **change), "m") != logical_key(HI, "m")


def test_max_tokens_and_model() -> None:
    longer = replace(HI, max_tokens=17)
    assert canonical_key(longer, "m") != canonical_key(HI, "m")
    assert logical_key(longer, "m") == logical_key(HI, "m")
    assert logical_key(HI, "n") != logical_key(HI, "m")


def test_order_of_messages_counts_order_of_keys_does_not() -> None:
    a, b = {"role": "user", "content": "a"}, {"role": "user", "content": "b"}
    one, other = replace(HI, messages=[a, b]), replace(HI, messages=[b, a])
    assert canonical_key(one, "m") != canonical_key(other, "m")
    schemas = ({"type": "object", "title": "x"}, {"title": "x", "type": "object"})
    first, second = (canonical_key(replace(HI, schema=s), "m") for s in schemas)
    assert first == second


def test_text_is_not_normalised() -> None:
    keys = {
        canonical_key(replace(HI, messages=[{"role": "user", "content": c}]), "m")
        for c in ("é", "e\u0301", "é\n", "é\r\n")
    }
    assert len(keys) == 4


BAD: list[dict[str, Any]] = [
    {"temperature": float("nan")},
    {"top_p": float("inf")},
    {"messages": [{"role": "user", "content": "\ud800"}]},
    {"messages": [{"role": "user"}]},
    {"max_tokens": None},
    {"extra": {"x": float("nan")}},
    {"extra": {"x": object()}},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_what_has_no_canonical_form_is_a_bad_request(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        canonical_key(replace(HI, **change), "m")


def test_digest_of_messages_is_that_of_their_canonical_json() -> None:
    text = b'[{"content":"hi","role":"user"}]'
    assert messages_digest(HI.messages) == hashlib.sha256(text).hexdigest()


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(),
    st.dictionaries(st.text('a"}é', max_size=3), st.none() | st.integers()),
)
def test_both_keys_at_once_are_the_same_keys(content: str, limit: int, extra: Any) -> None:
    messages = [{"role": "user", "content": content}]
    req = replace(HI, messages=messages, max_tokens=limit, extra=extra)
    assert key_pair(req, "m") == (canonical_key(req, "m"), logical_key(req, "m"))


@pytest.mark.parametrize("change", BAD, ids=str)
def test_neither_of_both_keys_at_once(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        key_pair(replace(HI, **change), "m")
