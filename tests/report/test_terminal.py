"""The closing table fits 80 columns, keeps every number and reads well without a terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from longctx.report.data import Exported, PackedTurns, ReportData
from longctx.report.terminal import closing_table
from tests.report.example import empty, example, hostile


def printed(data: ReportData, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(closing_table(data))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def larger(factor: int) -> ReportData:
    return replace(
        example(),
        stages=[
            replace(
                stage,
                rows_in=stage.rows_in * factor,
                rows_out=stage.rows_out * factor,
                dropped={reason: rows * factor for reason, rows in stage.dropped.items()},
                seconds=stage.seconds * factor,
            )
            for stage in example().stages
        ],
    )


@pytest.mark.parametrize("data", [example(), larger(97), larger(10_007), empty(), hostile()])
def test_no_line_is_wider_than_the_terminal_and_none_is_cut(data: ReportData) -> None:
    text = printed(data)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\u2026" not in text


@pytest.mark.parametrize("factor", [1, 60, 97, 10_007])
def test_stage_names_stay_on_one_line(factor: int) -> None:
    lines = printed(larger(factor)).splitlines()
    for stage in example().stages:
        assert any(line.startswith(f" {stage.stage} ") for line in lines)
    assert any(line.startswith("   semantic_duplicate ") for line in lines)


def test_every_stage_reason_and_total_is_shown() -> None:
    lines = [line.split() for line in printed(example()).splitlines()]
    assert ["02-decide", "118,107", "21,567", "0", "96,540", "431", "M", "3.4s"] in lines
    assert ["too_short", "14,118"] in lines
    assert ["all", "118,204", "46,811", "97", "71,296", "331", "M", "42m", "8s"] in lines


def test_it_says_where_the_results_lie() -> None:
    text = printed(example())
    assert "s3://out/packed" in text
    assert "s3://work/runs/code-and-docs/report.html" in text


def test_data_is_neither_markup_nor_control_sequence() -> None:
    base = example()
    stage = replace(base.stages[0], stage="00-[bold]x", dropped={"\x1b[31mred": 0})
    text = printed(replace(base, stages=[stage]))
    assert "00-[bold]x" in text
    assert "\x1b" not in text


def test_a_log_in_ascii_can_hold_it() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    Console(width=80, file=stream).print(closing_table(example()))
    stream.flush()


def ending(op: str, **changes: object) -> ReportData:
    """A run whose last stage is this one, and which has no windows."""
    *before, last = example().stages
    stages = [*before, replace(last, stage=f"09-{op}", op=op)]
    return replace(example(), stages=stages, windows=None, **changes)  # type: ignore[arg-type]


def test_files_of_documents_are_named_in_the_outcome() -> None:
    files = Exported(3, 71_296, 12_345_678, "jsonl", "cut_longfilter")
    text = " ".join(printed(ending("export", exported=files)).split())
    assert "They are written to 3 JSON Lines files (12.3 MB), by cut_longfilter." in text
    assert "output s3://out/packed" in text
    one = replace(files, files=1, format="parquet", order_by="")
    text = " ".join(printed(ending("export", exported=one)).split())
    assert "They are written to 1 Parquet file (12.3 MB). It took" in text


def test_packs_of_conversations_are_named_in_the_outcome() -> None:
    packs = PackedTurns(2, 1_234, 65_536, 9_888, 78_000_000, 0.9645, 312_000_000)
    text = " ".join(printed(ending("pack.turns", turns=packs)).split())
    said = "They are packed into 1,234 packs of at most 65,536 tokens, 96.5 % full, in 2 files"
    assert f"{said} (312 MB). It took" in text
    assert "output s3://out/packed" in text


def test_a_run_without_output_names_no_folder_of_it() -> None:
    text = " ".join(printed(ending("decide")).split())
    assert "The recipe ends without pack or export, so the output is empty" in text
    assert "output s3://out/packed" not in text
    assert "packed" not in text
    failed = " ".join(printed(ending("decide", status="failed")).split())
    assert "ends without" not in failed
