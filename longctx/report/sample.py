"""What `longctx sample-corpus` prints: what was gathered, and the input to paste into a recipe."""

from pathlib import Path
from typing import Any

import yaml

from longctx.report.format import plural, size

_LICENCES = 4


def sample_summary(out: Path, found: dict[str, Any]) -> str:
    """A few lines on the corpus that `build` wrote, then its `input:` block as YAML."""
    licences = sorted(found["licenses"].items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{name} {n:,}" for name, n in licences[:_LICENCES])
    more = f", {len(licences) - _LICENCES} more" if len(licences) > _LICENCES else ""
    passed = ", ".join(f"{reason} {n:,}" for reason, n in found["skipped"].items()) or "none"
    lines = [
        f"{plural(found['documents'], 'document')}, {size(found['bytes'])} of text from "
        f"{plural(found['sources'], 'package')}, written to {out}",
        f"licences: {named}{more}",
        f"exact duplicates: {found['exact_duplicates']:,}; files passed over: {passed}",
        "",
        "# for a recipe:",
        "input:",
        *(f"  - {_one_line(entry)}" for entry in found["input"]),
    ]
    return "\n".join(lines)


def _one_line(entry: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(
        entry, sort_keys=False, allow_unicode=True, default_flow_style=True, width=float("inf")
    )
    return text.strip()
