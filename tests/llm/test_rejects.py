"""Rejects: one table, no prompt in it, and no row that disappears."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.errors import RunError
from longctx.llm.rejects import (
    CODES,
    REJECT_SCHEMA,
    Reject,
    StageCount,
    reject_row,
    reject_table,
)
from longctx.llm.types import GenError, GenRequest, GenResult, Usage

SECRET = "The lighthouse of Orvik was built by Marta Lund."
REQ = GenRequest(
    request_id="r",
    messages=[{"role": "user", "content": SECRET}],
    max_tokens=8,
    system="longreward",
    stage="answer",
    row_id="7",
)


def row(reject: Reject, row_id: str = "7") -> dict[str, object]:
    return reject_row(
        reject,
        run_id="run",
        system="longreward",
        stage="answer",
        row_id=row_id,
        model="api:m",
        ts_ms=1_764_000_000_000,
    )


def test_a_reject_of_a_call() -> None:
    result = GenResult(
        request_id="r",
        key="k" * 64,
        text="\ud800" + "x" * 3000,
        finish_reason="length",
        usage=Usage(11, 8),
        attempts=2,
        model_reported="m-0615",
        error=GenError("truncated", 400, f"the server says: '{SECRET}' is too long " * 20),
    )
    found = row(Reject(code="truncated", request=REQ, result=result))
    assert len(str(found["detail"])) <= 500
    assert "Orvik" not in str(found["detail"])
    assert "the server says" in str(found["detail"])
    assert str(found["text_head"]) == "?" + "x" * 1999
    assert (found["attempts"], found["prompt_tokens"], found["model"]) == (2, 11, "m-0615")
    table = reject_table([found])
    assert table.schema == REJECT_SCHEMA
    assert table.column("ts").to_pylist()[0].year == 2025


def test_a_reject_of_a_row_has_no_call() -> None:
    rows = [row(Reject(code="tie", detail="two answers share the first place"), i) for i in "ba"]
    table = reject_table(rows)
    assert table.column("row_id").to_pylist() == ["a", "b"]
    assert table.column("request_key").null_count == table.column("attempts").null_count == 2
    assert table.column("model").to_pylist() == ["api:m", "api:m"]
    assert reject_table([]).schema == REJECT_SCHEMA


def test_codes_are_known_and_documented() -> None:
    with pytest.raises(ValueError, match="'oops' is no code"):
        Reject(code="oops")
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [code for code in sorted(CODES) if f"`{code}`" not in page] == []


@given(st.lists(st.sampled_from(["ok", "refusal", "schema", "pending"])))
def test_rows_are_conserved(rows: list[str]) -> None:
    total = StageCount()
    for what in rows:
        one = StageCount(rows_in=1, ok=int(what == "ok"), pending=int(what == "pending"))
        if what not in ("ok", "pending"):
            one.rejects[what] += 1
        total += one
    total.check("s", stopped=True)
    if total.pending:
        with pytest.raises(RunError, match="not conserved"):
            total.check("s")
    total.rows_in += 1
    with pytest.raises(RunError, match="not conserved"):
        total.check("s", stopped=True)


def test_too_many_rejects() -> None:
    count = StageCount(rows_in=10, ok=8)
    count.rejects.update(refusal=2)
    assert count.said() == "10 rows in = 8 ok + 2 rejected (refusal 2) + 0 pending"
    count.check_share("02-answer", 0.2)
    with pytest.raises(RunError, match=r"2 of 10 rows were rejected .* \(refusal 2\)"):
        count.check_share("02-answer", 0.19)
    StageCount().check_share("02-answer", 0.0)
