"""What test rules say; on real passages the checks of their stages accept it."""

import json
from collections import Counter

import pytest

from longctx.synth import rules_longmit
from longctx.synth.longalign_instruct import check_questions, request_questions
from longctx.synth.longalpaca import check_qa, request_qa
from longctx.synth.longmit_calls import (
    check_answer,
    check_extract,
    check_simplify,
    request_answer,
    request_extract,
    request_simplify,
)
from longctx.synth.rule_basics import (
    about,
    answer,
    evenly,
    names_and_numbers,
    question,
    questions,
    scaled,
    sentence_for,
    sentences,
    subject,
)
from longctx.synth.rules_documents import longalign_questions, longalpaca_qa
from tests.conftest import SHARED

WIKI = SHARED / "posttrain/hipporag_2wiki/2wikimultihopqa_corpus.json"


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("The Treaty of Lisbon was signed in 2007.", "The Treaty"),
        ("In 1912 Ann Marie Lund Moe won.", "1912"),
        ("In winter Ann Marie Lund Moe won.", "Ann Marie Lund"),
        ("the herring came in the 1930s.", "1930s"),
        ("herring came.", "herring"),
        ("北京有312座桥。", "312"),
        ("故宫建于明朝。", "故宫建于"),
        ("부산에는 배가 312척 있다.", "312"),
    ],
)
def test_subjects(sentence: str, found: str) -> None:
    assert subject(sentence) == found


def test_names_and_numbers_in_order() -> None:
    found = names_and_numbers("On 3 June 1911 the Great Storm broke 12.5 m of pier.")
    assert found == ["3", "June", "1911", "Great Storm", "12.5"]


def test_questions_do_not_repeat() -> None:
    of = sentences("Ann won. Ann lost. Per won. In 1912 it rained.")
    assert questions(of, "en", 3) == [
        question(of[0], "en"),
        question(of[2], "en"),
        question(of[3], "en"),
    ]
    assert questions(of, "en", 9) == questions(of, "en", 3)
    assert questions([], "en", 3) == []
    assert [about(question(of[3], lang)) for lang in ("en", "zh", "ko")] == ["1912"] * 3
    assert about("Who won?") == "Who won?"
    assert sentence_for(question(of[2], "en"), of) == 2


def test_answers_have_twenty_words_or_whole_sentences() -> None:
    of = [f"{'word ' * 24}end{i}." for i in range(4)]
    assert answer(of, 1) == " ".join(["word"] * 20)
    assert answer(of, 1, 30) == " ".join(of[1:3])
    assert answer(of, 3, 60) == " ".join(of[1:4])
    assert answer(of, 0, 999) == " ".join(of)


def test_places_and_marks() -> None:
    assert evenly(100, 5) == [10, 30, 50, 70, 90]
    assert evenly(2, 4) == [0, 0, 1, 1]
    assert [scaled(share, 1, 5) for share in (0, 0.5, 1)] == [1, 3, 5]


@pytest.mark.skipif(not WIKI.is_file(), reason="the passages of 2WikiMultihopQA are not here")
def test_replies_on_real_passages_are_accepted() -> None:
    passages = [row["text"] for row in json.loads(WIKI.read_text(encoding="utf-8"))[:240]]
    seen: Counter[tuple[str, str | None]] = Counter()
    for text in passages:
        asked = request_extract(text, "en").parts
        said = rules_longmit.extract(asked)
        seen["extract", check_extract(said, asked)] += 1
        parts = request_answer(said["questions"][0], text, "en").parts
        long = rules_longmit.answer_question(parts)
        seen["answer", check_answer(long, parts)] += 1
        simple = request_simplify(said["questions"][0], long["answer"], "en").parts
        seen["simplify", check_simplify(rules_longmit.simplify(simple), simple)] += 1
    for first in range(0, 240, 10):
        text = "\n\n".join(passages[first : first + 10])
        asked = request_questions(text, "general", "en").parts
        seen["questions", check_questions(longalign_questions(asked), asked)] += 1
        asked = request_qa(text, "book", "en").parts
        seen["qa", check_qa(longalpaca_qa(asked), asked)] += 1
    accepted = {stage: n for (stage, detail), n in seen.items() if detail is None}
    assert accepted == {
        "extract": 240,
        "answer": 240,
        "simplify": 240,
        "questions": 24,
        "qa": 24,
    }, seen
