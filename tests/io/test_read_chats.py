"""Rows whose text is a chat: what its messages say, whatever format they come in."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.io.reading import items, lines, reasons, rows

CHAT = [
    {"role": "user", "content": "A long text.\n\nWhat is it?"},
    {"role": "assistant", "content": "Long."},
]


def parquet(chat: list[dict[str, Any]]) -> bytes:
    raw = io.BytesIO()
    pq.write_table(pa.table({"messages": [chat]}), raw)
    return raw.getvalue()


@pytest.mark.parametrize(
    ("data", "name"),
    [(lines({"messages": CHAT}), "a.jsonl"), (parquet(CHAT), "a.parquet")],
    ids=["jsonl", "parquet"],
)
def test_a_chat_is_what_its_messages_say(data: bytes, name: str) -> None:
    (row,) = rows(items(data, name, text="messages", meta=["messages"]))
    assert row.text == "A long text.\n\nWhat is it?\n\nLong."
    assert row.meta is not None
    assert json.loads(row.meta) == {"messages": CHAT}


@pytest.mark.parametrize(
    "chat",
    [[], ["a"], [{"content": "a"}], [{"role": "user", "content": None}], [*CHAT, "a"]],
    ids=str,
)
def test_another_list_is_no_text(chat: list[Any]) -> None:
    assert reasons(items(lines({"messages": chat}), text="messages")) == ["text_type"]
