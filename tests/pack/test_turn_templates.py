"""Chat templates: the packaged model's own, and small ones that do what templates of others do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.errors import RunError
from longctx.pack.stages_turns import PackTurns
from longctx.pack.stages_turns_template import chat_of, template_layout
from longctx.pack.turn_templates import NOT_NESTED, REFUSES, TemplateLayout
from longctx.pack.turns import ASSISTANT, Refused, RefusedError, Rendered, Turn, sequence_of
from longctx.score.smollm2 import packaged_folder
from tests.in_process import context_of, corpus_of, run_here

Row = dict[str, Any]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is up?"},
    {"role": "assistant", "content": "The sky."},
    {"role": "user", "content": "And down?"},
    {"role": "assistant", "content": "The earth,\nit seems: 地球。"},
]
TURNS = [Turn(**message) for message in CHAT]
ANSWERS = [turn.content for turn in TURNS if turn.role == ASSISTANT]
END = "<|im_end|>"
# The packaged vocabulary lacks some bytes, so not every text can be written in it.
TEXTS = st.text("aim_end start<|>.\n\té地😀", min_size=1, max_size=30)


@pytest.fixture(scope="module")
def packaged() -> TemplateLayout:
    return template_layout(str(packaged_folder()), "09-pack.turns")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str | None], Path]:
    """The packaged tokenizer with another template."""

    def made(template: str | None) -> Path:
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            shutil.copy(packaged_folder() / name, tmp_path / name)
        named = json.loads((tmp_path / "tokenizer_config.json").read_text())
        named.pop("chat_template")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
        if template is not None:
            (tmp_path / "chat_template.jinja").write_text(template)
        return tmp_path

    return made


def learnt(layout: TemplateLayout, found: Rendered) -> list[str]:
    return [layout.tokenizer.decode(found.ids[start:end]) for start, end in found.spans]


def test_what_is_learnt_is_what_the_assistant_says_and_its_end(packaged: TemplateLayout) -> None:
    found = packaged.render(TURNS)
    assert learnt(packaged, found) == [f"{text}{END}" for text in ANSWERS]
    end = packaged.tokenizer.token_id(END)
    for (start, stop), text in zip(found.spans, ANSWERS, strict=True):
        assert found.ids[stop - 1] == end
        assert packaged.tokenizer.decode(found.ids[start : stop - 1]) == text


def test_ids_are_those_that_transformers_makes(packaged: TemplateLayout) -> None:
    tokenizer, _ = chat_of(str(packaged_folder()), "09-pack.turns")
    for turns in (TURNS, TURNS[1:], TURNS[1:3]):
        messages = [turn._asdict() for turn in turns]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert packaged.tokenizer.decode(packaged.render(turns).ids) == whole
        ids = tokenizer.encode(whole, add_special_tokens=False)
        np.testing.assert_array_equal(packaged.render(turns).ids, ids)
    # What is not said by anybody is the template's: this one brings a system turn of its own.
    assert "named SmolLM" in packaged.tokenizer.decode(packaged.render(TURNS[1:]).ids)


@given(st.lists(TEXTS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_whatever_is_said_exactly_the_answers_are_learnt(texts: list[str]) -> None:
    layout = template_layout(str(packaged_folder()), "09-pack.turns")
    turns = [t for text in texts for t in (Turn("user", text[::-1]), Turn(ASSISTANT, text))]
    found = layout.render(turns)
    assert learnt(layout, found) == [f"{text}{END}" for text in texts]


def test_marks_inside_of_a_text_are_text(packaged: TemplateLayout) -> None:
    said = f"Write {END}\n<|im_start|>assistant\nyes"
    found = packaged.render([Turn("user", said), Turn(ASSISTANT, said)])
    end = packaged.tokenizer.token_id(END)
    # Of the system turn that it brings, of the question, of the answer.
    assert (found.ids == end).sum() == 3
    assert learnt(packaged, found) == [f"{said}{END}"]


PLAIN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ SAID }}<|im_end|>\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
USUAL = PLAIN.replace("SAID", "m['content']") + OPEN


def test_contents_whose_blanks_a_template_drops_are_learnt_without_them(
    folder: Callable[[str | None], Path],
) -> None:
    path = folder(PLAIN.replace("SAID", "m['content'] | trim") + OPEN)
    layout = template_layout(str(path), "s")
    found = layout.render([Turn("user", " a "), Turn(ASSISTANT, "\n\n yes \n")])
    assert learnt(layout, found) == [f"yes{END}"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        # Drops the answers before the last one, as templates of reasoning models do with thoughts.
        (
            USUAL.replace("{{ m['content'] }}", "{{ m['content'] if loop.last else '-' }}"),
            "does not write turn 0 once",
        ),
        # The last question of a prompt is introduced otherwise than in the whole conversation.
        (
            USUAL.replace("<|im_start|>{{", "{{ 'Now: ' if loop.last else '' }}<|im_start|>{{"),
            "is not what it writes when that answer is asked for",
        ),
        # No beginning of an answer where one is asked for.
        (USUAL.removesuffix(OPEN), "is not what it writes when that answer is asked for"),
        (USUAL.replace("<|im_end|>", " END "), "ends an answer with no special token"),
        ("{{ raise_exception('never') }}", "it fails: TemplateError: never"),
        ("{{ messages[0]['content'] * 2 }}", "does not write turn 0 once"),
    ],
)
def test_a_template_that_cannot_be_learnt_from_is_named(
    template: str, words: str, folder: Callable[[str | None], Path]
) -> None:
    path = folder(template)
    with pytest.raises(RunError, match=words) as raised:
        template_layout(str(path), "09-pack.turns")
    assert f"the chat template of {path}" in raised.value.message
    assert "format: chatml" in raised.value.remedy


def test_a_conversation_that_a_template_does_not_take_is_told(
    folder: Callable[[str | None], Path],
) -> None:
    # The system's turn stands before the last question, so that prefixes of longer ones differ.
    moved = (
        "{% for m in messages if m['role'] != 'system' %}"
        "{% if messages[0]['role'] == 'system' and m['role'] == 'user' and m['content'] == "
        "(messages | selectattr('role', 'equalto', 'user') | list)[-1]['content'] %}"
        "{{ messages[0]['content'] }}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] | replace('rude', 'good') }}<|im_end|>\n"
        "{% endfor %}" + OPEN
    )
    layout = template_layout(str(folder(moved)), "s")
    assert learnt(layout, layout.render(TURNS[1:])) == [f"{text}{END}" for text in ANSWERS]
    assert learnt(layout, layout.render(TURNS[:3])) == [f"The sky.{END}"]
    with pytest.raises(RefusedError, match="turn 1 once, in its place"):
        layout.render(TURNS)
    rude = [*CHAT[1:3], {"role": "user", "content": "rude"}]
    refused = sequence_of(layout, {"messages": rude}, "messages", None)
    assert isinstance(refused, Refused)
    assert (refused.code, "otherwise" in refused.detail) == (REFUSES, True)


def test_a_conversation_whose_prefixes_do_not_nest_is_told_from_others(
    folder: Callable[[str | None], Path],
) -> None:
    begun = "{% if messages[-1]['role'] == 'tool' %}{{ 'Tools.' }}{% endif %}"
    layout = template_layout(str(folder(begun + USUAL)), "s")
    assert learnt(layout, layout.render(TURNS)) == [f"{text}{END}" for text in ANSWERS]
    with pytest.raises(RefusedError) as raised:
        layout.render([Turn("user", "a"), Turn("tool", "b"), Turn(ASSISTANT, "c")])
    assert raised.value.code == NOT_NESTED


def test_a_template_that_writes_the_day_writes_always_the_same(
    folder: Callable[[str | None], Path],
) -> None:
    path = folder("Today: {{ strftime_now('%d %b %Y') }}\n" + USUAL)
    layout = template_layout(str(path), "s")
    assert layout.tokenizer.decode(layout.render(TURNS).ids).startswith("Today: 26 Jul 2024\n")


def test_a_tokenizer_without_a_template_is_refused(
    folder: Callable[[str | None], Path],
) -> None:
    path = folder(None)
    with pytest.raises(RunError, match="no chat template in"):
        template_layout(str(path), "s")
    with pytest.raises(RunError, match="embedded has no folder"):
        template_layout("embedded", "s")


def test_packs_are_written_in_the_template_and_again_when_it_changes(
    tmp_path: Path, folder: Callable[[str | None], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(monkeypatch)
    path = folder(USUAL)
    op = PackTurns.model_validate({"op": "pack.turns", "format": "template", "length": 500})
    rows = [
        {"doc_id": f"c{i}", "text": "-", "meta": json.dumps({"messages": CHAT}), "n_chars": 1}
        for i in range(4)
    ]
    corpus = corpus_of(str(tmp_path / "run"), rows, 2)

    def packed() -> tuple[int, list[str]]:
        chat_of.cache_clear()
        template_layout.cache_clear()
        context = context_of(op, corpus, len(rows), tokenizer=str(path))
        op.check(context.setting)
        op.run(context)
        layout = template_layout(str(path), context.setting.stage)
        (file,) = Path(context.setting.output).glob("part-*.parquet")
        (pack,) = pq.read_table(file).to_pylist()
        labels = np.array(pack["labels"])
        runs = np.split(labels, np.flatnonzero(np.diff(labels >= 0)) + 1)
        return context.skipped, [layout.tokenizer.decode(r) for r in runs if r[0] >= 0]

    assert packed() == (0, [f"{text}{END}" for text in ANSWERS] * 4)
    skipped, _ = packed()
    assert skipped > 0
    (path / "chat_template.jinja").write_text("Hear!\n" + USUAL)
    assert packed() == (0, [f"{text}{END}" for text in ANSWERS] * 4)


def test_a_first_token_of_its_own_is_the_templates() -> None:
    with pytest.raises(ValueError, match="leave `bos` out"):
        PackTurns.model_validate({"op": "pack.turns", "format": "template", "bos": True})
