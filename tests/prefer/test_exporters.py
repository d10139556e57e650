"""Layouts of trainers: every one is read back byte for byte, and says what it cannot hold."""

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.prefer.exporters import (
    EXPORTERS,
    IMPORTERS,
    Keys,
    Texts,
    chatml,
    from_llamafactory,
    to_llamafactory,
    to_longreward,
    to_xtuner_step,
    turns_of,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
REF = {"doc_id": "d", "start_char": 0, "end_char": 9}


def row(query: str, chosen: str, rejected: str, **fields: Any) -> dict[str, Any]:
    usual = {"id": "p", "group_id": "g", "depth": 1, "prefix": "", "context_ref": None}
    usual |= {"messages": [{"role": "user", "content": query}], "checks": []}
    return {**usual, "chosen": chosen, "rejected": rejected, **fields}


def through(layout: Any, made: dict[str, Any], context: str | None) -> Texts:
    record = EXPORTERS[layout](made, context)
    return IMPORTERS[layout](json.loads(json.dumps(record, ensure_ascii=False)))


@given(TEXT, TEXT, TEXT, st.none() | TEXT)
def test_every_layout_gives_back_what_it_was_given(
    query: str, chosen: str, rejected: str, context: str | None
) -> None:
    made = row(query, chosen, rejected, context_ref=None if context is None else REF)
    before = "" if context is None else f"{context}\n\n"
    turns = [{"role": "user", "content": before + query}]
    for layout in ("longreward", "trl", "llamafactory"):
        assert through(layout, made, context) == Texts(turns, chosen, rejected)
    assert through("sft", made, context) == Texts(turns, chosen, None)
    assert through("xtuner_step", made, context) == Texts(chatml(turns), chosen, rejected)


@given(TEXT, TEXT, TEXT, TEXT)
def test_a_given_beginning_stays_whole(query: str, prefix: str, chosen: str, rejected: str) -> None:
    made = row(query, chosen, rejected, prefix=prefix, checks=[("terminal", False)])
    prompt = chatml([{"role": "user", "content": query}]) + prefix
    for layout in ("trl", "xtuner_step"):
        assert through(layout, made, None) == Texts(prompt, chosen, rejected)
    assert through("sft", made, None).chosen == prefix + chosen
    for layout in ("longreward", "llamafactory"):
        with pytest.raises(ValueError, match="given beginning"):
            through(layout, made, None)


def test_turns_of_a_system_are_kept_or_refused() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    made = row("", "Yes.", "No.", messages=turns, context_ref=REF)
    asked = [turns[0], {"role": "user", "content": "The text.\n\nWhy?"}]
    assert turns_of(made, "The text.") == asked
    for layout in ("trl", "llamafactory"):
        assert through(layout, made, "The text.").prompt == asked
    with pytest.raises(ValueError, match="one turn of the user"):
        to_longreward(made, "The text.")
    with pytest.raises(ValueError, match="is not given"):
        turns_of(made)
    assert turns[1]["content"] == "Why?"


def test_names_and_roles_of_the_layouts() -> None:
    made = row("Why?", "Yes.", "No.", depth=2, checks=[("terminal", False)])
    keys = Keys(text="content")
    record = to_llamafactory(made, keys=keys)
    assert record["conversations"] == [{"from": "human", "content": "Why?"}]
    assert record["chosen"] == {"from": "gpt", "content": "Yes."}
    assert from_llamafactory(record, keys).rejected == "No."
    step = to_xtuner_step(made, template=partial(chatml))
    told = {k: step[k] for k in ("group_id", "depth", "answer_role", "prompt_role")}
    assert told == {
        "group_id": "g",
        "depth": 2,
        "answer_role": "added_assistant",
        "prompt_role": "added_user",
    }
    assert to_xtuner_step({**made, "checks": {"terminal": True}})["answer_role"] == "assistant"
    assert to_longreward(made) == {
        "idx": "g",
        "context": "",
        "query": "Why?",
        "win_response": "Yes.",
        "lose_response": "No.",
    }
