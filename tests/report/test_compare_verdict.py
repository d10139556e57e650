"""Which value is best, what the verdict says, and which caveats are told."""

from dataclasses import replace

import pytest

from longctx.report.compare_columns import (
    COPIES,
    CUT_SHORT,
    EARLIER,
    FILL,
    NEIGHBOURS,
    best,
    groups,
)
from longctx.report.compare_verdict import caveats, verdict
from tests.report.compared import HOSTILE, awkward, comparison, example, line


def said(*lines) -> str:
    return " ".join(verdict(comparison(*lines)))


def names(lines, column) -> list[str]:
    return [one.name for one in best(lines, column)]


def test_a_lead_has_to_exceed_two_standard_errors():
    a, b = line("a", related=0.42), line("b", related=0.40)
    assert names([a, b], NEIGHBOURS) == ["a"]  # 0.02 against 2 x 0.0071
    c = line("c", related=0.41)
    assert names([b, c], NEIGHBOURS) == []
    assert names([a, b, c], NEIGHBOURS) == ["a", "c"]
    assert names([a], NEIGHBOURS) == []
    assert names([a, line("x", related=None)], NEIGHBOURS) == []


def test_counted_figures_lead_as_soon_as_the_difference_shows():
    a, b = line("a", fill=0.99001), line("b", fill=0.99002)
    assert names([a, b], FILL) == []
    assert names([a, line("c", fill=0.98)], FILL) == ["a"]
    assert names([line("a", short=0.1), line("b", short=0.0)], CUT_SHORT) == ["b"]
    assert names([line("a", copies=0.2), line("b", copies=0.1)], COPIES) == ["b"]
    assert names([line("a", short=None), line("b", short=0.1)], CUT_SHORT) == []


def test_a_clear_and_free_lead():
    text = said(line("a", related=0.6, earlier=0.7), line("b"))
    assert "a keeps the most related documents together" in text
    assert "mean similarity of 0.600 (in random places 0.100); b follows with 0.400" in text
    assert "also closest there (0.700)" in text
    assert "a is the best choice: the lead costs nothing elsewhere" in text


def test_a_lead_that_costs_something():
    text = said(line("a", related=0.6, earlier=0.7, fill=0.9, copies=0.3), line("b"))
    assert "90.0 % (a) to 99.0 % (b) of the room is filled" in text
    assert "a is the one to take where related context counts" in text
    assert "it pays with more empty room (90.0 % against 99.0 %)" in text
    assert "more windows with copies (30.0 % against 0 %)" in text
    small = said(line("a", related=0.6, earlier=0.7, fill=0.985), line("b"))
    assert "the lead costs less than a point elsewhere" in small


def test_runs_that_cannot_be_told_apart():
    text = said(line("a", related=0.401), line("b"))
    assert "cannot be told apart" in text
    assert "does not separate them" in text
    assert "none of these runs is clearly better" in text
    cheaper = said(line("a", related=0.401, fill=0.9), line("b"))
    assert "take b: equal context at a lower price" in cheaper


def test_coherence_and_best_earlier_may_disagree():
    text = said(line("a", related=0.6), line("b", earlier=0.7))
    assert "a keeps the most related documents" in text
    assert "closest in b (0.700)" in text


def test_several_leaders_are_all_named():
    runs = [line("a", related=0.6, earlier=0.7), line("b", related=0.601, earlier=0.7), line("c")]
    text = said(*runs)
    assert "a and b keep the most related documents together" in text
    assert "c follows with 0.400" in text
    assert "a and b are the best choices" in text


def test_many_leaders_are_counted_and_unknown_runs_do_not_follow():
    runs = [line(f"r{i}", related=0.6) for i in range(6)]
    text = said(*runs, line("x", related=None), line("low", related=0.2))
    assert "r0, r1, r2 and 3 more keep the most related documents together" in text
    assert "low follows with 0.200" in text


def test_one_run_is_held_against_chance():
    text = said(line("a"))
    assert "mean similarity of 0.400; in random places the same documents would have 0.100" in text
    assert "99.0 % of the room is filled; none of the documents that would fit are cut" in text
    assert "Taken together" not in text


def test_without_vectors_nothing_is_claimed():
    text = said(line("a", related=None, earlier=None), line("b", related=None, earlier=None))
    assert "nothing can be said" in text
    assert "Taken together" not in text


def told(*lines) -> str:
    return "\n".join(caveats(comparison(*lines)))


def test_every_comparison_says_how_it_was_measured():
    text = told(line("a"), line("b"))
    assert "up to 500 windows of each run (of 1,000)" in text
    assert "two standard errors" in text
    assert "attend to each other" in text
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"documents": 9_000}, "different numbers of documents (9,000 to 10,000)"),
        ({"floor": 0.3}, "differ in similarity from run to run (0.100 to 0.300)"),
        ({"length": 4096}, "differ in length"),
        ({"tokenizer": "other"}, "different tokenizers"),
        ({"tokenizer_known": False}, "Nothing tells the tokenizer of b"),
        ({"length_known": False}, "Nothing tells the length of the windows of b"),
        ({"short": None}, "b has no document ids"),
        ({"copies": 0.2}, "20.0 % of the windows of b"),
    ],
)
def test_what_differs_is_told(changed, message: str):
    assert message in told(line("a"), line("b", **changed))


def test_a_small_or_foreign_sample_is_told():
    one = line("a")
    few = replace(one, likeness=replace(one.likeness, windows=12, unknown=4_000))
    text = told(few)
    assert "less than 30 windows are rough: a" in text
    assert "80.0 % in a" in text


def test_names_stand_in_sentences_without_control_characters():
    text = "\n".join([*verdict(awkward()), *caveats(awkward())])
    assert HOSTILE not in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_every_column_is_explained():
    for group in groups(example()):
        assert all(len(meaning) > 10 for meaning in group.terms.values())
        assert {c.term or c.name for c in group.columns} == set(group.terms)
    assert EARLIER.shown(line("a", earlier=None)) == "n/a"
