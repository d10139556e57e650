"""LOGO's rows: the planted signal found, training rows that hold, figures that catch faults."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.llm.reader import answer
from longctx.llm.types import GenRequest
from longctx.pack.boundaries import IGNORE
from longctx.prefer import logo_figures, logo_positions, logo_train
from longctx.prefer.exporters import from_trl, to_trl
from longctx.prefer.logo_calls import SIDES, gold_problem, likeness_problem, request_answer
from longctx.prefer.logo_rows import (
    LOGO,
    Plan,
    build_row,
    context_of,
    plan,
    second_pair,
    turns_of,
)
from longctx.prefer.logo_train import (
    FIELDS,
    NAMES,
    TRAIN,
    Window,
    collate,
    draw,
    expand,
    length_problem,
    lengths,
    plain_frame,
    row_group,
    sound,
    train_rows,
)
from longctx.prefer.pairs import Side, listed
from longctx.synth.rows import Reject, Row, table_of
from longctx.synth.tokens import token_counter
from tests.prefer.logo_documents import CHOICE, asked, planted

GOLD = "Port Velvet"
COUNTER = token_counter("whitespace")
FRAME = plain_frame(COUNTER)._replace(end=[7])
WINDOW = Window(K=4_096, Q=96, max_seq=1_000)
DOCUMENT = planted()


def planned(document: str = DOCUMENT, **changes: Any) -> Plan | Reject:
    return plan(asked(), document, COUNTER, 3, replace(CHOICE, **changes))


def read(text: str) -> str:
    parts = request_answer(text, asked().text, "en").parts
    return answer(GenRequest(request_id="r", messages=[], max_tokens=9, parts=parts))


def answers_of(found: Plan, document: str = DOCUMENT) -> dict[str, str]:
    return {side: read(found.text(document, side)) for side in SIDES}


def row_of(document: str = DOCUMENT, seed: int = 3, doc_id: str = "d", **fields: Any) -> Any:
    question = fields.pop("question", asked(doc_id))
    found = plan(question, document, COUNTER, seed, CHOICE)
    assert isinstance(found, Plan)
    said = {side: Side(text=text) for side, text in answers_of(found, document).items()}
    usual: dict[str, Any] = {
        "counter": COUNTER,
        "frame": FRAME,
        "window": WINDOW,
        "variants": 2,
        "seed": seed,
        "model": "m",
        "judge_model": None,
        "checks": {"right_wrong_wrong": True},
    }
    return build_row(question, document, found, said, **{**usual, **fields})


def test_the_planted_chunks_are_those_that_are_found() -> None:
    found = planned()
    assert isinstance(found, Plan)
    assert len(found.spans) == 43
    assert found.chosen.relevant == [5, 20, 33]
    assert len(found.chosen.context) == 16
    said = answers_of(found)
    assert GOLD in said["chosen"]
    assert gold_problem(said, GOLD) is None
    assert likeness_problem(said) is None


def test_the_answer_in_every_chunk_is_no_signal() -> None:
    found = planned(planted(tuple(range(43))))
    assert isinstance(found, Reject)
    assert found.code == "low_score"


def test_an_answer_in_an_irrelevant_context_is_no_triple() -> None:
    found = planned()
    assert isinstance(found, Plan)
    said = answers_of(found)
    told = {**said, "rejected_2": f"It was {GOLD}, they say there."}
    assert gold_problem(told, GOLD) == Reject("unverified_pair", "rejected_2 is right")


def test_a_row_says_where_everything_comes_from() -> None:
    row = row_of()
    assert set(row) == set(LOGO.names)
    table = table_of([listed(row)], LOGO).to_pylist()[0]
    assert [c["chunk_id"] for c in row["chunks"] if c["role"] == "relevant"] == [5, 20, 33]
    assert row["chosen_chunks"] == [5, 20, 33]
    assert len(row["rejected_1_chunks"]) == len(row["rejected_2_chunks"]) == 3
    assert len(set(row["rejected_2_chunks"]) & {5, 20, 33}) == 1  # the weakest
    assert row["context_ref"]["doc_id"] == "d"
    first, last = row["chunks"][0], row["chunks"][-1]
    ref = row["context_ref"]
    assert (ref["start_char"], ref["end_char"]) == (first["start_char"], last["end_char"])
    context = context_of(table, DOCUMENT)
    assert all(DOCUMENT[c["start_char"] : c["end_char"]] in context for c in row["chunks"])
    assert row_of() == row
    assert row_of(seed=4) != row


def test_a_text_of_no_document_stands_in_its_row() -> None:
    known, found = row_of(), row_of(question=replace(asked(), doc_id=None))
    assert found["context_ref"] is None
    context = context_of(known, DOCUMENT)
    assert from_trl(to_trl(found)).prompt == from_trl(to_trl(known, context)).prompt
    assert found["tokens"] == known["tokens"]


def test_exported_prompts_are_those_that_were_asked() -> None:
    row = row_of()
    context = context_of(row, DOCUMENT)
    wanted = [dict(m) for m in request_answer(context, asked().text, "en").messages]
    other = second_pair(row)
    assert other["id"] != row["id"]
    for pair, rejected in ((row, row["rejected"]), (other, row["rejected_2"])):
        texts = from_trl(to_trl(pair, context))
        assert texts == (wanted, row["chosen"], rejected)
    assert turns_of(asked())[1]["content"].startswith("Question: ")


def test_training_rows_are_what_the_specification_says() -> None:
    row = row_of()
    trained = train_rows(row)
    assert [t["id"] for t in trained] == [f"{row['id']}-0", f"{row['id']}-1"]
    assert trained[0]["chosen_position_ids"].tolist() != trained[1]["chosen_position_ids"].tolist()
    tokens = row["tokens"]
    for one in trained:
        assert sound(one, WINDOW) == []
        sizes = {len(one[f"{name}_{field}"]) for name in NAMES.values() for field in FIELDS}
        assert len(sizes) == 1
        for side, name in NAMES.items():
            labels = one[f"{name}_labels"]
            assert labels[labels != IGNORE].tolist() == tokens[side]
            assert tokens[side][-1] == 7
            at = int(np.flatnonzero(labels != IGNORE)[0])
            assert one[f"{name}_position_ids"][at - len(tokens["question"])] == 4_000  # K - Q
            assert one[f"{name}_input_ids"].dtype == np.int32
            assert one[f"{name}_attention_mask"].sum() == at + len(tokens[side])
    table = row_group(trained)
    assert table.schema.equals(TRAIN)


def test_the_text_of_a_training_row_is_the_prompt() -> None:
    row = row_of()
    tokens = row["tokens"]
    asked_ids = [*tokens["prefix"], *(i for c in tokens["chunks"] for i in c), *tokens["question"]]
    turns = request_answer(context_of(row, DOCUMENT), asked().text, "en").messages
    whole = "\n\n".join(turn["content"] for turn in turns)
    assert asked_ids == COUNTER.encode(whole).ids.tolist()


def compact(prefix: int, lens: list[int], question: int, answers: list[int]) -> dict[str, Any]:
    said = {side: list(range(900, 900 + n)) for side, n in zip(SIDES, answers, strict=True)}
    chunks = [[10 + i] * n for i, n in enumerate(lens)]
    return {"prefix": [1] * prefix, "chunks": chunks, "question": [2] * question, **said}


@given(
    st.integers(0, 6),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 6),
    st.lists(st.integers(1, 10), min_size=3, max_size=3),
    st.integers(0, 999),
    st.floats(0, 1),
)
def test_training_rows_of_any_lengths_are_sound(
    prefix: int, lens: list[int], question: int, answers: list[int], seed: int, sparse: float
) -> None:
    tokens = compact(prefix, lens, question, answers)
    window = Window(K=prefix + 16 + 10 * len(lens), Q=16, max_seq=1_000, sparse_share=sparse)
    assert length_problem(tokens, window) is None
    _, places = draw(lengths(tokens), prefix, "r", 0, seed, window)
    row = expand(tokens, places, pad_id=5)
    assert sound(row, window) == []
    n = prefix + sum(lens) + question + max(answers)
    assert {len(values) for values in row.values()} == {n}
    positions = [row[f"{name}_position_ids"] for name in NAMES.values()]
    asked_tokens = n - max(answers)
    for own in positions:
        assert own[:asked_tokens].tolist() == positions[0][:asked_tokens].tolist()
        assert (np.diff(own) >= 0).all()  # padding, too: no falling back


@pytest.mark.parametrize(
    ("tokens", "code"),
    [
        (compact(4, [5, 5], 10, [5, 7, 3]), "qa_too_long"),
        (compact(4, [50, 50], 5, [5, 7, 3]), "too_long"),  # of max_seq
        (compact(4, [45, 5], 5, [5, 7, 3]), "too_long"),  # of its slot
    ],
)
def test_what_does_not_fit_is_a_reject_and_never_cut(tokens: dict[str, Any], code: str) -> None:
    problem = length_problem(tokens, Window(K=100, Q=16, max_seq=100))
    assert problem is not None
    assert problem.code == code


def test_a_batch_is_padded_and_never_cut() -> None:
    rows = []
    for n in (3, 9):
        tokens = compact(2, [4, 4], 3, [n, 2, 1])
        rows.append(expand(tokens, draw([4, 4], 2, "r", 0, 1, Window(K=60, Q=16))[1], pad_id=5))
    batch = collate(rows, pad_id=5)
    assert {values.shape for values in batch.values()} == {(2, 22)}
    for k, row in enumerate(rows):
        for name, values in row.items():
            assert batch[name][k][: len(values)].tolist() == values.tolist()
        for name in NAMES.values():
            padded = {f: batch[f"{name}_{f}"][k][16:] for f in FIELDS} if k == 0 else {}
            for field, end in padded.items():
                last = row[f"{name}_position_ids"][-1]
                fill = {"input_ids": 5, "attention_mask": 0, "labels": IGNORE}.get(field, last)
                assert set(end.tolist()) == {fill}
    with pytest.raises(ValueError, match="a row of 22 tokens; max_seq is 20"):
        collate(rows, max_seq=20)


def test_the_share_of_sparse_rows_is_that_of_the_paper() -> None:
    modes = [draw([4, 4], 2, f"r{i}", 0, 1, Window(K=60, Q=16))[0] for i in range(1_000)]
    assert 70 <= modes.count("sparse") <= 130
    assert set(modes) == {"sparse", "continuous"}


def facts_of(n: int) -> list[dict[str, Any]]:
    """The facts of as many rows that differ in what is drawn from their ids."""
    row = row_of()
    named = ({**row, "id": f"{row['id']}{i}"} for i in range(n))
    modes = ([draw([1], 1, r["id"], k, 3, WINDOW)[0] for k in (0, 1)] for r in named)
    return [
        logo_figures.facts({**row, "id": f"{row['id']}{i}", "modes": own})
        for i, own in enumerate(modes)
    ]


def failed(facts: list[dict[str, Any]], window: Window = WINDOW) -> set[str]:
    checks = logo_figures.figures(facts, window)
    return {name for name, check in checks.items() if check.get("ok") is False}


def test_figures_of_sound_rows_hold_and_each_fault_has_its_check() -> None:
    facts = facts_of(60)
    checks = logo_figures.figures(facts, WINDOW)
    assert {c["ok"] for c in checks.values() if "ok" in c} == {True}
    assert checks["position_coverage"]["share"] > 0.99
    assert failed([*facts[:-1], {**facts[-1], "chunks": [3, 3, 2]}]) == {"equal_chunks"}
    assert failed([*facts[:-1], {**facts[-1], "problems": ["labels"]}]) == {"sound_rows"}
    long = [{**f, "words": [30, 12, 12]} for f in facts]
    assert failed(long) == {"answer_lengths"}
    sparse = [{**f, "modes": ["sparse", "sparse"]} for f in facts]
    assert failed(sparse) == {"modes"}
    both = logo_figures.figures([{**f, "agreement": k / 60} for k, f in enumerate(facts)], WINDOW)
    assert both["evaluators"] == {"tau_b": 0.4917, "rows": 60}
    few = logo_figures.figures(facts[:1], WINDOW)
    assert few["position_coverage"]["ok"] is few["offsets"]["ok"] is None
    assert logo_figures.figures([], WINDOW) == {}


def test_offsets_that_are_all_alike_fail_their_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of(60)
    real = logo_positions.positions

    def first(lens: Any, S: int, Q: int, K: int, mode: Any, rng: Any) -> Any:
        return real(lens, S, Q, K, "continuous", [0] * len(lens))

    monkeypatch.setattr(logo_train, "positions", first)
    assert {"position_coverage", "offsets"} <= failed(facts)


def test_a_broken_training_row_is_named() -> None:
    row = train_rows(row_of())[0]

    def with_(name: str, at: int, value: int) -> Row:
        changed = row[name].copy()
        changed[at] = value
        return {**row, name: changed}

    assert sound(with_("chosen_position_ids", 40, 0), WINDOW) == ["positions", "unshared_context"]
    assert sound(with_("reject_1_input_ids", 9, 3), WINDOW) == ["unshared_context"]
    assert sound(with_("reject_2_labels", 4, 3), WINDOW) == ["labels"]
    short = {**row, "chosen_labels": row["chosen_labels"][:-1]}
    assert "unequal_lengths" in sound(short, WINDOW)


def test_lengths_of_a_pair_are_compared() -> None:
    found = row_of(max_ratio=1.0)
    assert isinstance(found, Reject)
    assert found.code == "length_ratio"
    assert found.detail.startswith("rejected_")
