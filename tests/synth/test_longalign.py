"""LongAlign's self-instruct: quotas, draws, checks of replies, rows; rules pass the checks."""

from typing import Any

import pytest

from longctx.synth.checks import chi2_uniform
from longctx.synth.longalign import MAX_LEN
from longctx.synth.longalign_instruct import (
    TASK_TYPES,
    Candidate,
    assemble,
    check_answer,
    check_questions,
    chosen_question,
    questions_of_text,
    released,
    request_answer,
    request_questions,
    select_documents,
    task_type,
)
from longctx.synth.rows import LONGALIGN, Reject, table_of
from longctx.synth.rules_documents import longalign_answer, longalign_questions
from longctx.synth.tokens import TokenCounter

DOCUMENT = (
    "The harbour of Orvik was dug in 1890. Marta Lund kept its lighthouse for forty years. "
    "In winter the Northern Line brought coal. Herring was sold to Bergen every autumn. "
    "The Great Storm of 1911 broke the pier. Nobody has rebuilt it since."
)
CHINESE = (
    "北京是中国的首都。长城位于北方山区。黄河流经九省。故宫建于明朝。西湖在杭州。熊猫住在四川。"
)


def test_bins_give_equal_quotas_and_say_what_they_lack() -> None:
    long = [Candidate(f"e{i}", "en", 8_192 * (1 + i % 7) + 5) for i in range(700)]
    few = [Candidate(f"z{i}", "zh", 8_192 + i) for i in range(3)]
    out = [Candidate("short", "en", 8_191), Candidate("long", "en", 65_536 - 1_023)]
    chosen, report = select_documents([*long, *few, *out], 100, seed=4)
    english = [q for q in report if q.lang == "en"]
    assert [q.requested for q in english] == [13, 13, 13, 13, 13, 13, 12]
    assert [q.reached for q in english] == [13, 13, 13, 13, 13, 13, 12]
    assert [(q.requested, q.reached) for q in report if q.lang == "zh"][:2] == [(2, 2), (2, 0)]
    assert len(chosen) == 92
    assert not {"short", "long"} & set(chosen)
    assert select_documents([*out, *few, *long[::-1]], 100, seed=4)[0] == chosen


def test_task_types_and_choices_are_uniform() -> None:
    ids = [f"d{i}" for i in range(3000)]
    types = [task_type(7, i) for i in ids]
    chosen = [chosen_question(7, i) for i in ids]
    assert chi2_uniform([types.count(t) for t in TASK_TYPES])["ok"]
    assert chi2_uniform([chosen.count(k) for k in range(5)])["ok"]


@pytest.mark.parametrize(("document", "lang"), [(DOCUMENT, "en"), (CHINESE, "zh")])
@pytest.mark.parametrize("kind", TASK_TYPES)
def test_rules_answer_what_is_asked(document: str, lang: str, kind: str) -> None:
    asked = request_questions(document, kind, lang)
    reply = longalign_questions(asked.parts)
    assert check_questions(reply, asked.parts) is None
    answered = request_answer(document, reply["questions"][2], lang)
    assert check_answer(longalign_answer(answered.parts), answered.parts) is None
    assert asked.messages[0]["content"].startswith(document)
    assert answered.messages[-1]["content"].endswith(reply["questions"][2])


GOOD = [
    "Who was Marta Lund?",
    "What broke the pier?",
    "Who sold herring?",
    "Why coal?",
    "When 1890?",
]


@pytest.mark.parametrize(
    ("questions", "detail"),
    [
        (GOOD, None),
        (GOOD[:4], "question_count"),
        ([*GOOD[:4], " "], "question_count"),
        ([*GOOD[:4], "who was MARTA LUND"], "duplicate"),
        ([*GOOD[:4], "Where is Paris?"], "off_document"),
    ],
)
def test_questions_that_are_refused(questions: list[str], detail: str | None) -> None:
    assert check_questions({"questions": questions}, {"document": DOCUMENT}) == detail


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ("Marta Lund kept the lighthouse.", None),
        ("…", "answer_length"),
        ("herring " * 2001, "answer_length"),
        ("I'm sorry, but I can't help with the harbour of Orvik.", "refusal"),
        ("Paris exports copper to Peru.", "unsupported"),
    ],
)
def test_answers_that_are_refused(answer: str, detail: str | None) -> None:
    assert check_answer({"answer": answer}, {"document": DOCUMENT}) == detail


def test_a_numbered_list_is_a_reply() -> None:
    text = "\n".join(f"{k}. {q}" for k, q in enumerate(GOOD, 1))
    assert questions_of_text(text) == {"questions": GOOD}
    assert questions_of_text("1. Only one?") is None


def made(words: int) -> Any:
    doc = Candidate("d1", "en", words)
    document = "word " * (words - 1) + "word"
    return assemble(doc, document, "books", GOOD, " In 1890. ", TokenCounter(), seed=3)


def test_rows_put_the_question_behind_the_document() -> None:
    row = made(9_000)
    question = GOOD[chosen_question(3, "d1")]
    assert row["messages"][0]["content"] == f"{row['context']}\n\n{question}"
    assert (row["instruction"], row["response"]) == (question, "In 1890.")
    assert row["length"] == row["n_tokens"] == 9_000 + len(question.split()) + 2
    assert table_of([row], LONGALIGN).num_rows == 1
    assert released(row)["messages"] == row["messages"]
    assert list(released(row)) == ["id", "dataset", "length", "messages"]
    refused = made(MAX_LEN - 2)
    assert isinstance(refused, Reject)
    assert refused.code == "too_long"
