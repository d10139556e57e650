"""Benchmark results as sections of one Markdown page, each with its date and machine."""

import datetime as dt
import re
from pathlib import Path

from jobs.bench.machine import describe

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_HEAD = "# Benchmarks\n\nEach section is written by the script that measured it (`jobs/bench/`).\n"


def write_section(title: str, markdown: str, page: Path = PAGE) -> None:
    """Replace the section `## title` of the page, or append it; other sections stay as they are.

    The date and `machine.describe()` are added. ValueError where `markdown` holds a heading of
    level 1 or 2, which would end the section early.
    """
    if re.search(r"^##? ", markdown, flags=re.MULTILINE):
        raise ValueError("a section may only hold headings of level 3 and below")
    machine = ", ".join(f"{name} {value}" for name, value in describe().items())
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    section = f"## {title}\n\n{date}. {machine}.\n\n{markdown.strip()}\n"
    old = page.read_text(encoding="utf-8") if page.exists() else _HEAD
    head, *sections = re.split(r"^(?=## )", old, flags=re.MULTILINE)
    heading = f"## {title}\n"
    at = next((i for i, s in enumerate(sections) if s.startswith(heading)), len(sections))
    sections[at : at + 1] = [section]
    page.parent.mkdir(parents=True, exist_ok=True)
    parts = [head.rstrip(), *(s.rstrip() for s in sections)]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
