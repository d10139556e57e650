"""Prompts and ready answers of files: what is read, and what is refused with its place."""

from typing import Any

import pytest

from longctx.errors import RecipeError
from longctx.prefer.asked import asked_of, parse_answers, parse_prompts
from longctx.synth.items import Item


def prompts(*records: Any) -> dict[str, dict[str, Any]]:
    return parse_prompts([(f"p.jsonl:{i}", r) for i, r in enumerate(records, 1)], "p.jsonl")


def answers(*ids: Any) -> dict[str, dict[int, str]]:
    records = [(f"a.jsonl:{n}", {"idx": i, "answer": f"answer {i}"}) for n, i in enumerate(ids, 1)]
    return parse_answers(records)


def test_names_of_fields_are_those_of_several_files() -> None:
    found = prompts(
        {"idx": 11, "query": "Who?", "context": "Ann.", "answer": "no gold"},
        {"id": "b", "prompt": "Write.", "target_length": 500, "lang": "zh"},
        {"id": "c", "question": "Why?", "doc_id": "d", "gold": "So.", "lang": None},
    )
    assert found == {
        "11": {"id": "11", "question": "Who?", "context": "Ann."},
        "b": {"id": "b", "question": "Write.", "lang": "zh", "target_length": 500},
        "c": {"id": "c", "question": "Why?", "doc_id": "d", "gold": "So."},
    }


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([1], "this is no object"),
        ({"query": "Who?"}, "no `id` or `idx` with a text"),
        ({"id": "a", "query": " "}, "no `query`"),
        ({"id": True, "query": "Who?"}, "no `id`"),
        ({"id": "a", "query": "Who?", "gold": 3}, "`gold` is no text"),
        ({"id": "a", "query": "Who?", "target_length": 0}, "no number above 0"),
        ({"id": "a", "query": "Who?", "target_length": "5"}, "no number above 0"),
    ],
)
def test_what_is_no_prompt_is_refused_with_its_place(record: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as raised:
        prompts({"id": "z", "query": "Why?"}, record)
    assert raised.value.where == "p.jsonl:2"


def test_ids_of_ready_answers_may_hold_hyphens() -> None:
    assert answers("11-0", "11-1", "a-b-12") == {
        "11": {0: "answer 11-0", 1: "answer 11-1"},
        "a-b": {12: "answer a-b-12"},
    }
    for bad in ("11", "11-", "-1", "11-x", None):
        with pytest.raises(RecipeError, match="no ready answer"):
            answers(bad)
    with pytest.raises(RecipeError, match="answer 1 of '11' is there twice"):
        answers("11-1", "11-01")


def test_where_the_context_of_a_prompt_lies() -> None:
    def asked(text: str, **said: Any) -> Any:
        return asked_of(Item("i", "en", "s", 3, text, {"question": {"question": "Who?", **said}}))

    of_model, of_file = asked("The text."), asked("The text.", id="i", doc_id="d", gold="Ann")
    assert of_model.ref == ("i", 0, 9)
    assert of_file.ref == ("d", 0, 9)
    assert of_file.gold == "Ann"
    own, alone = asked("The text.", context="Mine."), asked("")
    assert (own.ref, own.whole) == (None, "Mine.\n\nWho?")
    assert (alone.ref, alone.whole) == (None, "Who?")
    assert own.messages()[0]["content"] == own.whole
    assert asked_of(Item("i", "en", "s", 3, " Write. "), alone=True).query == "Write."
    with pytest.raises(ValueError, match="nothing was asked"):
        asked_of(Item("i", "en", "s", 3, "text"))
