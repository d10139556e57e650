"""What LongDPO asks, and which replies its checks refuse."""

from typing import Any

import pytest

from longctx.llm.types import GenRequest
from longctx.prefer import longdpo_calls as calls
from longctx.prefer.asked import Asked
from longctx.prefer.longdpo import PRINCIPLES
from longctx.prefer.longdpo_controls import negated
from longctx.prefer.longdpo_search import (
    Contradict,
    Critique,
    Expand,
    Extract,
    Judge,
    Refine,
    Suggestion,
)
from longctx.prefer.longdpo_tree import Task
from longctx.prefer.longdpo_unit import task_of
from longctx.prefer.rules_longdpo import RULES

LANGS = ("en", "zh", "ko")
EVEN = [0.2] * 5


def task(lang: str = "en") -> Task:
    return Task("t", "Tell of a {{port}}.", lang)


def marks(**changes: Any) -> dict[str, Any]:
    return {"analysis": "", **dict.fromkeys(PRINCIPLES, EVEN), **changes}


@pytest.mark.parametrize(
    ("weights", "sound"),
    [
        (EVEN, True),
        ([0.1, 0.1, 0.2, 0.3, 0.29], True),
        ([0, 0, 0, 0, 1], True),
        ([0.2, 0.2, 0.2, 0.2, 0.17], False),
        ([0.2, 0.2, 0.2, 0.2, 0.23], False),
        ([1.5, -0.5, 0, 0, 0], False),
        ([0.25] * 4, False),
        ([], False),
    ],
)
def test_weights_are_five_and_add_up(weights: list[float], sound: bool) -> None:
    found = calls.check_judge(marks(p3=weights), {})
    assert (found is None) == sound
    assert found in (None, "weights")


def test_marks_are_expected_marks_of_all_principles() -> None:
    found = calls.marks_of(marks(p2=[0, 0, 0.2, 0.5, 0.3]))
    assert found == pytest.approx((3, 4.1, 3, 3, 3, 3, 3))


def test_evidence_stands_in_its_passage() -> None:
    parts = {"text": "It was not built in 1890."}
    said = {"analysis": "", "contradicts": True, "evidence": "not built in 1890"}
    assert calls.check_contradiction(said, parts) is None
    assert calls.denial_of(said) == "not built in 1890"
    for evidence in ("", "built in 1891"):
        assert calls.check_contradiction({**said, "evidence": evidence}, parts) == "evidence"
    harmless = {**said, "contradicts": False, "evidence": "anything"}
    assert calls.check_contradiction(harmless, parts) is None
    assert calls.denial_of(harmless) == ""


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({}, None),
        ({"relevant_text": ""}, None),
        ({"suggestion": " "}, "suggestion"),
        ({"confidence": 0}, "confidence"),
        ({"confidence": 6}, "confidence"),
        ({"relevant_text": "elsewhere"}, "relevant_text"),
    ],
)
def test_critique_is_sure_and_quotes_the_better_text(
    changes: dict[str, Any], detail: str | None
) -> None:
    usual = {"suggestion": "Vary\n it.", "confidence": 4, "relevant_text": "rich"}
    said = {"analysis": "", "justification": "", **usual, **changes}
    assert calls.check_critique(said, {"better": "a rich text"}) == detail
    if detail is None:
        assert calls.suggestion_of(said) == Suggestion("Vary it.", 4)


@pytest.mark.parametrize("lang", LANGS)
def test_every_stage_has_words_in_every_language(lang: str) -> None:
    asked = {
        "judge": calls.request_judge(Judge(task(lang), "0", "", "New part {{x}}.")),
        "facts": calls.request_facts(Extract(task(lang), "0", "New part {{x}}.")),
        "contradiction": calls.request_contradiction(
            Contradict(task(lang), "0", "A fact.", "New part {{x}}.")
        ),
        "critique": calls.request_critique(
            Critique(task(lang), "0", "", "New part {{x}}.", "Better part.", 5)
        ),
    }
    for stage, prompt in asked.items():
        (turn,) = prompt.messages
        assert "New part {{x}}." in turn["content"]
        assert prompt.schema is not None
        assert all(name in turn["content"] for name in prompt.schema["properties"]), stage
        assert turn["content"].count("{{") == 1 + (stage in ("judge", "critique"))
    whole = calls.request_judge(Judge(task(lang), "0", "Before.", "After."))
    assert "Before." in whole.messages[0]["content"]
    # The rules answer what is asked.
    for stage, prompt in asked.items():
        kind = prompt.parts.get("kind", f"longdpo.{stage}")
        parts: Any = prompt.parts
        request = GenRequest(request_id="r", messages=[], max_tokens=1, parts=parts)
        assert RULES[kind](request).startswith("{")


def test_steps_go_on_with_what_is_written() -> None:
    first = calls.request_step(Expand(task(), "0", "", 1, 2), 4)
    assert first.messages == [{"role": "user", "content": "Tell of a {{port}}."}]
    later = calls.request_step(Expand(task(), "0.1", "It began.", 2, 0), 4)
    assert later.messages[-1] == {"role": "assistant", "content": "It began."}
    assert later.messages[:-1] == first.messages
    assert (later.parts["depth"], later.parts["depths"], first.parts["sample"]) == (2, 4, 2)
    again = calls.request_refine(Refine(task(), "0.1", "It began.", 2, ("Be brief.", "Vary.")), 4)
    assert again.messages[0]["content"].startswith("Tell of a {{port}}.\n\n")
    assert again.messages[0]["content"].endswith("\n- Be brief.\n- Vary.")
    assert again.messages[1] == later.messages[1]


def test_the_wanted_length_is_that_of_the_file_or_stated() -> None:
    def wanted(
        query: str, lang: str = "en", own: int | None = None, usual: int | None = None
    ) -> Any:
        target = task_of("t", Asked(query, target_length=own), lang, usual).target
        return None if target is None else (target.x, target.counter, target.tokens)

    assert wanted("Write 2,000 words.") == (2000, "auto", 1.4)
    assert wanted("Write 2,000 words.", own=500) == (500, "auto", 1.4)
    assert wanted("写一篇2000字的文章", "zh", usual=7) == (2000, "auto", 1.0)
    assert wanted("Write.", usual=700) == (700, "auto", 1.4)
    assert wanted("Write.") is None
    assert task_of("t", Asked("Why?", context="A text."), "en").prompt == "A text.\n\nWhy?"


def test_negated_facts_deny() -> None:
    assert negated("The bridge is old.", "en") == "It is not true that The bridge is old."
    assert negated("桥很旧。", "zh") == "“桥很旧”这一说法不是真的。"
    assert negated("다리는 낡았다.", "ko") == "“다리는 낡았다”라는 말은 사실이 아니다."
