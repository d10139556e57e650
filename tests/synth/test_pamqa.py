"""PAM QA: text forms and their inverses, counts, rows whose gold may stand anywhere."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.synth.checks import chi2_uniform, depth_counts
from longctx.synth.pamqa import (
    fill_counts,
    fit_docs,
    parse_prompt,
    parse_response,
    position_probe,
    render_prompt,
    render_response,
    rendered,
    sanitise,
    sanitise_title,
)
from longctx.synth.pamqa_negatives import Doc, Negatives, Question, draw_random, fuse, mine
from longctx.synth.pamqa_rows import Settings, build_row, load, row_problems
from longctx.synth.pamqa_words import WORDING
from longctx.synth.rows import PAMQA, Made, Reject, Row, table_of
from longctx.synth.tokens import token_counter
from tests.conftest import SHARED

COUNTER = token_counter("whitespace")
NQ = SHARED / "posttrain/lost_in_middle/nq-open-oracle.jsonl.gz"
LANGS = st.sampled_from(sorted(WORDING))
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Alpha [1]\nBeta.\n\nGamma", "Alpha (1). Beta. Gamma"),
        ("第一行\n第二行。\n第三行", "第一行。第二行。第三行"),
        (" a \r\n b ", "a. b"),
        ("ひら\nかな", "ひら。かな"),
        ("끝\n시작", "끝. 시작"),
        ("why?\nso…\nyes", "why? so… yes"),
        ("two  blanks\u2028x", "two  blanks. x"),
        ("\n", ""),
    ],
)
def test_sanitise(text: str, expected: str) -> None:
    assert sanitise(text) == expected


@given(st.text(max_size=80))
def test_what_is_sanitised_is_one_line_without_square_brackets(text: str) -> None:
    once = sanitise(text)
    assert sanitise(once) == once
    assert len(once.splitlines()) <= 1
    assert not set("[]") & set(once)


def test_fill_counts() -> None:
    assert fill_counts(20, 2, 0.5) == (9, 9)
    assert fill_counts(20, 3, 0.5) == (9, 8)
    assert fill_counts(30, 0, 0.1) == (3, 27)
    with pytest.raises(ValueError, match="3 golds of 2"):
        fill_counts(2, 3, 0.5)


def test_fit_docs() -> None:
    kept = fit_docs(golds=[120], hard=[200, 180, 160, 150], random=[300, 100, 90], budget=1000)
    assert kept == (1, 4, 0, 810)
    assert fit_docs([120], [200, 180], [], 300) == (1, 0, 0, 120)
    assert fit_docs([120], [], [], 119) is None


@given(LANGS, LINE, st.lists(st.integers(1, 99), max_size=4), st.text(max_size=60))
def test_responses_parse_back(lang: str, question: str, indices: list[int], answer: str) -> None:
    parts = parse_response(render_response(question, indices, answer, lang), lang)
    expected = {"restate": " ".join(question.split()), "indices": indices, "answer": answer}
    assert parts == expected


def test_responses_of_another_form() -> None:
    sound = render_response("who?", [3, 7], "He [9].\nReally.", "en")
    assert sound.splitlines()[1] == "Relevant documents: [3], [7]"
    assert parse_response(sound) == {
        "restate": "who?",
        "indices": [3, 7],
        "answer": "He [9].\nReally.",
    }
    assert render_response("谁？", [], "甲", "zh").splitlines()[1] == "相关文档：无"
    for odd in ("", sound.replace("My answer", "The answer"), sound[1:], "\n" + sound):
        assert parse_response(odd) is None
    assert parse_response(sound, "zh") is None
    with pytest.raises(ValueError, match="no wording in 'fr'"):
        render_response("q", [], "a", "fr")


@given(LANGS, LINE, st.lists(st.tuples(LINE, LINE), max_size=5), st.sampled_from(["", "<eod>"]))
def test_prompts_parse_back(
    lang: str, question: str, docs: list[tuple[str, str]], end: str
) -> None:
    shown = [{"title": sanitise_title(t), "text": sanitise(x)} for t, x in docs]
    prompt = render_prompt(question, shown, lang, end)
    parts = parse_prompt(prompt, lang, end, [bool(doc["title"]) for doc in shown])
    assert parts is not None
    assert parts["question"] == " ".join(question.split())
    assert parts["docs"] == [{"idx": i, **doc} for i, doc in enumerate(shown, 1)]


def test_prompts_of_another_form() -> None:
    prompt = render_prompt("who?", [{"title": "T", "text": "x"}, {"title": "", "text": "y"}])
    assert prompt.splitlines()[:4] == ["Question: who?", "Search results:", "[1] T: x", "[2] y"]
    assert parse_prompt(prompt) is not None
    assert parse_prompt(prompt.replace("[2]", "[3]")) is None
    assert parse_prompt(prompt.replace("Search", "More")) is None
    assert parse_prompt(prompt, "ko") is None


def question(i: int) -> Question:
    text = f"The token of entity {i} is zq{i}x since the year of founding."
    asked = f"What is the token of entity {i}?"
    return Question(f"row-{i:05d}", asked, [f"zq{i}x"], [Doc(f"g{i}", f"Gold {i}", text)])


def plain(i: int) -> Doc:
    words = " ".join(f"w{(i * 7919 + k * 104729) % 9973}" for k in range(12))
    return Doc(f"d{i}", f"Title {i}", words)


def test_load_rejects_what_cannot_be_found() -> None:
    gold = Doc("g", "G", "It opened in 1932.")
    base = Question("q", "when?", ["1932"], [gold])
    assert load(base) == base._replace(beside=[])
    assert load(base._replace(golds=[])) == Reject("no_gold")
    assert load(base._replace(answers=["The", "!"])) == Reject("empty_answer")
    for answers in (["yes"], ["7"], ["1933"]):
        assert load(base._replace(answers=answers)) == Reject("answer_not_extractive")
    judged = load(base._replace(answers=["yes"]), [True])
    assert isinstance(judged, Question)
    assert judged.answers == ["yes"]
    other = Doc("h", "H", "A step on the way.")
    narrowed = load(base._replace(golds=[gold, other]))
    assert isinstance(narrowed, Question)
    assert (narrowed.golds, narrowed.beside) == ([gold], ["h"])
    assert not Negatives(narrowed).accepts(other)


def test_ranks_are_fused() -> None:
    assert fuse([["a", "b", "c"], ["c", "a", "d"]]) == ["a", "c", "b", "d"]
    assert fuse([["b"], ["a"]]) == ["a", "b"]


def test_negatives_are_dropped_for_the_first_reason() -> None:
    text = "one two three four five six seven eight nine ten the answer is zebra"
    gold = Doc("g", "The Gold!", text, "c1")
    asked = Question("q", "?", ["zebra"], [gold])
    negatives = Negatives(asked)
    candidates = [
        Doc("g", "x", "zebra"),
        Doc("a", "gold", "plain words"),
        Doc("b", "x", "plain words", "c1"),
        Doc("c", "x", text.replace("zebra", "lion")),
        Doc("d", "x", "A zebra."),
        Doc("e", "Zebra", "Striped."),
        Doc("f", "x", " \n "),
        Doc("h", "x", "Zebras and other words.", None),
        Doc("i", "x", "never reached"),
    ]
    assert [doc.doc_id for doc in mine(candidates, negatives, 1)] == ["h"]
    assert negatives.counts == {
        "gold_id": 1,
        "gold_title": 1,
        "near_duplicate": 2,
        "holds_answer": 2,
        "empty": 1,
    }
    assert not Negatives(asked, judged=lambda doc: doc.doc_id == "h").accepts(candidates[7])


def test_random_negatives_repeat_nothing() -> None:
    negatives = Negatives(question(1))
    rng = np.random.default_rng(1)
    found = draw_random(rng, 30, plain, negatives, ["d3"], 20)
    assert len({doc.doc_id for doc in found}) == 20
    assert "d3" not in {doc.doc_id for doc in found}
    assert len(draw_random(rng, 4, plain, negatives, ["d3"], 20)) == 3
    assert draw_random(rng, 0, plain, negatives, [], 2) == []


DEFAULTS = Settings()


def built(i: int, settings: Settings = DEFAULTS, seed: int = 7) -> Row:
    found = build_row(
        question(i), [plain(j) for j in range(40, 52)], 5000, plain, COUNTER, settings, seed
    )
    assert isinstance(found, Made)
    return found.row


def test_a_row_is_sound_and_fits_its_schema() -> None:
    rows = [built(i) for i in range(60)]
    assert all(row_problems(row, question(i).answers) == [] for i, row in enumerate(rows))
    assert {row["answerable"] for row in rows} == {True, False}
    assert table_of(rows, PAMQA).num_rows == 60
    answerable = next(row for row in rows if row["answerable"])
    assert (answerable["n_hard"], answerable["n_random"], len(answerable["docs"])) == (10, 9, 20)
    refused = next(row for row in rows if not row["answerable"])
    # Twelve candidates only: random ones stand in.
    assert (refused["n_hard"], refused["n_random"]) == (12, 8)
    assert refused["response"].endswith("do not know.")
    assert built(0) == rows[0]
    assert built(0, seed=8)["docs"] != rows[0]["docs"]


def test_planted_faults_of_rows_are_found() -> None:
    answers = question(0).answers
    row = built(0, Settings(unanswerable_share=0))
    worse = {**row, "docs": [{**d, "text": d["text"] + " zq0x"} for d in row["docs"]]}
    assert {"prompt_parse_back", "negative_with_answer"} <= set(row_problems(worse, answers))
    assert "gold_idx" in row_problems({**row, "gold_idx": [99]}, answers)
    refusing = {**row, "response_parts": {**row["response_parts"], "answer": "I do not know."}}
    assert {"response_parse_back", "answer_or_refusal"} <= set(row_problems(refusing, answers))
    assert "answerable" in row_problems({**row, "answerable": False}, answers)
    assert "gold_without_answer" in row_problems(row, ["nothing"])


def test_rows_that_are_too_long_lose_whole_negatives() -> None:
    full = built(3, Settings(unanswerable_share=0))
    tokens = COUNTER.count(full["prompt"])
    tight = built(3, Settings(unanswerable_share=0, max_prompt=tokens - 40))
    assert COUNTER.count(tight["prompt"]) <= tokens - 40
    assert (tight["n_hard"], len(tight["gold_idx"])) == (10, 1)
    assert tight["n_random"] < 9
    assert row_problems(tight, question(3).answers) == []
    short = Settings(unanswerable_share=0, max_prompt=100)
    candidates = [plain(j) for j in range(12)]
    rejected = build_row(question(3), candidates, 500, plain, COUNTER, short, 7)
    assert isinstance(rejected, Reject)
    assert rejected.code == "too_long"
    few = build_row(question(3), [], 2, plain, COUNTER, Settings(unanswerable_share=0), 7)
    assert isinstance(few, Reject)
    assert few.code == "too_few_candidates"


def gold_places(rows: list[Row]) -> list[tuple[int, int]]:
    return [(row["gold_idx"][0] - 1, len(row["docs"])) for row in rows]


def test_golds_stand_anywhere_and_a_planted_bias_is_found() -> None:
    settings = Settings(unanswerable_share=0, near_duplicate=None)
    places = gold_places([built(i, settings) for i in range(2000)])
    counts = np.bincount([place for place, _ in places], minlength=20).tolist()
    assert chi2_uniform(counts)["ok"]
    jitter = np.random.default_rng(0).random(2000).tolist()
    assert chi2_uniform(depth_counts(places, jitter))["ok"]
    biased = np.bincount([place % 10 for place, _ in places], minlength=20).tolist()
    report = chi2_uniform(biased)
    assert report["ok"] is False
    assert report["p"] < 1e-12


def test_probe_moves_the_gold_only() -> None:
    row = built(4, Settings(unanswerable_share=0))
    probes = position_probe(row, [1, 5, 20], COUNTER)
    assert [p["gold_idx"] for p in probes] == [[1], [5], [20]]
    others = [[d["doc_id"] for d in p["docs"] if d["role"] != "gold"] for p in probes]
    assert others[0] == others[1] == others[2]
    assert all(row_problems(p, question(4).answers) == [] for p in probes)
    assert len({p["id"] for p in probes}) == 3
    assert position_probe(row, [2])[0]["n_tokens"] is None
    with pytest.raises(ValueError, match="no place 21"):
        position_probe(row, [21])
    with pytest.raises(ValueError, match="0 golds"):
        position_probe({**row, "docs": row["docs"][:0]}, [1])


def test_golds_are_named_in_ascending_order() -> None:
    docs = [{"doc_id": str(i), "title": "", "text": "x", "role": "gold"} for i in range(3)]
    assert (
        rendered("q", docs, "a")["response"].splitlines()[1] == "Relevant documents: [1], [2], [3]"
    )


@pytest.mark.skipif(not NQ.exists(), reason=f"no real questions at {NQ}")
def test_rows_of_real_questions() -> None:
    with gzip.open(NQ, "rt") as lines:
        listed = [json.loads(line) for line, _ in zip(lines, range(300), strict=False)]
    corpus = [
        Doc(f"d{i}", r["ctxs"][0]["title"], r["ctxs"][0]["text"]) for i, r in enumerate(listed)
    ]
    counter = token_counter("embedded")
    made = 0
    for i, r in enumerate(listed[:60]):
        asked = load(Question(f"nq{i}", r["question"], r["answers"], [corpus[i]]))
        if isinstance(asked, Reject):
            assert asked.code == "answer_not_extractive"
            continue
        rest = corpus[100 + i : 130 + i]
        found = build_row(asked, rest, len(corpus), corpus.__getitem__, counter, Settings(), 3)
        assert isinstance(found, Made)
        assert row_problems(found.row, asked.answers) == []
        assert counter.count(found.row["prompt"]) <= 7500
        made += 1
    assert made > 50
