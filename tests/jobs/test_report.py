"""Sections of the benchmark page: replaced in place, dated, on a named machine."""

from pathlib import Path

import pytest

from jobs.bench.machine import LIBRARIES, describe
from jobs.bench.report import table, write_section


def test_a_new_page_gets_a_head_and_the_section(tmp_path: Path):
    page = tmp_path / "docs" / "benchmarks.md"
    write_section("Speed", "| a |\n| --- |", page)
    text = page.read_text()
    assert text.startswith("# Benchmarks\n\n")
    assert "\n## Speed\n\n20" in text
    assert "cores " in text
    assert text.endswith("| a |\n| --- |\n")


def test_a_section_is_replaced_where_it_stands(tmp_path: Path):
    page = tmp_path / "page.md"
    for title in ("One", "Two", "Three"):
        write_section(title, f"old {title}", page)
    write_section("Two", "new\n\n### detail\n\nmore", page)
    text = page.read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "One",
        "Two",
        "Three",
    ]
    assert "old Two" not in text
    assert "old One" in text
    assert "old Three" in text
    assert "### detail" in text


def test_writing_twice_changes_nothing(tmp_path: Path):
    page = tmp_path / "page.md"
    write_section("One", "text", page)
    write_section("Two", "text", page)
    before = page.read_text()
    write_section("One", "text", page)
    assert page.read_text() == before


def test_a_title_that_begins_like_another_is_its_own(tmp_path: Path):
    page = tmp_path / "page.md"
    write_section("Order of documents", "long", page)
    write_section("Order", "short", page)
    assert "long" in page.read_text()


@pytest.mark.parametrize("heading", ["# Top", "## Section", "text\n## Section"])
def test_headings_that_would_end_the_section_are_refused(tmp_path: Path, heading: str):
    page = tmp_path / "page.md"
    with pytest.raises(ValueError, match="level 3"):
        write_section("One", heading, page)
    assert not page.exists()


def test_a_table_is_markdown():
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_the_machine_is_described():
    found = describe((*LIBRARIES, "no-such-package"))
    assert {"cpu", "cores", "memory", "system", "python", "numpy"} <= set(found)
    assert int(found["cores"]) >= 1
    assert found["memory"].endswith(" GiB")
    assert "no-such-package" not in found
    assert all(found.values())
