"""Tokens and dollars: estimated before a call, counted after it, summed for the run.

Prices come from a file of the user, none is shipped: those of today are wrong tomorrow, and an
unknown price is null, never a guess. The estimate of tokens stands in only where a server names no
usage: beside Qwen's tokenizer it is too high by about a seventh in English, by two fifths in
Chinese, by three quarters in Korean.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longctx.errors import RecipeError
from longctx.llm.types import Message, Usage

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_PER_PRICE = 1_000_000

USAGE_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("run_id", "system", "stage", "model")),
        *((name, pa.int64()) for name in ("requests", "cache_hits", "calls", "attempts")),
        *((f"{name}_tokens", pa.int64()) for name in ("prompt", "cached", "completion")),
        ("estimated", pa.bool_()),
        ("waited_s", pa.float64()),
        ("used_s", pa.float64()),
        ("repairs", pa.int64()),
        ("rejects", pa.map_(pa.string(), pa.int64())),
        ("cost_usd", pa.float64()),
    ]
)
_KEYS = ("system", "stage", "model")
_SUMMED = tuple(
    field.name
    for field in USAGE_SCHEMA
    if pa.types.is_integer(field.type) or field.name[-2:] == "_s"
)


class Price(BaseModel):
    """US dollars for 10**6 tokens; `cached_input` is that of `input` where it is not given."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0)


def cost_usd(usage: Usage, price: Price | None) -> float | None:
    """What a call cost; None where its price is not known."""
    if price is None:
        return None
    cached = price.input if price.cached_input is None else price.cached_input
    fresh = (usage.prompt - usage.cached) * price.input
    return (fresh + usage.cached * cached + usage.completion * price.output) / _PER_PRICE


def parse_prices(text: str, where: str) -> dict[str, Price]:
    """Prices by model id, from the JSON of a price file. Raises RecipeError naming `where`."""
    wanted = '{"MODEL_ID": {"input": 0.5, "output": 1.5}}, in USD for a million tokens'
    try:
        listed = json.loads(text)
        return {model: Price.model_validate(price) for model, price in dict(listed).items()}
    except ValidationError as error:
        fault = error.errors()[0]
        said = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    except (ValueError, TypeError) as error:
        said = str(error)
    raise RecipeError(f"this is no list of prices ({said})", where=where, remedy=f"write {wanted}")


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Tokens of a prompt, guessed from its bytes: ceil(bytes / 4) + 4 for every message."""
    return sum(estimate_text(m["content"]) + _TOKENS_PER_MESSAGE for m in messages)


def estimate_text(text: str) -> int:
    """ceil(UTF-8 bytes / 4); half of a surrogate pair counts as three bytes."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


def summed(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of usage added up by system, stage and model, in that order.

    A sum of costs is None as soon as one of them is: part of a bill is no bill.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in _KEYS)
        total = found.setdefault(key, {**dict(zip(_KEYS, key, strict=True)), **_nothing()})
        for name in _SUMMED:
            total[name] += row.get(name, 0)
        total["estimated"] |= row["estimated"]
        total["rejects"] += Counter(row["rejects"])
        costs = total["cost_usd"], row["cost_usd"]
        total["cost_usd"] = None if None in costs else sum(costs)
    return [
        {**total, "rejects": dict(sorted(total["rejects"].items()))}
        for _, total in sorted(found.items())
    ]


def _nothing() -> dict[str, Any]:
    zeros: dict[str, Any] = dict.fromkeys(_SUMMED, 0)
    return zeros | {"estimated": False, "rejects": Counter(), "cost_usd": 0.0}


def usage_table(rows: Iterable[Mapping[str, Any]], run_id: str) -> pa.Table:
    """Rows of usage as the table of `usage/*.parquet`."""
    listed = [{**row, "run_id": run_id, "rejects": sorted(row["rejects"].items())} for row in rows]
    return pa.Table.from_pylist(listed, schema=USAGE_SCHEMA)
