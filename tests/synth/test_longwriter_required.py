"""Lengths that prompts state, in three languages; what is no length is none."""

import json
from pathlib import Path

import pytest

from longctx.synth.longwriter_required import required_length


@pytest.mark.parametrize(
    ("prompt", "x", "relation"),
    [
        ("a 2,500-word essay", 2500, "exact"),
        ("写一篇10000字的中国旅游指南", 10000, "exact"),
        ("about 1.5k words", 1500, "exact"),
        ("between 3000 and 4000 words", 3500, "range"),
        ("1万字以上的小说", 10000, "above"),
        ("2천자 이내", 2000, "below"),
        ("Write at least 5,000 words on rain.", 5000, "above"),
        ("no less than 800 words", 800, "above"),
        ("less than 800 words", 800, "below"),
        ("no more than 800 words", 800, "below"),
        ("more than 800 words", 800, "above"),
        ("A report of 800 words or more.", 800, "above"),
        ("800 words or less", 800, "below"),
        ("Moreover 300 words", 300, "exact"),
        ("不少于八百字", 800, "above"),
        ("不超过两千字", 2000, "below"),
        ("超过两万五千字", 25000, "above"),
        ("十五万字长篇小说", 150000, "exact"),
        ("写一篇一千五百字的作文", 1500, "exact"),
        ("最多3000词", 3000, "below"),
        ("3-4k words", 3500, "range"),
        ("500-1k words", 750, "range"),
        ("两到三千字", 2500, "range"),
        ("1000字至2000字", 1500, "range"),
        ("1000 words to 2000 words", 1500, "range"),
        ("3~5만 자로 쓰세요", 40000, "range"),
        ("1만 5천자 이상", 15000, "above"),
        ("최소 3000 단어의 글", 3000, "above"),
        ("5000 단어", 5000, "exact"),
        ("写一篇小说，2200字左右。", 2200, "exact"),
        ("Be plain,300 words", 300, "exact"),
        ("５０００字", 5000, "exact"),
        ("2000个字左右", 2000, "exact"),
        ("a story with 3 characters in 2000 words", 2000, "exact"),
        ("at most 280 characters", 280, "below"),
    ],
)
def test_stated_lengths(prompt: str, x: int, relation: str) -> None:
    found = required_length(prompt)
    assert found is not None
    assert (found["x"], found["relation"]) == (x, relation)
    ends = {"exact": (x, x), "above": (x, None), "below": (None, x)}
    assert relation == "range" or (found["lo"], found["hi"]) == ends[relation]


@pytest.mark.parametrize(
    "prompt",
    [
        "Write a poem.",
        "用四字成语造句",
        "3자동차",
        "3자리 수",
        "in 1912 the words",
        "0 words",
        "几千字",
        "",
    ],
)
def test_no_length(prompt: str) -> None:
    assert required_length(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "ends"),
    [
        ("between 3000 and 4000 words", (3000, 4000)),
        ("3-4k words", (3000, 4000)),
        ("500-1k words", (500, 1000)),
        ("八百到一千二百字", (800, 1200)),
        ("一千五到两千字", (1500, 2000)),
    ],
)
def test_ends_of_ranges(prompt: str, ends: tuple[int, int]) -> None:
    found = required_length(prompt)
    assert found is not None
    assert (found["lo"], found["hi"]) == ends


@pytest.mark.parametrize(
    ("prompt", "unit"),
    [
        ("900 words", "word"),
        ("900字", "字"),
        ("900词", "词"),
        ("900 단어", "단어"),
        ("900자", "자"),
        ("900 characters", "character"),
    ],
)
def test_units(prompt: str, unit: str) -> None:
    found = required_length(prompt)
    assert found is not None
    assert found["unit"] == unit


@pytest.mark.parametrize(("name", "least"), [("longbench_write", 112), ("longwrite_ruler", 48)])
def test_labelled_lengths_of_real_instructions_are_found(
    shared_data: Path, name: str, least: int
) -> None:
    """A label is the length or an end of the range: of "100 to 200" some labels say 200."""
    file = shared_data / "preference" / f"longwriter_{name}.jsonl"
    told = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = [(row["length"], required_length(row["prompt"])) for row in told]
    hits = sum(label in (r["x"], r["lo"], r["hi"]) for label, r in found if r)
    assert hits >= least
