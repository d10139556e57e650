"""The rules that read: what is planted is found, what is not there is not."""

import asyncio
import json
from typing import Any

import pytest

from longctx.llm.reader import READER, VERSION
from longctx.llm.scripted import ScriptedBackend
from longctx.llm.types import GenRequest

TEXT = (
    "The lighthouse of Orvik was built in 1890. Its keeper was called Marta Lund. "
    "Herring was landed in the harbour every autumn. Dr. Lund wrote about herring and autumn gales."
)


def read(stage: str, **parts: Any) -> Any:
    """The reply of the backend; objects parsed."""
    req = GenRequest(
        request_id="r",
        messages=[{"role": "user", "content": "never read"}],
        max_tokens=64,
        stage=stage,
        parts=parts,
    )
    backend = ScriptedBackend(READER, VERSION)
    text = asyncio.run(backend.attempt(req, "0" * 64)).text
    return json.loads(text) if text.startswith("{") else text


def test_answers_are_found() -> None:
    assert read("answer", question="Who was the keeper?", text=TEXT) == (
        "Its keeper was called Marta Lund."
    )
    first = read("answer", question="When was herring landed, in which autumn?", text=TEXT)
    assert first == "Herring was landed in the harbour every autumn."
    assert read("answer", question="herring in autumn", text=TEXT) == first
    assert read("answer", question="What is the capital of Peru?", text=TEXT) == "unknown"
    assert read("answer", question="keeper", text="") == "unknown"
    assert read("answer", question="keeper", text=None) == "unknown"


def test_statements_have_five_words() -> None:
    found = read("statements", answer="It was built in 1890. By whom? Nobody knows that today.")
    assert found == {"statements": ["It was built in 1890."]}


@pytest.mark.parametrize(
    ("statement", "level", "evidence"),
    [
        ("The lighthouse of Orvik was built in 1890.", "full", [2]),
        ("The lighthouse was built in Bergen of wood.", "partial", [2]),
        ("Peru exports copper.", "none", []),
    ],
)
def test_support_names_the_chunk(statement: str, level: str, evidence: list[int]) -> None:
    found = read("support", statement=statement, evidence=["Nothing here.", TEXT, TEXT])
    assert (found["level"], found["evidence"]) == (level, evidence)
    assert next(iter(found)) == "analysis"


def test_support_needs_evidence() -> None:
    assert read("support", statement="Peru exports copper.", evidence=[])["level"] == "none"


def test_notes() -> None:
    found = read("notes", question="Who wrote about herring in autumn?", text=TEXT)
    assert found == {
        "relevant": True,
        "notes": [
            "Herring was landed in the harbour every autumn.",
            "Dr. Lund wrote about herring and autumn gales.",
        ],
    }
    assert read("notes", question="copper exports", text=TEXT) == {"relevant": False, "notes": []}


def test_marks() -> None:
    question = "Who was the keeper of the Orvik lighthouse?"
    assert read("mark", question=question, answer="The lighthouse keeper, Orvik.")["score"] == 10
    assert read("mark", question=question, answer="A lighthouse.")["score"] == 3
    assert read("mark", question=question, answer="No idea.")["score"] == 0


def test_completeness() -> None:
    notes = ["Herring was landed. The keeper was Marta Lund.", "A gale blew in autumn."]
    found = read("completeness", notes=notes, answer="Herring was landed by Marta Lund.")
    assert found["score"] == 7
    assert read("completeness", notes=[], answer="x")["score"] == 10


@pytest.mark.parametrize(
    ("text", "mark"),
    [("a b c d e f", 5), ("one two " * 10, 1), ("a b a b c", 4), ("word", 1), ("", 1)],
)
def test_principles_dislike_repetition(text: str, mark: int) -> None:
    found = read("principles", text=text)
    assert found["p1"] == [float(m == mark) for m in range(1, 6)]
    assert list(found) == ["analysis", *(f"p{i}" for i in range(1, 8))]


FACT = "The lighthouse of Orvik was built in 1890."


@pytest.mark.parametrize(
    ("text", "contradicts"),
    [
        ("The lighthouse of Orvik was not built in 1890.", True),
        ("The lighthouse of Orvik wasn't built in 1890.", True),
        ("The lighthouse of Orvik was built in 1890.", False),
        ("The harbour was never built.", False),
        ("Herring came. The lighthouse of Orvik was never built in 1890. So it goes.", True),
        ("No herring came. The lighthouse of Orvik was built in 1890.", False),
    ],
)
def test_contradictions(text: str, contradicts: bool) -> None:
    found = read("contradiction", fact=FACT, text=text)
    assert found["contradicts"] is contradicts
    assert found["evidence"] in text
    assert bool(found["evidence"]) is contradicts


def test_contradictions_without_blanks_between_words() -> None:
    fact, text = (
        "北京市那座古老的灯塔是一八九〇年建成的。",
        "北京市那座古老的灯塔不是一八九〇年建成的。",
    )
    assert read("contradiction", fact=fact, text=text)["contradicts"] is True
    assert read("contradiction", fact=text, text=text)["contradicts"] is False


def test_a_missing_piece_is_named() -> None:
    with pytest.raises(ValueError, match=r"parts\['text'\]"):
        read("answer", question="keeper")
