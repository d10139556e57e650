"""VaL probing: contexts that ask once about every position, and its scores."""

import json

import pytest

from longctx.synth.film_rows import occurrences
from longctx.synth.film_val import (
    Element,
    build_probes,
    entity_element,
    entity_found,
    function_element,
    function_named,
    sentence_element,
    sentence_found,
)
from tests.conftest import SHARED

SENTENCES = SHARED / "posttrain/film_val/document_sentences.jsonl"


def test_every_position_is_asked_about_by_a_key_of_its_own() -> None:
    pool = [entity_element(f"Q{i:03d}", f"label {i}", f"thing {i}.") for i in range(40)]
    probes = build_probes([*pool, pool[3]._replace(text="again Q003")], 20, 5)
    assert [probe.name for probe in probes] == ["set-0", "set-1", "set-2", "set-3"]
    for probe in probes:
        lines = probe.context.split("\n")
        assert [item.position for item in probe.items] == list(range(20))
        for item in probe.items:
            assert occurrences(item.key, probe.context) == 1
            assert item.key in lines[item.position]
    assert probes[0].context != probes[1].context
    assert probes == build_probes([*pool, pool[3]._replace(text="again Q003")], 20, 5)


def test_keys_that_stand_twice_are_replaced_or_refused() -> None:
    same = [Element(f"x same {i}", ["same"], ["x"]) for i in range(5)]
    sound = [Element(f"y own-{i}-", [f"own-{i}-"], ["y"]) for i in range(9)]
    (probe,) = build_probes([*same, *sound], 9, 1, sets=1)
    assert sum(item.key == "same" for item in probe.items) <= 1
    with pytest.raises(ValueError, match="fewer than 12 of 14"):
        build_probes([*same, *sound], 12, 1, sets=1)


def test_functions_are_asked_for_by_lines_that_do_not_name_them() -> None:
    code = "def area(r):\n    x = r * r\n    area.calls += 1\n\n    y = 3 * x\n    return y\n"
    element = function_element("area", code, 1)
    assert len(element.keys) == 3
    assert set(element.keys) == {"x = r * r", "y = 3 * x", "return y"}
    assert element.gold == ["area"]


def test_scores() -> None:
    assert function_named("get", "It is `get`.")
    assert not function_named("get", "It is get_all.")
    assert function_named("get", "It is get_all.", strict=False)
    assert not function_named("Get", "get")
    assert not function_named("", "anything")
    assert not function_named("", "anything", strict=False)
    assert entity_found("Old Town.", "", "the OLD TOWN of")
    assert not entity_found("", " ", "anything")
    assert not entity_found("label", "words", "other")
    assert sentence_found("a b c d", "D c x") == 0.5


@pytest.mark.skipif(not SENTENCES.exists(), reason=f"no real sentences at {SENTENCES}")
def test_contexts_of_real_sentences() -> None:
    with SENTENCES.open() as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(1500), strict=False)]
    pool = [sentence_element(row["sentence"], row["piece"]) for row in rows]
    (probe,) = build_probes(pool, 400, 1, sets=1)
    listed = probe.context.split("\n")
    assert all(item.key in listed[item.position] for item in probe.items)
    assert all(occurrences(item.key, probe.context) == 1 for item in probe.items)
