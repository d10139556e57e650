"""What PAM QA, FILM and ChatQA2 ask a model: prompts, checks with planted faults, rules."""

import json
from typing import Any

import pytest

from longctx.llm.structured import extract_json
from longctx.synth import chatqa2_calls, film_calls, pamqa_calls, rules_evidence
from longctx.synth.prompt import LANGUAGES, Prompt

SEGMENT = (
    "and so it went on. The Harbour Bridge of Sydney was opened in 1932 by Jack Lang. "
    "Engineers from Dorman Long had worked on it for eight years with rivets of British steel. "
)
OTHER = "In Porto the Arrábida bridge was built by Edgar Cardoso between 1957 and 1963. "
ZH = "悉尼海港大桥于1932年由杰克·朗主持通车。工程师们为此工作了八年。铆钉用的是英国钢材。"
KO = "시드니 하버 브리지는 1932년에 개통되었다. 기술자들은 8년 동안 그 일을 하였다."
GOOD = {
    "question": "Who opened the Harbour Bridge of Sydney in 1932?",
    "answer": "Jack Lang opened the bridge.",
}


def prompts(lang: str) -> list[Prompt]:
    document = {"en": SEGMENT, "zh": ZH, "ko": KO}[lang]
    return [
        pamqa_calls.request_support("when?", ["1932"], document, lang),
        pamqa_calls.request_answer("when?", [document, "{{odd}}"], ["1932"], lang),
        film_calls.request_fine(document, lang),
        film_calls.request_integration([document, OTHER], lang),
        film_calls.request_verify("when?", "1932", lang),
        chatqa2_calls.request_summary(document, lang),
        chatqa2_calls.request_qa(document, 3, lang),
    ]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_prompts_hold_their_pieces_and_no_more(lang: str) -> None:
    asked = prompts(lang)
    for one in asked:
        content = one.messages[-1]["content"]
        assert "{{" not in content.replace("{{odd}}", "")
        assert one.parts["lang"] == lang
        for name in one.schema["properties"] if one.schema else ():
            assert f'"{name}"' in content
    assert "[2] " + OTHER in asked[3].messages[-1]["content"]
    assert "1932" not in asked[4].messages[-1]["content"]
    assert " 3" in asked[6].messages[-1]["content"]


def test_support() -> None:
    parts = {"passage": SEGMENT}
    check = pamqa_calls.check_support
    assert check({"supports": True, "evidence": "opened in 1932"}, parts) is None
    assert check({"supports": True, "evidence": "opened in 1933"}, parts) == "evidence_not_found"
    assert check({"supports": True, "evidence": " "}, parts) == "evidence_not_found"
    assert check({"supports": False, "evidence": ""}, parts) is None


def test_answer() -> None:
    parts = {"answers": ["1932"]}
    assert pamqa_calls.check_answer({"answer": "It was in 1932."}, parts) is None
    assert pamqa_calls.check_answer({"answer": "It was in 1933."}, parts) == "answer_lost"
    long = {"answer": "1932 " + "and " * 80}
    assert pamqa_calls.check_answer(long, parts) == "answer_length"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"question": "Who opened the Harbour Bridge?."}, "question_form"),
        ({"question": "Who did?"}, "question_form"),
        ({"question": "Who " + "really " * 60 + "did?"}, "question_form"),
        ({"question": "Who opened it, according to the passage?"}, "refers_to_context"),
        ({"question": "Based on the given document, who opened it?"}, "refers_to_context"),
        ({"question": "Who opened it in the provided context?"}, "refers_to_context"),
        ({"question": "根据文章，大桥于哪一年通车？"}, "refers_to_context"),
        ({"question": "본문에서 다리는 언제 개통되었습니까?"}, "refers_to_context"),
        ({"answer": "As the text says, Jack Lang opened the bridge."}, "refers_to_context"),
        ({"answer": "Queen Elizabeth cut a silk ribbon."}, "unsupported"),
        ({"answer": "of the"}, "unsupported"),
        ({"answer": SEGMENT.strip()}, "verbatim"),
        ({"answer": SEGMENT.split(". ")[1]}, None),
        ({"question": "Who read the contexts of the bridge plan?"}, None),
    ],
)
def test_fine(changed: dict[str, str], expected: str | None) -> None:
    assert film_calls.check_fine({**GOOD, **changed}, {"segment": SEGMENT}) == expected


def test_integration() -> None:
    parts = {"pieces": [SEGMENT, OTHER, "Jack Lang opened a bridge in Sydney."]}
    reply: dict[str, Any] = {
        "question": "Which was opened first, Harbour Bridge or the Arrábida bridge?",
        "answer": "The Harbour Bridge in 1932, before the Arrábida bridge of 1963.",
        "needed": [1, 2],
    }
    check = film_calls.check_integration
    assert check(reply, parts) is None
    for needed in ([], [1], [2, 2], [0, 1], [1, 4]):
        assert check({**reply, "needed": needed}, parts) == "needed_out_of_range"
    assert check({**reply, "needed": [1, 2, 3]}, parts) == "piece_not_needed"
    assert check({**reply, "answer": "A silk ribbon was cut."}, parts) == "unsupported"


def test_verify() -> None:
    parts = {"answer": "Jack Lang"}
    check = film_calls.check_verify
    assert check({"answer": "It was Jack Lang.", "confident": True}, parts) == (
        "closed_book_solvable"
    )
    assert check({"answer": "It was Jack Lang.", "confident": False}, parts) is None
    assert check({"answer": "The Queen.", "confident": True}, parts) is None


def test_summaries_and_their_questions() -> None:
    document = " ".join(f"Fact {i} holds for entity E{i}." for i in range(300))
    check, usual = chatqa2_calls.check_summary, chatqa2_calls.request_summary(document, "en").parts
    assert check({"summary": document[:2500]}, usual) is None
    assert check({"summary": "Too short."}, usual) == "summary_length"
    assert check({"summary": document}, usual) == "summary_length"
    strange = " ".join(f"odd{i}" for i in range(300))
    assert check({"summary": strange}, usual) == "unsupported"
    short = chatqa2_calls.request_summary(document, "en", (1, 9))
    assert " 1 to 9 words" in short.messages[-1]["content"]
    assert check({"summary": "Fact 5 holds for entity E5."}, short.parts) is None
    parts = {"summary": SEGMENT, "n": 2}
    check = chatqa2_calls.check_qa
    assert check({"qas": [GOOD]}, parts) is None
    assert check({"qas": []}, parts) == "question_count"
    assert check({"qas": [GOOD] * 3}, parts) == "question_count"
    assert check({"qas": [{**GOOD, "question": " "}]}, parts) == "empty_text"
    assert check({"qas": [GOOD, {**GOOD, "answer": "A silk ribbon."}]}, parts) == "unsupported"


CALLS = [
    (rules_evidence.pam_support, pamqa_calls.check_support),
    (rules_evidence.pam_answer, pamqa_calls.check_answer),
    (rules_evidence.film_fine, film_calls.check_fine),
    (rules_evidence.film_integration, film_calls.check_integration),
    (rules_evidence.film_verify, film_calls.check_verify),
    (rules_evidence.chatqa_summary, chatqa2_calls.check_summary),
    (rules_evidence.chatqa_qa, chatqa2_calls.check_qa),
]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_rules_pass_the_schema_and_the_check_of_their_stage(lang: str) -> None:
    asked = prompts(lang)
    long = " ".join(
        f"Fact {i} holds for the entity E{i}, and it was found in {i}." for i in range(90)
    )
    asked[5] = chatqa2_calls.request_summary(long, lang)
    for (rule, check), one in zip(CALLS, asked, strict=True):
        reply = rule(one.parts)
        assert one.schema is not None
        value, code, _ = extract_json(json.dumps(reply), one.schema, "stop")
        assert (value, code) == (reply, None)
        assert check(reply, one.parts) is None, (one.stage, reply)


def test_rules_say_what_is_there() -> None:
    assert rules_evidence.film_fine({"segment": SEGMENT, "lang": "en"})["question"] == (
        "What is stated about The Harbour Bridge?"
    )
    both = rules_evidence.film_integration({"pieces": ["of the.", SEGMENT, OTHER], "lang": "en"})
    assert both["needed"] == [2, 3]
    no = rules_evidence.pam_support({"question": "Is it?", "answers": ["yes"], "passage": OTHER})
    assert (no["supports"], no["evidence"]) == (False, "")
    with pytest.raises(ValueError, match="no sentence"):
        rules_evidence.film_fine({"segment": "of the", "lang": "en"})
    with pytest.raises(ValueError, match="no two pieces"):
        rules_evidence.film_integration({"pieces": [SEGMENT, SEGMENT], "lang": "en"})
