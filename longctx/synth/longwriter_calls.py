"""What AgentWrite asks a model, and what of its replies is good enough to go on with.

Four stages (arXiv 2408.07055): does a prompt need a long answer, the plan, one paragraph after the
other, the marks. In every prompt what stays the same from call to call stands first and the step
last, so a server reads the beginning once; still paragraph k re-sends all text before it. A
paragraph comes as plain text, for a thousand words inside a JSON string get broken. Prompts that
ask for pornography, weapons or scraped pages are left out by rule, as the paper does by hand; the
lists are short and ours. Lost: a harmless prompt that holds one of those phrases.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from longctx.llm.structured import is_refusal, is_sentinel
from longctx.synth.longwriter import (
    DIMENSIONS,
    LABEL,
    SLACK,
    Step,
    counter_of,
    parse_plan,
    plan_line,
    plan_problems,
    repeats,
    s_l,
)
from longctx.synth.longwriter_required import Required
from longctx.synth.prompt import (
    BOOL,
    INT,
    TEXT,
    Prompt,
    fill,
    list_of,
    object_schema,
    prompt,
    sections,
)
from longctx.synth.words import count_words

PROMPT_VERSION = "longwriter-1"
LEAST_PARAGRAPH_SCORE = 50.0
SHORTEST_PROSE = 100  # words: a paragraph this long that speaks like a refusal is fiction
_NONE_YET = {"en": "(nothing yet)", "zh": "（还没有）", "ko": "(아직 없음)"}

PLAN_MESSAGES = {
    "plan_line": "A line is not of the form 'Paragraph k - Main Point: ... - Word Count: N words'.",
    "plan_size": "There must be 2 to 50 paragraphs.",
    "plan_numbering": "Paragraphs must be numbered 1, 2, 3, ... without gaps.",
    "plan_words": "Every paragraph must have 200 to 1,000 words.",
    "plan_sum": "The words of all paragraphs must add up to the wanted length.",
    "plan_duplicate": "Two paragraphs have the same main point.",
    "plan_point": "Every paragraph needs a main point.",
}
WRITE_MESSAGES = {
    "plan_line": "Write the paragraph itself, not a line of the plan.",
    "paragraph_length": "The paragraph must have about as many words as the plan says.",
    "near_copy": "The paragraph repeats an earlier one; write what the plan says for this one.",
}
JUDGE_MESSAGES = {
    "mark_missing": "There must be a whole mark for each of the six dimensions.",
    "mark_range": "Every mark must be a whole number from 1 to 5.",
}
_AS_AN_AI = re.compile(r"\s*As an AI\b", re.IGNORECASE)
_SCRAPING = re.compile(
    r"\b(?:web[- ]?scrap|scrape|scraping|crawl(?:er|ing)?\b.{0,40}\b(?:site|page|url|web))"
    r"|爬虫|爬取|抓取.{0,12}(?:网页|网站|数据)|크롤링|스크래핑",
    re.IGNORECASE,
)
_TOXIC = re.compile(
    r"\b(?:porn\w*|erotica?|hentai|smut|nsfw|incest\w*|bestiality|(?:make|build)\s+a\s+bomb|"
    r"how\s+to\s+(?:kill|rape|poison)\s+(?:a\s+|some)?\w+|(?:cook|synthesi[sz]e)\s+meth\w*)\b"
    r"|色情|黄色小说|乱伦|制造炸弹|制作炸弹|포르노|야설|근친상간|폭탄\s*제조",
    re.IGNORECASE,
)


def prompt_problem(text: str) -> Literal["toxic", "scraping"] | None:
    """Why an instruction is left out by rule, None if it is not."""
    if _TOXIC.search(text):
        return "toxic"
    return "scraping" if _SCRAPING.search(text) else None


def request_select(task: str, lang: str, required: Required | None) -> Prompt:
    """Stage `lw.select`: whether a good answer needs more than 2,000 words."""
    schema = object_schema(reason=TEXT, needs_long=BOOL)
    parts = {"prompt": task, "lang": lang, "required": required}
    return prompt("lw.select", lang, parts, schema)


def check_select(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`too_short`, a code of its own, where no long answer is needed."""
    return None if reply["needs_long"] else "too_short"


def request_plan(task: str, lang: str, required: Required | None) -> Prompt:
    """Stage `lw.plan`: the paragraphs of the text. Lines are accepted, too: `reply_of_text`."""
    step = object_schema(k=INT, main_point=TEXT, words=INT)
    parts = {"prompt": task, "lang": lang, "required": required}
    wording = sections("lw.plan", lang)
    stated = fill(wording["stated"], {"x": str(required["x"])}) if required else wording["open"]
    schema = object_schema(steps=list_of(step))
    return prompt("lw.plan", lang, parts, schema, shown={"wanted": stated})


def steps_of(reply: Mapping[str, Any]) -> list[Step]:
    """The plan of a reply."""
    # A schema takes 300.0 for a whole number, too.
    return [Step(int(s["k"]), s["main_point"].strip(), int(s["words"])) for s in reply["steps"]]


def reply_of_text(text: str) -> dict[str, Any] | None:
    """A plan that was written in lines, in the form of an object; None where no line is a step.

    `unread` counts the lines that are none.
    """
    lines = [parse_plan(line) for line in text.splitlines() if line.strip()]
    steps = [step._asdict() for step in lines if step]
    return {"steps": steps, "unread": len(lines) - len(steps)} if steps else None


def check_plan(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> tuple[str, ...]:
    """All of `plan_problems`, `plan_point` for an empty main point, `plan_line` for lines unread.

    One re-ask goes with `PLAN_MESSAGES` of them, then the prompt is rejected.
    """
    steps = steps_of(reply)
    unread = ("plan_line",) if reply.get("unread") else ()
    pointless = () if all(step.main_point for step in steps) else ("plan_point",)
    return (*unread, *pointless, *plan_problems(steps, parts["required"]))


def request_write(
    task: str,
    lang: str,
    plan: Sequence[Step],
    paragraphs: Sequence[str],
    required: Required | None,
) -> Prompt:
    """Stage `lw.write`: the paragraph behind those that are written, as plain text."""
    step = plan[len(paragraphs)]
    parts = {
        "prompt": task,
        "lang": lang,
        "plan": [tuple(s) for s in plan],
        "paragraphs": list(paragraphs),
        "step": tuple(step),
        "required": required,
    }
    shown = {
        "plan": "\n".join(map(plan_line, plan)),
        "so_far": "\n\n".join(paragraphs) or _NONE_YET[lang],
        **{name: str(value) for name, value in step._asdict().items()},
    }
    return prompt("lw.write", lang, parts, shown=shown)


def check_write(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """A paragraph is no message of a client, refusal, line of the plan, near-copy, or far too long.

    `reply` is {"text"}. `empty`, `sentinel` and `refusal` are codes of their own; details are
    `plan_line`, `paragraph_length` (S_l below 50) and `near_copy`.
    """
    text = reply["text"].strip()
    if not text:
        return "empty"
    if is_sentinel(text):
        return "sentinel"
    words = count_words(text, counter_of(parts["required"]))
    if refuses(text, words):
        return "refusal"
    if any(parse_plan(line) for line in text.splitlines()):
        return "plan_line"
    if s_l(Step(*parts["step"]).words, words) < LEAST_PARAGRAPH_SCORE - SLACK:
        return "paragraph_length"
    return "near_copy" if repeats(text, parts["paragraphs"]) else None


def refuses(text: str, words: int) -> bool:
    """Whether a paragraph is a refusal: it begins with "As an AI", or is short and speaks like one.

    "I cannot help but wonder" in a story is none.
    """
    body = LABEL.sub("", text, count=1) if LABEL.match(text) else text
    return bool(_AS_AN_AI.match(body)) or (words < SHORTEST_PROSE and is_refusal(body))


def request_judge(task: str, response: str, lang: str) -> Prompt:
    """Stage `lw.judge`: marks 1..5 in six dimensions, length left out of account."""
    marks = dict.fromkeys(DIMENSIONS, INT)
    parts = {"prompt": task, "response": response, "lang": lang}
    return prompt("lw.judge", lang, parts, object_schema(analysis=TEXT, **marks))


def check_judge(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`mark_missing` or `mark_range`; None where all six are whole numbers 1..5."""
    marks = [reply.get(name) for name in DIMENSIONS]
    if any(not isinstance(m, int) or isinstance(m, bool) for m in marks):
        return "mark_missing"
    return None if all(1 <= m <= 5 for m in marks if m is not None) else "mark_range"


def marks_of(
    reply: Mapping[str, Any], missing: Literal["reject", "three"] = "reject"
) -> dict[str, int] | None:
    """The six marks of a judge; None where one is missing, unless it is to count as three.

    "three" is what LongWriter's released code does, for its published numbers alone.
    """
    given = {name: reply[name] for name in DIMENSIONS if isinstance(reply.get(name), int)}
    if missing == "three":
        return {name: given.get(name, 3) for name in DIMENSIONS}
    return given if len(given) == len(DIMENSIONS) else None
