"""Texts that rows must not hold: which are looked for, and that no column is overlooked."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from longctx.filter.evaluation import LONGEST, Value
from longctx.synth.checks import ngram_hit, ngram_index, shared_run
from longctx.synth.held_out import NOTHING, decontamination, looked_for, texts_of
from tests.synthesis import HELD_OUT, PLANTED

INDEX = ngram_index([HELD_OUT])
WORDS = HELD_OUT.split()


def value(text: str) -> Value:
    return Value(0, "question", text)


def test_short_texts_and_contexts_are_not_looked_for() -> None:
    long = " ".join(f"word{i}" for i in range(LONGEST + 1))
    sets = {
        "a": [(False, value(HELD_OUT)), (False, value("nine words")), (False, value(long))],
        "b": [(True, value(long))],
        "c": [(True, value(HELD_OUT.rpartition(" ")[0]))],
    }
    found = looked_for(sets, 10)
    assert found.texts == [HELD_OUT, long]
    assert found.counts == {"texts": 2, "too_short": 2, "contexts": 1}
    assert found.idle == ["c"]
    # Characters of unspaced scripts are words.
    assert looked_for({"d": [(False, value("一二三四五六七八九十"))]}, 10).counts["texts"] == 1


def test_the_shared_words_are_told() -> None:
    assert shared_run(f"So: {PLANTED} And on.", INDEX) == HELD_OUT
    assert shared_run(PLANTED.replace("Golf", "gulf"), INDEX) is None


def test_a_text_inside_another_is_looked_at_once() -> None:
    context = "grey harbour " * 40
    turn = f"Read.\n\n{context}\n\nWhy?"
    row = {"context": context, "docs": [{"text": context}], "id": "d1", "none": None, "n": 3}
    assert texts_of({**row, "messages": [{"role": "user", "content": turn}]}) == [
        turn,
        "user",
        "d1",
    ]
    assert texts_of(context) == [context]
    # Without a blank around it the last word is another one.
    cut = (context + "harb")[:-1]
    assert texts_of([cut, f"{cut}s"]) == [f"{cut}s", cut]


@st.composite
def rows(draw: st.DrawFn) -> tuple[dict[str, Any], bool]:
    """Rows with texts in and beside one another; some hold the words, split over columns or not."""
    filler = st.lists(st.sampled_from(["pier", "fog", *WORDS]), max_size=60).map(" ".join)
    joint = st.sampled_from([" ", ", ", "\n", ' "', "... "])
    planted = draw(st.booleans())
    texts = draw(st.lists(filler, min_size=1, max_size=4))
    if planted:
        at = draw(st.integers(0, len(texts) - 1))
        words = [draw(st.sampled_from([w, w.upper(), w.capitalize()])) for w in WORDS]
        texts[at] += f" {draw(joint).join(words)} {draw(filler)}"
    prompt = draw(joint).join(texts)
    shown = draw(st.sampled_from([prompt, prompt[: len(prompt) // 2], ""]))
    row = {"context": texts, "messages": [{"content": shown}], "plan": {"steps": texts[::-1]}}
    return row, planted


@given(rows())
def test_no_run_of_a_row_is_overlooked(case: tuple[dict[str, Any], bool]) -> None:
    row, planted = case
    every = [*row["context"], row["messages"][0]["content"]]
    hit = any(ngram_hit(text, INDEX) for text in texts_of(row))
    assert hit == any(ngram_hit(text, INDEX) for text in every)
    assert hit or not planted


def test_without_texts_nothing_is_said_to_hold() -> None:
    assert decontamination(0, 3, 10) == {"hits": 0, "texts": 3, "ngram": 10, "ok": True}
    assert decontamination(2, 3, 10)["ok"] is False
    none = decontamination(0, 0, 10)
    assert (none["hits"], none["ok"], none["note"]) == (None, None, NOTHING)
