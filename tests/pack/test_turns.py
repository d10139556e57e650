"""Conversations as ids: exact borders of targets, refusals, and documents that lose their end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from longctx.pack.boundaries import IGNORE
from longctx.pack.turns import (
    Layout,
    Refused,
    Rendered,
    Turn,
    cut_document,
    labels_of,
    sequence_of,
    turns_of,
)
from longctx.text.tokenize import load_tokenizer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is up?"},
    {"role": "assistant", "content": "The sky."},
    {"role": "user", "content": "And down?"},
    {"role": "assistant", "content": "The earth,\nit seems."},
]


@pytest.fixture(scope="module")
def chatml() -> Layout:
    return Layout(load_tokenizer("embedded"), "chatml")


@pytest.fixture(scope="module")
def plain() -> Layout:
    return Layout(load_tokenizer("embedded"), "plain")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of a few words, with BOS and end of text, without marks of turns."""
    folder: Path = tmp_path_factory.mktemp("words")
    known = {w: i for i, w in enumerate(["x", "<s>", "</s>", "a", "b"])}
    made = Tokenizer(models.WordLevel(known, unk_token="x"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([AddedToken("<s>"), AddedToken("</s>")])
    made.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return load_tokenizer(str(folder))


def turns(chat: list[dict[str, Any]]) -> list[Turn]:
    found = turns_of(chat)
    assert isinstance(found, list)
    return found


def learned(layout: Layout, found: Rendered) -> list[str]:
    return [layout.tokenizer.decode(found.ids[start:end]) for start, end in found.spans]


def test_chatml_is_written_as_models_read_it(chatml: Layout) -> None:
    found = chatml.render(turns(CHAT))
    assert chatml.tokenizer.decode(found.ids) == "".join(
        f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in CHAT
    )
    assert learned(chatml, found) == ["The sky.<|im_end|>", "The earth,\nit seems.<|im_end|>"]
    marks = [chatml.tokenizer.token_id(t) for t in ("<|im_start|>", "<|im_end|>")]
    assert [int((found.ids == mark).sum()) for mark in marks] == [5, 5]
    assert found.ids.dtype == np.int32


def test_plain_needs_no_token_but_the_end_of_text(plain: Layout) -> None:
    found = plain.render(turns(CHAT))
    end = plain.tokenizer.decode([plain.tokenizer.eos_id])
    assert plain.tokenizer.decode(found.ids) == (
        f"Be brief.\n\nWhat is up?\n\nThe sky.{end}And down?\n\nThe earth,\nit seems.{end}"
    )
    assert learned(plain, found) == [f"The sky.{end}", f"The earth,\nit seems.{end}"]


def test_marks_inside_of_a_text_are_text(chatml: Layout) -> None:
    fake = [CHAT[1], {"role": "assistant", "content": "<|im_end|> is a mark"}]
    found = chatml.render(turns(fake))
    assert int((found.ids == chatml.tokenizer.token_id("<|im_end|>")).sum()) == 2
    assert learned(chatml, found) == ["<|im_end|> is a mark<|im_end|>"]


def test_a_first_token_is_put_before_all_and_is_no_target(words: Any) -> None:
    chat = turns([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b a"}])
    found = Layout(words, "plain", bos=True).render(chat)
    assert found.ids.tolist() == [1, 3, 4, 3, 2]
    assert found.spans == [(2, 5)]
    assert labels_of(found.ids, found.spans).tolist() == [IGNORE, IGNORE, 4, 3, 2]
    assert Layout(words, "plain").render(chat).ids.tolist() == [3, 4, 3, 2]


def test_an_answer_that_comes_first_has_no_target_for_its_first_token(words: Any) -> None:
    found = Layout(words, "plain").render([Turn("assistant", "a b")])
    assert (found.spans, found.targets) == ([(0, 3)], 2)


def test_a_tokenizer_without_the_marks_is_refused(words: Any, plain: Layout) -> None:
    with pytest.raises(ValueError, match=r"has no token <\|im_end\|>"):
        Layout(words, "chatml")
    with pytest.raises(ValueError, match="has no BOS"):
        Layout(plain.tokenizer, "plain", bos=True)


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (None, "no_messages"),
        ([], "no_messages"),
        ("a", "no_messages"),
        (["a"], "no_messages"),
        ([{"role": "user", "content": None}], "no_messages"),
        ([*CHAT, {"content": "a"}], "no_messages"),
        ([*CHAT, {"role": "critic", "content": "a"}], "unknown_role"),
        ([*CHAT, {"role": "assistant", "content": " \n"}], "empty_answer"),
        (CHAT[:2], "no_answer"),
    ],
    ids=str,
)
def test_what_is_no_conversation_to_learn_from_says_why(messages: Any, code: str) -> None:
    found = turns_of(messages)
    assert isinstance(found, Refused)
    assert found.code == code
    assert found.detail


DOCUMENT = " ".join(f"Line {i} tells of pier {i}." for i in range(60))


def asked(document: str) -> list[Turn]:
    asks = Turn("user", f"{document}\n\nWhat does line 3 tell of?")
    return [asks, Turn("assistant", "It tells of pier 3.")]


def test_a_long_document_loses_its_end_and_nothing_else_does(chatml: Layout) -> None:
    whole = chatml.render(asked(DOCUMENT))
    found = cut_document(chatml, asked(DOCUMENT), DOCUMENT, 100)
    assert found is not None
    assert 90 < len(found.ids) <= 100 < len(whole.ids)
    text = chatml.tokenizer.decode(found.ids)
    assert text.endswith(chatml.tokenizer.decode(whole.ids)[-len("\n\nWhat does line 3") - 60 :])
    begins = text.removeprefix("<|im_start|>user\n").partition("\n\nWhat does")[0]
    assert begins
    assert DOCUMENT.startswith(begins)
    assert learned(chatml, found) == learned(chatml, whole)


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=60), st.integers(12, 60))
def test_whatever_the_document_is_the_rest_stays(document: str, length: int) -> None:
    layout = Layout(load_tokenizer("embedded"), "chatml")
    rest = len(layout.render(asked("")).ids)
    found = cut_document(layout, asked(document), document, length)
    if found is None:
        assert length <= rest + 1
        return
    assert len(found.ids) <= length
    assert learned(layout, found) == ["It tells of pier 3.<|im_end|>"]


def test_what_cannot_be_cut_stays_too_long(chatml: Layout) -> None:
    assert cut_document(chatml, asked(DOCUMENT), DOCUMENT, 10) is None
    assert cut_document(chatml, asked(DOCUMENT), "another text", 100) is None
    # A document that only the answer quotes is no document to cut.
    quoted = [Turn("user", "Say it."), Turn("assistant", DOCUMENT)]
    assert cut_document(chatml, quoted, DOCUMENT, 100) is None


def test_records_are_cut_only_where_that_is_asked_for(chatml: Layout) -> None:
    chat = [dict(turn._asdict()) for turn in asked(DOCUMENT)]
    fields = {"messages": chat, "context": DOCUMENT}
    whole = chatml.render(asked(DOCUMENT))
    as_it_is, cut, without = (
        sequence_of(chatml, one, "messages", limit)
        for one, limit in ((fields, None), (fields, 100), ({"messages": chat}, 100))
    )
    assert not isinstance(as_it_is, Refused)
    assert not isinstance(cut, Refused)
    assert not isinstance(without, Refused)
    assert (len(as_it_is[0].ids), as_it_is[1]) == (len(whole.ids), 0)
    assert len(cut[0].ids) <= 100
    assert len(cut[0].ids) + cut[1] == len(whole.ids)
    assert (len(without[0].ids), without[1]) == (len(whole.ids), 0)
    refused = sequence_of(chatml, {}, "messages", None)
    assert isinstance(refused, Refused)
    assert refused.code == "no_messages"
