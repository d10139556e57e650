"""Pairs in the layouts that trainers read, and back: what was written is read byte for byte.

A row names the context of its prompt; here it is inserted, before the first turn of the user and a
blank line, as the answers were sampled. Each layout says what it cannot hold (a prefix, several
turns) instead of dropping it. Linear in the texts. Lost in every layout: scores, marks and checks,
which stay in the Parquet rows; and in `sft` the rejected text, by its nature.

| layout | read by |
|---|---|
| longreward | THUDM/LongReward's trainer |
| trl | TRL's DPO, as conversations; rows with a prefix as strings: no turn is half given |
| llamafactory | LLaMA-Factory, `ranking: true` with ShareGPT turns |
| xtuner_step | step-wise DPO in xtuner (LongDPO, arXiv 2502.02095) |
| sft | any trainer of conversations |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from longctx.llm.types import Message
from longctx.prefer.pairs import TERMINAL

Row = Mapping[str, Any]
Record = dict[str, Any]
Template = Callable[[Sequence[Message]], str]
Layout = Literal["longreward", "trl", "llamafactory", "xtuner_step", "sft"]
_BLANK_LINE = "\n\n"
_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


class Texts(NamedTuple):
    """What a record trains on: the prompt as turns, or as one string where it ends in a prefix."""

    prompt: str | list[Message]
    chosen: str
    rejected: str | None


@dataclass(frozen=True, slots=True)
class Keys:
    """Names in a turn of `llamafactory`: `from` and `value`, or `from` and `content`."""

    role: str = "from"
    text: str = "value"


def chatml(turns: Sequence[Message]) -> str:
    """Turns in ChatML, open for the assistant's words; the template where no other is given."""
    said = "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns)
    return f"{said}<|im_start|>assistant\n"


def turns_of(row: Row, context: str | None = None) -> list[Message]:
    """The turns before the answer, the context in front of the first turn of the user.

    ValueError where the row names a context and none is given: such a prompt was never asked.
    """
    turns = [{"role": t["role"], "content": t["content"]} for t in row["messages"]]
    if row.get("context_ref") is None:
        return turns
    if context is None:
        raise ValueError(f"row {row['id']}: its context {row['context_ref']} is not given")
    first = next(i for i, t in enumerate(turns) if t["role"] == "user")
    turns[first]["content"] = f"{context}{_BLANK_LINE}{turns[first]['content']}"
    return turns


def to_trl(
    row: Row, context: str | None = None, template: Template = chatml, *, as_text: bool = False
) -> Record:
    """{prompt, chosen, rejected}: turns, or strings where a part of the answer is given.

    `as_text` makes strings of any row: readers want all rows of a file alike.
    """
    turns = turns_of(row, context)
    if row["prefix"] or as_text:
        prompt = template(turns) + row["prefix"]
        return {"prompt": prompt, "chosen": row["chosen"], "rejected": row["rejected"]}
    sides = {n: [{"role": "assistant", "content": row[n]}] for n in ("chosen", "rejected")}
    return {"prompt": turns, **sides}


def from_trl(record: Record) -> Texts:
    """The texts of a record of `to_trl`."""
    if isinstance(record["prompt"], str):
        return Texts(record["prompt"], record["chosen"], record["rejected"])
    chosen, rejected = (record[n][0]["content"] for n in ("chosen", "rejected"))
    return Texts(record["prompt"], chosen, rejected)


def to_longreward(row: Row, context: str | None = None) -> Record:
    """{idx, context, query, win_response, lose_response}; one turn of a user, no prefix."""
    _refuse_prefix(row, "longreward")
    if len(row["messages"]) != 1 or row["messages"][0]["role"] != "user":
        raise ValueError(f"row {row['id']}: longreward holds one turn of the user, and no other")
    turns_of(row, context)
    return {
        "idx": row["group_id"],
        "context": context if row.get("context_ref") is not None else "",
        "query": row["messages"][0]["content"],
        "win_response": row["chosen"],
        "lose_response": row["rejected"],
    }


def from_longreward(record: Record) -> Texts:
    """The texts of a record of `to_longreward`."""
    before = f"{record['context']}{_BLANK_LINE}" if record["context"] else ""
    turn = {"role": "user", "content": f"{before}{record['query']}"}
    return Texts([turn], record["win_response"], record["lose_response"])


def to_llamafactory(row: Row, context: str | None = None, keys: Keys = Keys()) -> Record:
    """{conversations, chosen, rejected} with turns of `human` and `gpt`; no prefix."""
    _refuse_prefix(row, "llamafactory")
    turns = turns_of(row, context)
    sides = {n: _turn(keys, "assistant", row[n]) for n in ("chosen", "rejected")}
    return {"conversations": [_turn(keys, t["role"], t["content"]) for t in turns], **sides}


def _turn(keys: Keys, role: str, text: str) -> Record:
    return {keys.role: _ROLES[role], keys.text: text}


def from_llamafactory(record: Record, keys: Keys = Keys()) -> Texts:
    """The texts of a record of `to_llamafactory`."""
    role_of = {named: role for role, named in _ROLES.items()}
    turns = [
        {"role": role_of[t[keys.role]], "content": t[keys.text]} for t in record["conversations"]
    ]
    return Texts(turns, record["chosen"][keys.text], record["rejected"][keys.text])


def to_xtuner_step(row: Row, context: str | None = None, template: Template = chatml) -> Record:
    """{instruction, chosen, rejected, group_id, depth, answer_role, prompt_role} of one step.

    The role of an answer that ends its text is `assistant`, of any other `added_assistant`. A row
    that does not say is a whole answer.
    """
    ends = dict(row["checks"] or ()).get(TERMINAL, True)
    return {
        "instruction": template(turns_of(row, context)) + row["prefix"],
        "chosen": row["chosen"],
        "rejected": row["rejected"],
        "group_id": row["group_id"],
        "depth": row["depth"],
        "answer_role": "assistant" if ends else "added_assistant",
        "prompt_role": "added_user",
    }


def from_xtuner_step(record: Record) -> Texts:
    """The texts of a record of `to_xtuner_step`."""
    return Texts(record["instruction"], record["chosen"], record["rejected"])


def to_sft(row: Row, context: str | None = None) -> Record:
    """{messages}: the turns and the chosen text, behind its prefix, as the assistant's."""
    said = {"role": "assistant", "content": row["prefix"] + row["chosen"]}
    return {"messages": [*turns_of(row, context), said]}


def from_sft(record: Record) -> Texts:
    """The texts of a record of `to_sft`; nothing is rejected."""
    *turns, said = record["messages"]
    return Texts(turns, said["content"], None)


def _refuse_prefix(row: Row, layout: str) -> None:
    if row["prefix"]:
        raise ValueError(
            f"row {row['id']}: {layout} cannot hold a given beginning of an answer; trl and "
            "xtuner_step can"
        )


EXPORTERS: dict[Layout, Callable[..., Record]] = {
    "longreward": to_longreward,
    "trl": to_trl,
    "llamafactory": to_llamafactory,
    "xtuner_step": to_xtuner_step,
    "sft": to_sft,
}
IMPORTERS: dict[Layout, Callable[..., Texts]] = {
    "longreward": from_longreward,
    "trl": from_trl,
    "llamafactory": from_llamafactory,
    "xtuner_step": from_xtuner_step,
    "sft": from_sft,
}
