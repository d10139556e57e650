"""What a reply says: the fixtures of the specification, and what must hold for any object."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.llm.structured import (
    extract_json,
    is_degenerate,
    is_refusal,
    is_sentinel,
    parse_label,
    parse_mark,
    verdict,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "analysis": {"type": "string", "minLength": 1},
        "score": {"type": "number", "minimum": 0, "maximum": 10},
    },
    "required": ["analysis", "score"],
}
OK = '{"analysis":"ok","score":7}'
FIXTURES: list[tuple[str | None, str, str | None]] = [
    (f"```json\n{OK}\n```", "stop", None),
    (f"Sure. {OK} Done.", "stop", None),
    ('{"analysis":"a {b} c","score":7,"x":{"y":1}}', "stop", None),
    ('{"analysis":"ok","score":7,}', "stop", None),
    ("{'analysis':'ok','score':7}", "stop", "not_json"),
    ('{"analysis":"ok","score":NaN}', "stop", "not_json"),
    ('{"analysis":"ok","score":"7"}', "stop", "schema"),
    ('{"analysis":"ok","score":true}', "stop", "schema"),
    ('{"analysis":"ok","score":11}', "stop", "schema"),
    (f'Example {{"analysis":"x","score":1}} mine {OK}', "stop", "not_json"),
    (f"{OK}\n{OK}", "stop", None),
    ('{"analysis":"ok","sco', "length", "truncated"),
    ('{"analysis":"ok","sco', "stop", "not_json"),
    (f'<think>{{"analysis":"t","score":1}}</think>{OK}', "stop", None),
    ('{"analysis":"ok","score":7,"score":8}', "stop", "not_json"),
    ("I cannot help with that.", "stop", "refusal"),
    ("   \n\n\n", "length", "empty"),
    (None, "stop", "empty"),
    # beyond the table
    (f"[{OK}]", "stop", None),
    (f'{OK} and {{"analysis":"mo', "length", "truncated"),
    (f'{OK} and {{"analysis":"mo', "stop", "not_json"),
    ("<think>on and on", "length", "truncated"),
    ("<think>on and on", "stop", "not_json"),
    ('{"analysis":"} {","score":3} and {"other":1}', "stop", None),
    ('{"analysis":"ok","score":1e999}', "stop", "not_json"),
    ('{"analysis":"\\ud800","score":1}', "stop", "not_json"),
    ('{"analysis":"ok","score":[7}', "stop", "not_json"),
    ('{"analysis":"ok","score":7,,}', "stop", "not_json"),
    ('{"analysis":"ok" "score":7}', "stop", "not_json"),
    ("{“analysis”:“ok”,“score”:7}", "stop", "not_json"),
    ('{"a":' * 5000 + "1" + "}" * 5000 + " ok", "stop", "not_json"),
    ("No object at all.", "stop", "not_json"),
    ("No object yet", "length", "truncated"),
    ("Max tries. Failed.", "stop", "sentinel"),
    (f"I'm sorry, but I can't do more than this: {OK}", "stop", None),
    ("I’m sorry, but I can’t say {", "stop", "refusal"),
    ("ab" * 300, "length", "degenerate"),
    (f'{{"analysis":"{" " * 300}', "length", "degenerate"),
]


@pytest.mark.parametrize(("reply", "finish", "code"), FIXTURES)
def test_fixtures(reply: str | None, finish: str, code: str | None) -> None:
    found = verdict(reply, finish, SCHEMA)
    assert found.code == code
    assert (found.value is None) == (code is not None)
    if code in (None, "empty", "schema"):
        assert extract_json(reply, SCHEMA, finish) == (found.value, code, found.fix)


def test_the_object_that_counts() -> None:
    value, _, fix = extract_json('{"analysis":"ok","score":7,\n}', SCHEMA, "stop")
    assert (value, fix) == ({"analysis": "ok", "score": 7}, "trailing_comma")
    thought = f'<think>{{"analysis":"t","score":1}}</think>{OK}'
    assert extract_json(thought, SCHEMA, "stop") == ({"analysis": "ok", "score": 7}, None, None)


def test_a_comma_inside_a_string_stays() -> None:
    value, _, fix = extract_json('{"analysis":"a,} b,]","score":7,}', SCHEMA, "stop")
    assert value == {"analysis": "a,} b,]", "score": 7}
    assert fix == "trailing_comma"


def test_what_is_wrong_is_said_with_its_place() -> None:
    assert verdict('{"analysis":"ok","score":"7"}', "stop", SCHEMA).messages == (
        "$.score: '7' is not of type 'number'",
    )
    assert "score" in verdict('{"analysis":"ok"}', "stop", SCHEMA).messages[0]
    assert (
        "2 different" in verdict(f'{OK} {{"analysis":"x","score":1}}', "stop", SCHEMA).messages[0]
    )


def test_replies_of_stages_without_a_schema() -> None:
    assert verdict("The answer is 7.", "stop").code is None
    assert verdict("The answer is", "length").code == "truncated"
    assert verdict("<think>hm</think>\nIt is 7.", "stop").text == "It is 7."
    assert verdict("<think>hm</think>\n", "stop").code == "empty"
    assert verdict("<think>hm", "length").code == "truncated"


REFUSALS = [
    "I cannot help with that.",
    "I'm sorry, but I can't do this.",
    "As an AI, I have no opinion.",
    "很抱歉，我无法回答这个问题。",
    "죄송합니다. 그 요청은 도와드릴 수 없습니다.",
    "申し訳ありませんが、お手伝いできません。",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals(text: str) -> None:
    assert is_refusal(text)
    assert is_refusal(f"\n {text.upper()}")
    assert not is_refusal("x" * 200 + text)


@pytest.mark.parametrize("text", ["He acted as an aide.", "Was an airline late?", "我们无法确定"])
def test_no_refusals(text: str) -> None:
    assert not is_refusal(text)


def test_sentinels_stand_at_the_beginning() -> None:
    assert is_sentinel("Trigger OpenAI’s content management policy, sorry")
    assert not is_sentinel("They saw: Max tries. Failed.")


def test_degenerate_texts() -> None:
    assert is_degenerate("ok" + " " * 200 + "ok")
    assert not is_degenerate("ok" + " " * 199 + "ok")
    unit = "The reader is asked to read this again. "
    assert len(unit) == 40
    assert is_degenerate("Once. " + unit * 10)
    assert not is_degenerate("Once. " + unit * 9)
    assert not is_degenerate("".join(chr(97 + i * i % 23) for i in range(41)) * 20)
    # Cut in the middle of a unit, as max_tokens does it.
    assert is_degenerate((unit * 12)[:-7])


def test_marks() -> None:
    assert parse_mark("Marks: [[3]] then [[11]]", 0, 10) == (None, "semantic")
    assert parse_mark("[[11]] no: [[ 7.5 ]]", 0, 10) == (7.5, None)
    assert parse_mark("7 of 10, [7], [[seven]]", 0, 10) == (None, "not_json")


def test_labels_need_the_whole_word() -> None:
    mapping = {"Fully supported": 1.0, "Not supported": 0.0}
    assert parse_label("[[not supported]] hm, [[fully\n SUPPORTED]]", mapping) == (1.0, None)
    assert parse_label("[[fully supported, mostly]]", mapping) == (None, "semantic")
    assert parse_label("fully supported", mapping) == (None, "not_json")


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)
PROSE = st.text(st.sampled_from("ab \n\"'.,:`[]()"), max_size=20)


@given(OBJECTS, PROSE, PROSE, st.booleans())
def test_any_object_is_found_in_any_prose(
    value: dict[str, Any], before: str, after: str, ascii_only: bool
) -> None:
    text = before + json.dumps(value, ensure_ascii=ascii_only) + after
    assert extract_json(text, {"type": "object"}, "stop") == (value, None, None)


@given(OBJECTS.filter(bool), st.data())
def test_no_part_of_an_object_passes_for_it(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value)
    part = text[: data.draw(st.integers(1, len(text) - 1))]
    assert extract_json(part, {"type": "object"}, "length") == (None, "truncated", None)
    assert extract_json(part, {"type": "object"}, "stop") == (None, "not_json", None)


@given(st.text(st.sampled_from('{}[]",:\\a1 \n'), max_size=60))
def test_every_text_has_a_verdict(text: str) -> None:
    value, code, _ = extract_json(text, SCHEMA, "stop")
    assert (value is None) != (code is None)


def test_time_is_linear_in_the_text() -> None:
    for text in ('{"' * 200_000, "{]" * 20_000, '{"a":' * 100_000, '{}"' * 10_000):
        assert verdict(text + "x", "stop", SCHEMA).value is None
