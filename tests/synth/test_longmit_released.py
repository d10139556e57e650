"""Released rows of LongMIT in our columns: clues found however they are named, faults counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from longctx.synth.longmit_released import read_released, released_row
from longctx.synth.longmit_rows import parse_passages
from longctx.synth.rows import LONGMIT, Made, Reject, table_of
from longctx.synth.tokens import TokenCounter

COUNTER = TokenCounter()
TEXTS = ["The tower was built in 1912.", "Nothing of note.", "The bridge was built in 1890."]


def released(**changed: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "all_docs": [{"content": text} for text in TEXTS],
        "clue_docs": [{"content": TEXTS[2]}, {"content": TEXTS[0]}],
        "type": "inter_doc",
        "language": "en",
        "question": "Which was built first, the tower or the bridge?",
        "answer": "The tower is of 1912 and the bridge of 1890, so the bridge.",
        "hop": 2,
    }
    return {**row, **changed}


def made(**changed: Any) -> Made:
    found = released_row(released(**changed), "7", COUNTER)
    assert isinstance(found, Made)
    return found


def test_a_released_row_has_all_columns_of_ours() -> None:
    row, counts = made()
    assert counts == {}
    assert table_of([row], LONGMIT).num_rows == 1
    assert (row["id"], row["system"], row["lang"]) == ("longmit-7", "longmit", "en")
    assert (row["type"], row["hop"], row["clue_pos"]) == ("inter", 2, [2, 0])
    assert [d["role"] for d in row["docs"]] == ["clue", "random", "clue"]
    assert [row["docs"][at]["doc_id"] for at in row["clue_pos"]] == row["clue_docs"]
    assert parse_passages(row["context"], "en") == TEXTS
    assert row["response"] == row["messages"][1]["content"] == row["answer"]
    assert row["messages"][0]["content"].count(row["question"]) == 2
    assert row["context"] in row["messages"][0]["content"]
    assert row["n_tokens"] == sum(COUNTER.count(turn["content"]) for turn in row["messages"])
    assert (row["chain"], row["reasoning"], row["token_limit"]) == ([], "", None)


@pytest.mark.parametrize(
    "clues",
    [
        [TEXTS[2], TEXTS[0]],
        ["c", "a"],
        [{"id": "c", "content": "cut"}, {"id": "a"}],
        [{"id": "other", "content": TEXTS[2]}, {"content": TEXTS[0]}],
        # Twice the same, as where two questions of a document are linked.
        [{"id": "c"}, {"id": "a"}, {"id": "c"}],
    ],
)
def test_clues_are_texts_documents_or_ids(clues: list[Any]) -> None:
    docs = [{"id": i, "content": text} for i, text in zip("abc", TEXTS, strict=True)]
    row = made(all_docs=docs, clue_docs=clues).row
    assert row["clue_docs"] == ["c", "a"]
    assert row["clue_pos"] == [2, 0]


def test_ids_are_made_of_texts() -> None:
    first, again = (made().row["docs"] for _ in range(2))
    assert first == again
    assert len({doc["doc_id"] for doc in first}) == 3
    assert made(all_docs=TEXTS).row["docs"] == first


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"type": "intra", "clue_docs": [TEXTS[0]]}, ("intra", "en", 2)),
        ({"type": "intra_doc", "hop": "3", "clue_docs": [TEXTS[0]]}, ("intra", "en", 3)),
        ({"type": "single", "hop": 1, "clue_docs": [TEXTS[0]]}, ("single", "en", 1)),
        ({"language": "Chinese"}, ("inter", "zh", 2)),
        ({"language": "zh-CN"}, ("inter", "zh", 2)),
    ],
)
def test_types_and_languages_in_their_spellings(
    told: dict[str, Any], expected: tuple[str, str, int]
) -> None:
    row, counts = made(**told)
    assert (row["type"], row["lang"], row["hop"]) == expected
    assert counts == {}


def test_faults_of_the_release_are_mended_or_counted() -> None:
    row, counts = made(all_docs=[*TEXTS[:1], *TEXTS])
    assert [doc["text"] for doc in row["docs"]] == TEXTS
    assert counts == {"repeated_docs": 1}
    # All clues of a chain, of which two questions were merged.
    row, counts = made(clue_docs=TEXTS)
    assert (row["hop"], row["clue_pos"]) == (2, [0, 1, 2])
    assert counts == {"clues_unlike_hop": 1}


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"question": None}, "schema"),
        ({"answer": " "}, "schema"),
        ({"hop": 0}, "schema"),
        ({"hop": "two"}, "schema"),
        ({"language": "fr"}, "schema"),
        ({"type": "chain"}, "schema"),
        ({"all_docs": [{"text": "other"}]}, "schema"),
        ({"all_docs": None}, "schema"),
        ({"clue_docs": []}, "inconsistent"),
        ({"clue_docs": [TEXTS[0], "not there"]}, "inconsistent"),
        ({"all_docs": [*TEXTS, "One.\n\nPassage 5:\nTwo.", "Three."]}, "inconsistent"),
    ],
)
def test_rows_that_cannot_be_read_are_rejects(told: dict[str, Any], code: str) -> None:
    found = released_row(released(**told), "7", COUNTER)
    assert isinstance(found, Reject)
    assert found.code == code
    absent = {name: value for name, value in released().items() if name != "clue_docs"}
    assert read_released(absent) == Reject("schema", "KeyError: 'clue_docs'")


def test_released_rows_themselves(shared_data: Path) -> None:
    files = sorted((shared_data / "posttrain").glob("longmit*/*.jsonl"))
    if not files:
        pytest.skip("no released rows of LongMIT are among the real corpora")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    found = [released_row(row, str(i), COUNTER) for i, row in enumerate(rows)]
    assert [one for one in found if isinstance(one, Reject)] == []
    assert table_of([one.row for one in found if isinstance(one, Made)], LONGMIT).num_rows > 0
