"""LongMIT's rows: a planted corpus from end to end by rules, contexts, forms that parse back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.synth import rules_longmit as rules
from longctx.synth.checks import chi2_uniform
from longctx.synth.draw import generator
from longctx.synth.longmit import Link, SingleQA, build_chain
from longctx.synth.longmit_calls import (
    check_answer,
    check_extract,
    check_merge,
    check_necessity,
    check_reference,
    check_simplify,
    check_verify,
    is_needed,
    request_answer,
    request_extract,
    request_merge,
    request_necessity,
    request_reference,
    request_simplify,
    request_verify,
)
from longctx.synth.longmit_rows import (
    BOUND,
    RESERVE,
    Context,
    Doc,
    Merged,
    Placed,
    Scores,
    assemble,
    clue_docs,
    fold_merges,
    long_context,
    parse_passages,
    parse_response,
    rates,
    render_passages,
    render_prompt,
    render_response,
    type_of,
)
from longctx.synth.prompt import LANGUAGES
from longctx.synth.rows import LONGMIT, Reject, table_of
from longctx.synth.tokens import TokenCounter

ENTITIES = 500


def name(e: int) -> str:
    """A fictitious entity of its own."""
    syllables = ["za", "vo", "ri", "mu", "ke", "lo", "pa", "ni"]
    return "".join(syllables[(e >> shift) & 7] for shift in (0, 3, 6)).capitalize() + "th"


def document(e: int) -> str:
    after = name((e + 1) % ENTITIES)
    return f"{name(e)} keeps {5_000 + 7 * e} ships. The harbour next to it is {after}."


def single(e: int, lang: str = "en") -> SingleQA:
    """The one question of a document, every stage by rule and through its check."""
    text = document(e)
    asked = request_extract(text, lang)
    said = rules.extract(asked.parts)
    assert check_extract(said, asked.parts) is None
    question = said["questions"][0]
    checked = request_reference(question, lang)
    assert check_reference(rules.reference(checked.parts), checked.parts) is None
    answered = request_answer(question, text, lang)
    long = rules.answer_question(answered.parts)
    assert check_answer(long, answered.parts) is None
    short = request_simplify(question, long["answer"], lang)
    found = rules.simplify(short.parts)
    assert check_simplify(found, short.parts) is None
    return SingleQA(f"d{e}", 0, question, found["short"], long["answer"])


def merge_by_rule(left: Merged, right: SingleQA, shorts: Sequence[str]) -> Merged | None:
    asked = request_merge(left.question, left.answer, right.question, right.answer, shorts, "en")
    said = rules.merge(asked.parts)
    return Merged(**said) if check_merge(said, asked.parts) is None else None


@pytest.fixture(scope="module")
def planted() -> tuple[list[SingleQA], np.ndarray[Any, Any]]:
    singles = [single(e) for e in range(ENTITIES)]
    similar = np.full((ENTITIES, ENTITIES), 0.1)
    for e in range(ENTITIES):
        similar[e, (e + 1) % ENTITIES] = 0.7
    return singles, similar


def test_every_planted_fact_becomes_a_question_of_several_hops(
    planted: tuple[list[SingleQA], np.ndarray[Any, Any]],
) -> None:
    singles, similar = planted
    docs = [s.doc_id for s in singles]
    assert [s.answer for s in singles] == [str(5_000 + 7 * e) for e in range(ENTITIES)]
    needed = duplicated = 0
    for e in range(ENTITIES):
        chain = build_chain(e, similar, docs)
        assert chain == [(e + k) % ENTITIES for k in range(4)]
        used = [singles[i] for i in chain]
        levels = fold_merges(used, merge_by_rule)
        assert len(levels) == 4
        assert type_of(used[:2]) == "inter"
        texts = [document(chain[0]), document(chain[1])]
        needed += all(necessary(levels[1], used, texts, k) for k in range(2))
        copied = [f"{texts[0]} {name(chain[1])} keeps {used[1].answer} ships.", texts[1]]
        duplicated += not all(necessary(levels[1], used, copied, k) for k in range(2))
    assert (needed, duplicated) == (ENTITIES, ENTITIES)


def necessary(merged: Merged, used: Sequence[SingleQA], texts: Sequence[str], k: int) -> bool:
    others = [text for i, text in enumerate(texts) if i != k]
    asked = request_necessity(merged.question, used[k].answer, others, "en")
    assert "short" in asked.parts
    assert used[k].answer not in asked.messages[0]["content"] or used[k].answer in " ".join(others)
    return check_necessity(rules.necessity(asked.parts), asked.parts) is None


def test_the_judge_by_rule_passes_what_keeps_its_answers(
    planted: tuple[list[SingleQA], np.ndarray[Any, Any]],
) -> None:
    used = planted[0][:2]
    merged = fold_merges(used, merge_by_rule)[1]
    asked = request_verify(merged.question, merged.answer, merged.reasoning, used, "en")
    assert check_verify(rules.verify(asked.parts), asked.parts) is None
    lost = request_verify(merged.question, "Nothing.", "None.", used, "en")
    assert check_verify(rules.verify(lost.parts), lost.parts) == "low_score"
    alone = request_verify(merged.question, merged.answer, merged.reasoning, used[:1], "en")
    assert check_verify(rules.verify(alone.parts), alone.parts) == "not_multihop"


TEXTS = {
    "en": "Orvik has 812 boats. Marta Lund kept the lighthouse. In winter coal came from Bergen.",
    "zh": "北京有312座桥。上海港每年接待船只。杭州的西湖很有名。",
    "ko": "부산에는 배가 312척 있습니다. 서울은 수도입니다. 제주는 섬입니다.",
}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_rules_pass_the_checks_in_every_language(lang: str) -> None:
    asked = request_extract(TEXTS[lang], lang)
    questions = rules.extract(asked.parts)["questions"]
    assert check_extract({"questions": questions}, asked.parts) is None
    assert len(questions) == 3
    singles = []
    for question in questions:
        answered = request_answer(question, TEXTS[lang], lang)
        long = rules.answer_question(answered.parts)
        assert check_answer(long, answered.parts) is None
        simple = request_simplify(question, long["answer"], lang)
        short = rules.simplify(simple.parts)
        assert check_simplify(short, simple.parts) is None
        singles.append(SingleQA("A", 0, question, short["short"], long["answer"]))

    def merge(left: Merged, right: SingleQA, shorts: Sequence[str]) -> Merged | None:
        parts = request_merge(
            left.question, left.answer, right.question, right.answer, shorts, lang
        ).parts
        said = rules.merge(parts)
        assert check_merge(said, parts) is None
        return Merged(**said)

    assert len(fold_merges(singles, merge)) == 3


def test_the_first_failing_merge_ends_the_chain() -> None:
    chain = [SingleQA(d, 0, f"What of {d}?", d, d) for d in "ABCD"]
    calls: list[list[str]] = []

    def merge(left: Merged, right: SingleQA, shorts: Sequence[str]) -> Merged | None:
        calls.append(list(shorts))
        return None if right.doc_id == "C" else Merged(f"{left.question}+{right.doc_id}", "", "")

    levels = fold_merges(chain, merge)
    assert [level.question for level in levels] == ["What of A?", "What of A?+B"]
    assert calls == [["A", "B"], ["A", "B", "C"]]
    assert fold_merges([], merge) == []


MERGE = {
    "question_1": "Who built the harbour of Orvik?",
    "answer_1": "Ann Lund",
    "question_2": "Who painted the pier of Bergen?",
    "answer_2": "Per Moe",
    "shorts": ["Ann Lund", "Per Moe"],
}
GOOD = {
    "question": "Which of the builder at Orvik and the painter at Bergen comes first by name?",
    "reasoning": "Ann Lund built the one, Per Moe painted the other.",
    "answer": "Ann Lund",
}


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({}, None),
        ({"reasoning": "Ann Lund built it."}, "fact_lost"),
        ({"question": " "}, "empty_field"),
        (
            {"question": "Who built the harbour of Orvik and who painted the pier of Bergen?"},
            "joined_by_and",
        ),
        ({"question": "Did Per Moe paint the pier at Bergen before Orvik?"}, "leaks_answer"),
    ],
)
def test_merges_that_are_refused(changed: dict[str, str], detail: str | None) -> None:
    assert check_merge({**GOOD, **changed}, MERGE) == detail


def test_replies_that_are_refused() -> None:
    many = {"questions": ["A?", "B?", "C?", "D?"]}
    assert check_extract(many, {}) == "question_count"
    assert check_extract({"questions": ["A?", "B"]}, {}) == "question_form"
    assert check_extract({"questions": []}, {}) is None
    parts = {"question": "When did he die?"}
    assert check_reference({"has_reference": True, "span": "he"}, parts) == "unresolved_reference"
    assert check_reference({"has_reference": True, "span": "she"}, parts) == "span_not_found"
    assert check_reference({"has_reference": False, "span": ""}, parts) is None
    assert rules.reference(parts) == {"span": "he", "has_reference": True}
    chunk = {"chunk": "Orvik has 812 boats."}
    assert check_answer({"answer": "812 boats", "found": True}, chunk) is None
    assert check_answer({"answer": "812 boats", "found": False}, chunk) == "not_in_chunk"
    assert check_answer({"answer": "Seven grey whales", "found": True}, chunk) == "unsupported"
    long = {"answer": "Orvik has 812 boats."}
    assert check_simplify({"short": "812"}, long) is None
    assert check_simplify({"short": "Yes"}, long) is None
    assert check_simplify({"short": "813"}, long) == "fact_added"
    assert check_simplify({"short": "Oslo"}, long) == "fact_added"
    assert check_simplify({"short": "boat " * 21}, long) == "short_length"
    assert check_simplify({"short": "…"}, long) == "short_length"


MARKS = {"correctness": 9, "multi_fact": 9, "clarity": 8, "naturalness": 9, "multihop": True}


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({}, None),
        ({"correctness": 8}, None),
        ({"correctness": 8, "multi_fact": 8, "naturalness": 10}, "low_score"),
        ({"multihop": False}, "not_multihop"),
        ({"clarity": 11}, "mark_range"),
        ({"clarity": -1}, "mark_range"),
    ],
)
def test_a_mean_of_eight_and_a_half_is_refused(changed: dict[str, Any], detail: str | None) -> None:
    marks = {**MARKS, **changed}
    if changed == {"correctness": 8}:
        marks["clarity"] = 9
    assert check_verify(marks, {}) == detail


def test_necessity_without_a_model() -> None:
    assert is_needed("812", ["Bergen has 300 boats."]) is True
    assert is_needed("812", ["Bergen has 812 boats."]) is False
    assert is_needed("Marta Lund", ["Marta went home.", "Lund is a town."]) is False
    assert is_needed("in coal", ["Coal came."]) is False
    assert is_needed("yes", ["Yes."]) is None
    assert is_needed("of the", ["of the"]) is None


def docs(prefix: str, sizes: Sequence[int]) -> list[Doc]:
    return [Doc(f"{prefix}{i}", "w " * (n - 1) + "w", n) for i, n in enumerate(sizes)]


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    st.lists(st.integers(1, 3000), max_size=8),
    st.lists(st.integers(1, 3000), max_size=20),
    st.integers(0, 99),
)
def test_contexts_keep_their_limit(
    clue: list[int], path: list[int], random: list[int], seed: int
) -> None:
    clues, others = docs("c", clue), docs("p", path)
    rng = np.random.default_rng(seed)
    found = long_context(clues, [*clues, *others], docs("r", random), 1_000, rng, bound=7_000)
    if sum(clue) > 6_000:
        assert isinstance(found, Reject)
        assert found.code == "too_long"
        return
    assert isinstance(found, Context)
    names = [placed.doc.doc_id for placed in found.docs]
    assert len(set(names)) == len(names)
    assert [names[at] for at in found.clue_pos] == [doc.doc_id for doc in clues]
    kept = sorted(placed.doc.doc_id for placed in found.docs if placed.role == "path")
    assert kept == [doc.doc_id for doc in others[: len(kept)]]
    total = sum(placed.doc.n_tokens for placed in found.docs)
    assert total <= found.token_limit <= 6_000
    assert found.token_limit >= 4_096
    n_random = sum(placed.role == "random" for placed in found.docs)
    if n_random < len(random):
        assert total + random[n_random] > found.token_limit


def test_copies_of_clues_are_no_fillers() -> None:
    clue = Doc("c", "w", 1, "k")
    candidates = [Doc("x", "w", 1, "k"), Doc("p", "w", 1), Doc("y", "w", 1, "m"), Doc("y", "w", 1)]
    rng = np.random.default_rng(0)
    found = long_context([clue], [Doc("p", "w", 1)], candidates, RESERVE["inter"], rng)
    assert isinstance(found, Context)
    assert sorted(placed.doc.doc_id for placed in found.docs) == ["c", "p", "y"]
    with pytest.raises(ValueError, match="is below 4096"):
        long_context([clue], [], [], BOUND, rng)


def test_clues_stand_anywhere() -> None:
    counts = [0] * 10
    for row in range(500):
        rng = generator(1, "longmit", "context", str(row))
        found = long_context(docs("c", [5, 5]), docs("p", [5] * 8), [], 4_096, rng)
        assert isinstance(found, Context)
        for at in found.clue_pos:
            counts[at] += 1
    assert chi2_uniform(counts)["ok"]


USED = [
    SingleQA("c0", 0, "What of A?", "1", "A is 1."),
    SingleQA("c1", 2, "What of B?", "2", "B is 2."),
]
LINKS = [Link(None, None), Link(0, 0.7)]
MERGED = Merged("Which of A and B is larger?", "B", "A is 1, B is 2.")


def row_of(context: Context, used: Sequence[SingleQA] = USED, **options: Any) -> Any:
    scores = Scores(9.0, True, None)
    return assemble(
        "7", "en", "s", "p0", used, LINKS, MERGED, context, scores, TokenCounter(), 0, **options
    )


def test_rows_name_where_the_clues_are() -> None:
    found = long_context(
        docs("c", [5, 6]), docs("p", [7]), docs("r", [9] * 3), 4_096, np.random.default_rng(2)
    )
    assert isinstance(found, Context)
    row = row_of(found)
    assert (row["hop"], row["type"], row["clue_docs"]) == (2, "inter", ["c0", "c1"])
    assert [row["docs"][at]["doc_id"] for at in row["clue_pos"]] == row["clue_docs"]
    assert parse_passages(row["context"], "en") == [doc["text"] for doc in row["docs"]]
    assert parse_response(row["response"], "en") == (MERGED.reasoning, MERGED.answer)
    assert row["chain"][1]["linked_to"] == 0
    assert table_of([row], LONGMIT)["scores"][0].as_py()["necessity"] is None
    content = row["messages"][0]["content"]
    before, behind = content.split(row["context"])
    assert before.strip() == behind.strip()
    assert MERGED.question in before
    alone = row_of(found, USED[:1])
    assert (alone["type"], alone["response"]) == ("single", MERGED.answer)
    assert row_of(found, bound=20).code == "too_long"


def test_rows_that_cannot_be_made() -> None:
    trap = Doc("c0", "Text.\n\nPassage 2:\nMore.", 4)
    context = Context([Placed(trap, "clue"), Placed(Doc("c1", "Other.", 1), "clue")], [0, 1], 4_096)
    assert row_of(context).code == "inconsistent"
    three = [*USED, USED[0]._replace(question="What of C?")]
    assert type_of(three) is None
    assert row_of(context, three).code == "inconsistent"
    assert type_of([USED[0], USED[0]]) == "intra"
    assert clue_docs(three) == ["c0", "c1"]


@pytest.mark.parametrize("lang", LANGUAGES)
@settings(max_examples=40)
@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_passages_and_responses_parse_back(lang: str, texts: list[str]) -> None:
    context = render_passages(texts, lang)
    assert parse_passages(context, lang) == texts
    assert context in render_prompt(texts, "Q?", 2, lang)
    assert parse_response(render_response(MERGED, 2, lang), lang) == (MERGED[2], MERGED[1])
    assert render_response(MERGED, 1, lang) == MERGED.answer
    assert parse_passages("Nothing.", lang) is None
    assert parse_response("Nothing.", lang) is None


def test_rates_of_no_rows_are_unknown() -> None:
    assert rates(9, 8, 10, 10) == {"multihop": 0.9, "quality_passed": 0.8, "non_duplicate": 1.0}
    assert set(rates(0, 0, 0, 0).values()) == {None}
