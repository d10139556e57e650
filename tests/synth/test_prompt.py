"""Prompts: every stage in three languages with the same slots; values are put in once."""

import re
from importlib.resources import files

import pytest

from longctx.synth.prompt import LANGUAGES, TEXT, fill, object_schema, prompt, sections

NAMES = sorted(f.name for f in (files("longctx.synth") / "prompts").iterdir())
STAGES = sorted({name.rsplit(".", 2)[0] for name in NAMES})


def test_there_are_stages() -> None:
    assert {"longalign.questions", "longalpaca.qa", "mit.merge", "lw.plan"} <= set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_wordings_of_a_stage_have_the_same_slots(stage: str) -> None:
    slots = []
    for lang in LANGUAGES:
        found = sections(stage, lang)
        assert found["user"]
        slots.append(
            {name: set(re.findall(r"\{\{(\w+)\}\}", text)) for name, text in found.items()}
        )
    assert slots[0] == slots[1] == slots[2]


def test_values_are_never_searched_for_slots() -> None:
    parts = {"document": "{{question}} # user", "question": "{{document}}", "unused": 3}
    made = prompt("longalign.answer", "en", parts, object_schema(answer=TEXT))
    content = made.messages[0]["content"]
    assert content.startswith("{{question}} # user\n")
    assert content.endswith("Question: {{document}}")
    assert made.parts == parts
    assert made.schema is not None
    assert made.schema["required"] == ["answer"]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(KeyError, match="question"):
        prompt("longalign.answer", "en", {"document": "x"})
    with pytest.raises(ValueError, match="language 'fr'"):
        sections("longalign.answer", "fr")
    with pytest.raises(ValueError, match="no prompt of stage 'none'"):
        sections("none", "en")
    assert fill("a {{b}} {c}", {"b": "{{d}}"}) == "a {{d}} {c}"
