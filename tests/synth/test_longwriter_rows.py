"""AgentWrite between the calls: a whole row by rules, planted faults, checks of every stage."""

from typing import Any

import pytest

from longctx.llm.structured import extract_json
from longctx.synth import rules_longwriter as rules
from longctx.synth.longwriter import DIMENSIONS, Step, plan_line, required_length
from longctx.synth.longwriter_calls import (
    PLAN_MESSAGES,
    check_judge,
    check_plan,
    check_select,
    check_write,
    marks_of,
    prompt_problem,
    refuses,
    reply_of_text,
    request_judge,
    request_plan,
    request_select,
    request_write,
    steps_of,
)
from longctx.synth.longwriter_rows import assemble, finished, overall, released, row_problems
from longctx.synth.prompt import LANGUAGES
from longctx.synth.rows import LONGWRITER, table_of
from longctx.synth.tokens import TokenCounter
from longctx.synth.words import written_in

TASKS = {
    "en": "Write a 3,000-word story about Mount Fuji.",
    "zh": "写一篇3000字的中国旅游指南",
    "ko": "후지산에 대해 3000단어의 글을 쓰십시오.",
}


def written(lang: str) -> tuple[list[Step], list[str]]:
    """A plan and its paragraphs, every reply by rule and through its check."""
    task = TASKS[lang]
    required = required_length(task)
    selected = request_select(task, lang, required)
    assert check_select(rules.select(selected.parts), selected.parts) is None
    planned = request_plan(task, lang, required)
    reply = rules.plan(planned.parts)
    assert check_plan(reply, planned.parts) == ()
    plan = steps_of(reply)
    paragraphs: list[str] = []
    for _ in plan:
        asked = request_write(task, lang, plan, paragraphs, required)
        said = rules.write(asked.parts)
        assert check_write(said, asked.parts) is None
        paragraphs.append(said["text"])
    return plan, finished(paragraphs)


def problems(
    plan: list[Step], paragraphs: list[str], lang: str = "en", **options: Any
) -> list[str]:
    reasons = options.pop("reasons", ["stop"] * len(paragraphs))
    found = row_problems(plan, paragraphs, reasons, required_length(TASKS[lang]), lang, **options)
    return [reject.detail.split(":")[0] for reject in found]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_row_by_rules_has_no_problem(lang: str) -> None:
    plan, paragraphs = written(lang)
    assert problems(plan, paragraphs, lang) == []
    judged = request_judge(TASKS[lang], "\n\n".join(paragraphs), lang)
    reply = rules.judge(judged.parts)
    assert check_judge(reply, judged.parts) is None
    row = assemble(
        "7",
        TASKS[lang],
        lang,
        "s",
        plan,
        paragraphs,
        required_length(TASKS[lang]),
        marks_of(reply),
        n_calls=len(plan) + 3,
        tokens=TokenCounter(),
        seed=0,
    )
    assert row["s_l"] > 95
    assert row["response"] == "\n\n".join(row["paragraphs"])
    assert row["length"] == sum(row["paragraph_lengths"])
    assert (row["length_source"], row["loss_weighting"]) == ("stated", "token")
    assert table_of([row], LONGWRITER).num_rows == 1
    assert overall(row["s_l"], row["s_q"]) == (row["s_l"] + row["s_q"]) / 2
    assert released(row) == {"messages": row["messages"]}


def test_a_row_without_a_stated_length_or_marks() -> None:
    plan, paragraphs = written("en")
    row = assemble(
        "7", "Write a long story.", "en", "s", plan, paragraphs, None, None, 9, TokenCounter(), 0
    )
    assert (row["length_source"], row["required"]["x"]) == ("plan", sum(s.words for s in plan))
    assert (row["s_q"], row["dims"], overall(row["s_l"], None)) == (None, None, None)
    assert table_of([row], LONGWRITER)["s_q"].null_count == 1


def planted(fault: str, plan: list[Step], paragraphs: list[str]) -> list[str]:
    changed = list(paragraphs)
    words = changed[2].split()
    if fault == "sentinel":
        changed[2] = "Max tries. Failed."
    elif fault == "missing_step":
        del changed[-1]
    elif fault == "paragraph_duplicates":
        changed[3] = changed[1]
    elif fault == "label_leak":
        changed[2] = f"{' '.join(words[:50])}.\nParagraph 3: {' '.join(words[50:])}"
    elif fault == "cut_end":
        changed[-1] = changed[-1].rstrip(".")
    elif fault == "refused_paragraph":
        changed[2] = "I'm sorry, but I can't write about that."
    elif fault == "distinct_4grams":
        changed = [f"so it went on and on {k}. " + "and on and on " * 120 + "." for k in range(6)]
    elif fault == "empty_paragraph":
        changed[2] = ""
    elif fault == "language":
        changed = ["写作" * 250 + "。", *changed[:1], "风" * 1_500 + "。"]
    return changed


@pytest.mark.parametrize(
    "fault",
    [
        "sentinel",
        "missing_step",
        "paragraph_duplicates",
        "label_leak",
        "cut_end",
        "refused_paragraph",
        "distinct_4grams",
        "empty_paragraph",
        "language",
    ],
)
def test_planted_faults_are_refused_by_name(fault: str) -> None:
    plan, paragraphs = written("en")
    found = problems(plan, planted(fault, plan, paragraphs))
    assert fault in found
    if fault not in ("distinct_4grams", "language"):
        assert [reason for reason in found if reason not in ("s_l", "min_words")] == [fault]


def test_a_plan_line_in_the_text_is_a_leak() -> None:
    plan, paragraphs = written("en")
    leaked = [*paragraphs[:2], f"{plan_line(plan[2])}\n{paragraphs[2]}", *paragraphs[3:]]
    assert problems(plan, leaked) == ["label_leak"]


def test_a_cut_call_is_refused() -> None:
    plan, paragraphs = written("en")
    reasons = ["stop"] * (len(plan) - 1) + ["length"]
    assert problems(plan, paragraphs, reasons=reasons) == ["unfinished_call"]


@pytest.mark.parametrize(
    ("length", "found"), [(2113, ["s_l"]), (2142, ["s_l"]), (2143, []), (4800, []), (4801, ["s_l"])]
)
def test_length_scores_below_eighty_are_refused(length: int, found: list[str]) -> None:
    """Of 3,000 words 2,113 have S_l 79.0, 2,143 and 4,800 have 80.0."""
    plan = [Step(1, "A", 1000), Step(2, "B", 1000), Step(3, "C", 1000)]
    sizes = [length // 3, length // 3, length - 2 * (length // 3)]
    paragraphs = [" ".join(f"w{k}x{i}" for i in range(n)) + "." for k, n in enumerate(sizes)]
    assert problems(plan, paragraphs) == found


def test_short_rows_are_refused() -> None:
    plan, paragraphs = written("en")
    assert problems(plan, paragraphs, min_words=3_001) == ["min_words"]


PLAN = [Step(1, "The storm", 300), Step(2, "The calm", 300)]
PARTS = {"required": None, "plan": PLAN, "paragraphs": [], "step": PLAN[0]}


def numbered(n: int) -> str:
    return " ".join(f"word{i}" for i in range(n)) + "."


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (numbered(300), None),
        (numbered(150), None),
        (numbered(149), "paragraph_length"),
        (numbered(751), "paragraph_length"),
        (" ", "empty"),
        ("Trigger OpenAI's content management policy", "sentinel"),
        ("I cannot help with that.", "refusal"),
        ("As an AI, I have no storms. " + numbered(300), "refusal"),
        ("I cannot help but wonder, said Ann. " + numbered(300), None),
        (f"{plan_line(PLAN[0])}\n{numbered(300)}", "plan_line"),
    ],
)
def test_paragraphs_that_are_refused(text: str, detail: str | None) -> None:
    assert check_write({"text": text}, PARTS) == detail


def test_near_copies_of_an_earlier_paragraph_are_refused() -> None:
    parts = {**PARTS, "paragraphs": ["Another one.", numbered(300)], "step": PLAN[1]}
    assert check_write({"text": numbered(290)}, parts) == "near_copy"
    assert not refuses("Paragraph 3: I cannot help but wonder. " + numbered(200), 205)
    assert refuses("Paragraph 3: As an AI I do not.", 6)


def test_plans_that_are_refused_have_words_for_the_model() -> None:
    parts = {"required": required_length("1000 words")}

    def said(*steps: tuple[int, str, int]) -> tuple[str, ...]:
        return check_plan({"steps": [Step(*s)._asdict() for s in steps]}, parts)

    assert said((1, "A", 500), (2, "B", 500)) == ()
    assert said((1, "A", 500), (2, "B", 800)) == ("plan_sum",)
    assert said((1, "A", 500), (2, " ", 500)) == ("plan_point",)
    worst = said((1, "Sea", 100), (1, "sea.", 100), (4, "", 3))
    assert worst == ("plan_point", "plan_numbering", "plan_words", "plan_sum", "plan_duplicate")
    assert set(PLAN_MESSAGES) >= {*worst, "plan_size", "plan_line"}


def test_a_plan_may_come_in_lines() -> None:
    parts = {"required": required_length("1000 words")}
    lines = [plan_line(Step(1, "A", 500)), plan_line(Step(2, "B", 500))]
    told = reply_of_text("\n\n".join(lines))
    assert told is not None
    assert steps_of(told) == [(1, "A", 500), (2, "B", 500)]
    assert check_plan(told, parts) == ()
    talked = reply_of_text("Here it is:\n" + "\n".join(lines))
    assert talked is not None
    assert check_plan(talked, parts) == ("plan_line",)
    assert reply_of_text("There will be a storm.") is None
    (step,) = steps_of({"steps": [{"k": 1.0, "main_point": " A ", "words": 500.0}]})
    assert plan_line(step) == plan_line(Step(1, "A", 500))


def test_marks() -> None:
    marks = dict(zip(DIMENSIONS, [5, 4, 4, 5, 3, 4], strict=True))
    assert check_judge(marks, {}) is None
    assert marks_of({"analysis": "", **marks}) == marks
    assert check_judge({**marks, "clarity": 6}, {}) == "mark_range"
    assert check_judge({**marks, "clarity": 0}, {}) == "mark_range"
    assert check_judge({**marks, "clarity": 4.5}, {}) == "mark_missing"
    short = {name: mark for name, mark in marks.items() if name != "clarity"}
    assert check_judge(short, {}) == "mark_missing"
    assert marks_of(short) is None
    assert marks_of(short, "three") == {**marks, "clarity": 3}


def test_short_tasks_are_not_selected() -> None:
    asked = request_select("Write 500 words.", "en", required_length("Write 500 words."))
    assert check_select(rules.select(asked.parts), asked.parts) == "too_short"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("Write a story about a lighthouse.", None),
        ("Write erotica about two sailors", "toxic"),
        ("写一部色情小说", "toxic"),
        ("Scrape the prices of this site", "scraping"),
        ("写一个爬虫抓取网页", "scraping"),
        ("An essay on landscape and escape", None),
    ],
)
def test_prompts_left_out_by_rule(task: str, reason: str | None) -> None:
    assert prompt_problem(task) == reason


@pytest.mark.parametrize("lang", LANGUAGES)
def test_prompts_say_what_stays_first_and_the_step_last(lang: str) -> None:
    plan = [Step(1, "The storm", 300), Step(2, "The calm", 250)]
    first = request_write("TASK", lang, plan, [], None).messages[0]["content"]
    second = request_write("TASK", lang, plan, ["One {{k}}."], None).messages[0]["content"]
    shared = second[: second.index("One {{k}}.")]
    assert first.startswith(shared)
    assert "TASK" in shared
    assert all(plan_line(step) in shared for step in plan)
    assert second.endswith("The calm")
    asked = request_plan("TASK", lang, required_length("2500 words"))
    assert "2500" in asked.messages[0]["content"]
    assert "{{" not in request_plan("TASK", lang, None).messages[0]["content"]


def test_schemas_are_kept_by_the_rules() -> None:
    asked = request_plan(TASKS["en"], "en", None)
    assert asked.schema is not None
    text = '{"steps": [{"k": 1, "main_point": "A", "words": 300}]}'
    assert extract_json(text, asked.schema, "stop")[1] is None
    assert extract_json('{"steps": [{"k": "1"}]}', asked.schema, "stop")[1] == "schema"


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("The storm came.", "en"),
        ("风暴来了。", "zh"),
        ("폭풍이 왔다.", "ko"),
        ("嵐が来た、そして去った。", ""),
        ("1912.", ""),
        ("他用 Python 和 Ray 写了一个程序处理很长的文档。", "zh"),
    ],
)
def test_scripts(text: str, lang: str) -> None:
    assert written_in(text) == lang
