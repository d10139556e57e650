"""What the reader is told to look at follows from the data, and only from it."""

from dataclasses import replace

import pytest

from longctx.report.data import Exported, Histogram, Mix, Neighbours, ReportData, StageRow
from longctx.report.findings import findings
from tests.report.example import empty, example, window_audit

NONE = Histogram([0.0, 1.0], [0], "cosine")


def calm() -> ReportData:
    stage = StageRow("00-read", "read", 100, 100, {}, 0, 1.0)
    return replace(empty(), stages=[stage], windows=None)


def sentences(data: ReportData) -> list[str]:
    return [finding.sentence for finding in findings(data)]


def stage(**changes: object) -> ReportData:
    return replace(calm(), stages=[replace(calm().stages[0], **changes)])  # type: ignore[arg-type]


def test_a_clean_run_has_nothing_to_worry_about() -> None:
    assert findings(calm()) == []


def test_an_unfinished_run_is_a_problem() -> None:
    assert findings(replace(calm(), status="failed"))[0].grave


def test_lost_rows_are_a_problem_and_counted() -> None:
    found = findings(stage(rows_out=93, dropped={"short": 4}, quarantined=1))
    assert "2 rows of 00-read: unaccounted for." in [f.sentence for f in found if f.grave]
    assert "3 rows of 00-read: more than went in." in sentences(stage(rows_out=103))


@pytest.mark.parametrize(("held", "grave"), [(1, False), (2, True)])
def test_quarantine_is_a_problem_above_one_percent(held: int, grave: bool) -> None:
    data = replace(
        stage(rows_out=100 - held, quarantined=held), quarantine={"bad": held, "worse": 0}
    )
    (found,) = findings(data)
    assert found.grave is grave
    assert found.sentence.endswith("the most frequent reason is bad.")
    assert found.section == "quarantine"


def test_a_stage_that_drops_half_is_named_with_its_main_reason() -> None:
    (said,) = sentences(stage(rows_out=50, dropped={"short": 30, "long": 20}))
    assert said == "00-read dropped 50.0 % of its rows, most of them as short."
    assert sentences(stage(rows_out=51, dropped={"short": 49})) == []


def test_order_without_gain_and_with_jumps() -> None:
    poor = Neighbours(NONE, NONE, mean_ordered=0.11, mean_random=0.1, jumps=0.3)
    said = sentences(replace(calm(), neighbours=poor))
    assert said[0].endswith("than in a random order (mean cosine 0.110 against 0.100).")
    assert said[1].startswith("30.0 % of the steps")
    good = replace(poor, mean_ordered=0.5, jumps=0.1)
    assert sentences(replace(calm(), neighbours=good)) == []


def test_windows_low_fill_dropped_tokens_and_splits() -> None:
    audit = replace(window_audit(), fill=0.9, tokens=99, tokens_dropped={"tail": 1})
    said = sentences(replace(calm(), windows=audit))
    assert [s.split(" ")[0] for s in said] == ["Windows", "Packing", "11.9"]
    fine = replace(audit, fill=0.99, tokens_dropped={}, split_short=0.0)
    assert sentences(replace(calm(), windows=fine)) == []


def mix(*packed: tuple[str, int]) -> list[Mix]:
    return [Mix(name, 100, tokens, 1, 1) for name, tokens in packed]


def test_a_dominating_a_moved_and_a_lost_source() -> None:
    said = sentences(replace(calm(), sources=mix(("a", 80), ("b", 20), ("c", 0))))
    assert said[0] == "One source dominates: a holds 80.0 % of the kept tokens."
    assert said[1].startswith("The source a grew from 33.3 %")
    assert said[2] == "1 source left no token: c."
    assert sentences(replace(calm(), sources=mix(("a", 50), ("b", 50)))) == []


def test_tokens_without_a_licence() -> None:
    data = replace(calm(), licenses=mix(("MIT", 50), ("", 25), ("Unknown", 25)))
    assert "50.0 % of the kept tokens have no known licence." in sentences(data)


def test_problems_come_first() -> None:
    grave = [f.grave for f in findings(replace(example(), status="failed"))]
    assert grave == sorted(grave, reverse=True)
    assert any(grave)
    assert not all(grave)


@pytest.mark.parametrize(("op", "made"), [("pack", "packed"), ("export", "exported")])
def test_tokens_are_told_by_what_was_made_of_them(op: str, made: str) -> None:
    files = Exported(2, 100, 5000, "jsonl") if op == "export" else None
    data = replace(stage(op=op), licenses=mix(("unknown", 100)), exported=files)
    assert sentences(data) == [f"100 % of the {made} tokens have no known licence."]
