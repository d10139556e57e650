"""Rows that came to nothing: why, in one table for each stage.

No row is lost without a reason on disk: of every stage, rows in = rows ok + rows rejected + rows
pending, and nothing is pending unless the run was stopped by its budget or its breaker. What is
kept of a reply is its beginning, and of an error what the server said without the prompt.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from longctx.errors import RunError
from longctx.llm.scrub import scrubbed
from longctx.llm.types import GenRequest, GenResult

# What one call can come to, and what a whole row can come to; docs/operations.md explains both.
CALL_CODES = frozenset(
    {
        *("transport", "rate_limited", "bad_request", "context_overflow", "content_filter"),
        *("refusal", "sentinel", "empty", "truncated", "degenerate", "not_json", "schema"),
        "semantic",
    }
)
ROW_CODES = frozenset(
    {
        *("too_short", "too_long", "repetition", "low_score", "small_margin", "tie", "duplicate"),
        *("length_ratio", "inconsistent", "no_statements", "too_few_candidates"),
        *("source_too_long", "contaminated"),
        *("closed_book_solvable", "not_multihop", "unverified_pair", "qa_too_long"),
        *("unresolved_reference", "not_in_chunk", "clue_not_needed", "near_dup_in_path"),
        *("no_gold", "empty_answer", "answer_not_extractive", "over_quota"),
        "judge_failed",
    }
)
CODES = CALL_CODES | ROW_CODES
LONGEST_DETAIL, LONGEST_HEAD = 500, 2000

REJECT_SCHEMA = pa.schema(
    [
        *(
            (name, pa.string())
            for name in ("run_id", "system", "stage", "row_id", "request_key", "code", "detail")
        ),
        ("text_head", pa.string()),
        ("attempts", pa.int32()),
        ("finish_reason", pa.string()),
        ("model", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("ts", pa.timestamp("ms", "UTC")),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row without a result. `detail` names what was expected, never the prompt.

    ValueError for a code that is not documented.
    """

    code: str
    detail: str = ""
    request: GenRequest | None = None
    result: GenResult | None = None

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code!r} is no code of a reject")


def reject_row(
    reject: Reject, *, run_id: str, system: str, stage: str, row_id: str, model: str, ts_ms: int
) -> dict[str, Any]:
    """A row of the table. `ts_ms` are milliseconds of Unix time.

    Fields of a call are null where the row failed after its calls.
    """
    req, result = reject.request, reject.result
    detail = reject.detail
    if not detail and result is not None and result.error is not None:
        detail = result.error.message
    return {
        "run_id": run_id,
        "system": system,
        "stage": stage,
        "row_id": row_id,
        "request_key": result.key if result else None,
        "code": reject.code,
        "detail": scrubbed(detail, req.messages if req else ())[:LONGEST_DETAIL],
        "text_head": _whole(result.text[:LONGEST_HEAD]) if result else None,
        "attempts": result.attempts if result else None,
        "finish_reason": result.finish_reason if result else None,
        "model": (result.model_reported if result else None) or model,
        "prompt_tokens": result.usage.prompt if result else None,
        "completion_tokens": result.usage.completion if result else None,
        "ts": ts_ms,
    }


def _whole(text: str) -> str:
    """Text that Arrow can hold: halves of surrogate pairs are replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def reject_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows of `reject_row` as a table of REJECT_SCHEMA, ordered by row, code and key."""
    listed = sorted(rows, key=lambda r: (r["row_id"], r["code"], r["request_key"] or ""))
    return pa.Table.from_pylist(listed, schema=REJECT_SCHEMA)


@dataclass
class StageCount:
    """What became of the rows of a stage; of 1-to-k stages the child rows are counted."""

    rows_in: int = 0
    ok: int = 0
    pending: int = 0
    rejects: Counter[str] = field(default_factory=Counter)

    @property
    def rejected(self) -> int:
        return self.rejects.total()

    def __add__(self, other: "StageCount") -> "StageCount":
        return StageCount(
            self.rows_in + other.rows_in,
            self.ok + other.ok,
            self.pending + other.pending,
            self.rejects + other.rejects,
        )

    def said(self) -> str:
        """The line that is printed for a stage."""
        codes = ", ".join(f"{code} {n:,}" for code, n in self.rejects.most_common())
        why = f" ({codes})" if codes else ""
        return (
            f"{self.rows_in:,} rows in = {self.ok:,} ok + {self.rejected:,} rejected{why} + "
            f"{self.pending:,} pending"
        )

    def check(self, stage: str, *, stopped: bool = False) -> None:
        """Raise RunError if rows were lost or doubled, or wait although nothing stopped the run."""
        adds_up = self.rows_in == self.ok + self.rejected + self.pending
        if adds_up and (stopped or not self.pending):
            return
        raise RunError(
            f"rows are not conserved: {self.said()}",
            where=stage,
            remedy="this is a fault of longctx: keep the run folder and report it",
        )

    def check_share(self, stage: str, max_reject_rate: float) -> None:
        """Raise RunError if more rows were rejected than allowed; for stages that are written."""
        done = self.ok + self.rejected
        if not done or self.rejected <= max_reject_rate * done:
            return
        codes = ", ".join(f"{code} {n:,}" for code, n in self.rejects.most_common(3))
        raise RunError(
            f"{self.rejected:,} of {done:,} rows were rejected by the language model's stages "
            f"({codes}), more than the allowed {max_reject_rate:.0%}",
            where=stage,
            remedy="read the stage's table of rejects; correct prompts, model or input and run "
            "again (what was answered is in the cache), or raise max_reject_rate",
        )
