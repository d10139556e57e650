"""The last section: the resolved recipe as YAML, and what it ran with.

A report is passed on, so values that look like credentials are masked here, whatever the recipe
let through: fields with telling names, and credentials inside URLs.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from longctx.credentials import MASK, masked
from longctx.report.data import ReportData
from longctx.report.layout import Section, code, facts, folded
from longctx.report.markup import join, tag, text

_SECRET = re.compile(
    r"(secret|password|passwd|credential|api_?key|access_?key|auth_?token|session_?token)"
    r"(?!.*_env$)",
    re.IGNORECASE,
)


def settings(data: ReportData) -> Section:
    """Always there: a run has at least a seed and a fingerprint."""
    body = [
        facts(
            [
                ("Seed", code(data.seed)),
                ("Fingerprint", code(data.fingerprint)),
                *((name, code(version)) for name, version in data.versions.items()),
            ]
        )
    ]
    if data.recipe:
        written = yaml.safe_dump(plain(data.recipe), sort_keys=False, allow_unicode=True, width=88)
        listing = tag(
            "pre", tag("code", text(written)), tabindex=0, role="region", aria_label="Recipe"
        )
        body.append(folded("Resolved recipe", listing, unfold=True))
    return Section("settings", "Settings and versions", join(body))


def plain(value: Any) -> Any:
    """`value` in YAML's own types, secrets masked; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(k): MASK if _hides(str(k), v) else plain(v) for k, v in value.items()}
    if isinstance(value, str):
        return masked(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def _hides(key: str, value: Any) -> bool:
    return bool(value) and not isinstance(value, Mapping) and bool(_SECRET.search(key))
