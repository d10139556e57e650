"""What the report relies on in the record of a synthesis: counts by stage, rejects, checks.

A record may come from anybody, so it is read as strictly as the rest of `run.json`
(`run_shape.py`). Checks are the ops' own and may hold any plain value; `checks` knows how to read
the forms that they have.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from longctx.report.run_shape import Count, Counts, Number

Lines = Field(max_length=100_000)


class _Form(BaseModel):
    model_config = ConfigDict(strict=True)


class Usage(_Form):
    """What the calls of a stage took."""

    requests: Count
    cache_hits: Count
    calls: Count
    prompt_tokens: Count
    completion_tokens: Count
    cost_usd: Annotated[Number, Field(ge=0)] | None


class Stage(_Form):
    """A step: rows in and what became of them."""

    rows_in: Count
    ok: Count
    rejects: Counts
    usage: Usage | None = None
    models_reported: Counts = {}


class QuotaForm(_Form):
    """A bin of documents."""

    lang: str
    least: Count
    most: Count
    wanted: Count
    available: Count
    reached: Count


class ControlForm(_Form):
    """A control of a judge."""

    name: str
    value: Number | None
    passed: bool | None
    n: Count
    hard: bool = False
    wanted: str = ""


class Judge(_Form):
    """What was found of a judge."""

    judge: str
    controls: Annotated[list[ControlForm], Lines]


class Synthesis(_Form):
    """All that a stage says of its rows."""

    system: str
    prompt_version: str
    model: str
    items: str = "document"
    chosen: Count
    rows: Count
    rejects: Counts
    without_language: Count = 0
    quotas: Annotated[list[QuotaForm], Lines] = []
    stages: dict[str, Stage]
    checks: dict[str, dict[str, Any]]
    judge: Judge | None = None


class Files(_Form):
    """What was written."""

    files: Count
    bytes: Count
