"""Conversations as ids: which of their tokens a trainer learns from, and what is cut of long ones.

`chatml` (the layout of Qwen, SmolLM and others) puts every turn between the tokens <|im_start|> and
<|im_end|>, with the role on the first line; `plain` has no roles: a blank line after what is asked,
the end-of-text token after every answer; `turn_templates.py` writes in the template of a tokenizer.
Targets are the assistant's contents and the mark that
ends each. Pieces are tokenised one by one, so a border of targets is a border of tokens.

Changed against LongAlign (arXiv 2401.18058), which cuts long rows on the right and so loses the
answer: a long row is rejected, or its document loses its end. Linear in text. Lost: a content that
begins with a line break has other ids than a template that tokenises it with the line of the role;
vocabularies with a word-start marker get one at the start of every piece.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from longctx.pack.boundaries import IGNORE
from longctx.pack.frame import I32
from longctx.text.offsets import token_ends
from longctx.text.tokenize import Tokenizer

Format = Literal["chatml", "plain", "template"]
START, END = "<|im_start|>", "<|im_end|>"
ASSISTANT = "assistant"
ROLES = (ASSISTANT, "user", "system", "tool")
KNOWN = "user, assistant, system or tool"
_BREAK = "\n\n"

# What a conversation comes to that cannot be packed.
NO_MESSAGES, UNKNOWN_ROLE = "no_messages", "unknown_role"
EMPTY_ANSWER, NO_ANSWER, TOO_LONG = "empty_answer", "no_answer", "too_long"


class Refused(NamedTuple):
    """Why a conversation is not packed: a code that is counted, and what was found."""

    code: str
    detail: str


class RefusedError(Exception):
    """A conversation that a layout cannot write: a code that is counted, and why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


class Turn(NamedTuple):
    """What one side says."""

    role: str
    content: str


class Rendered(NamedTuple):
    """A conversation as `ids` int32[n], and where its targets lie: [start, end) of each run."""

    ids: I32
    spans: list[tuple[int, int]]

    @property
    def targets(self) -> int:
        """Tokens that a trainer learns from: the first of a sequence is predicted from nothing."""
        return sum(max(0, end - max(1, start)) for start, end in self.spans)


def turns_of(messages: Any) -> list[Turn] | Refused:
    """The turns of a field of chat messages, or why they are none to learn from."""
    if not isinstance(messages, list) or not messages:
        found = "nothing" if messages in (None, []) else type(messages).__name__
        return Refused(NO_MESSAGES, f"want a list of role and content, found {found}")
    turns = []
    for number, message in enumerate(messages):
        said = message if isinstance(message, Mapping) else {}
        role, content = said.get("role"), said.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            return Refused(NO_MESSAGES, f"turn {number} has no role and content that are texts")
        if role not in ROLES:
            return Refused(UNKNOWN_ROLE, f"turn {number} is of {role[:40]!r}, not of {KNOWN}")
        if role == ASSISTANT and not content.strip():
            return Refused(EMPTY_ANSWER, f"turn {number} of the assistant is empty")
        turns.append(Turn(role, content))
    if all(turn.role != ASSISTANT for turn in turns):
        return Refused(NO_ANSWER, f"none of {len(turns)} turns is of the assistant")
    return turns


class Writes(Protocol):
    """What makes ids of a conversation, in the ids of its tokenizer."""

    tokenizer: Tokenizer

    def render(self, turns: Sequence[Turn]) -> Rendered:
        """The ids of a conversation and its targets. Raises RefusedError."""


class Layout:
    """A format in the ids of one tokenizer.

    Raises ValueError where the tokenizer has no token that the format needs, or no BOS with `bos`.
    """

    def __init__(self, tokenizer: Tokenizer, form: Format, bos: bool = False) -> None:
        self.tokenizer, self._chatml = tokenizer, form == "chatml"
        if bos and tokenizer.bos_id is None:
            raise ValueError("has no BOS token, which `bos: true` needs")
        self._first = [tokenizer.bos_id] if bos and tokenizer.bos_id is not None else []
        self._heads: dict[str, list[int]] = {}
        if self._chatml:
            self._end = [self._mark(END)]
            start = self._mark(START)
            lines = tokenizer.encode_batch([*(f"{role}\n" for role in ROLES), "\n"])
            self._heads = {r: [start, *i.tolist()] for r, i in zip(ROLES, lines, strict=False)}
            self._after = lines[-1].tolist()
        else:
            self._end, self._after = [tokenizer.eos_id], []

    def _mark(self, token: str) -> int:
        found = self.tokenizer.token_id(token)
        if found is None:
            raise ValueError(f"has no token {token}, which `format: chatml` needs")
        return found

    def render(self, turns: Sequence[Turn]) -> Rendered:
        """The ids of a conversation and its targets."""
        contents = self.tokenizer.encode_batch(self._text(turn) for turn in turns)
        pieces: list[Any] = [self._first]
        spans, at = [], len(self._first)
        for turn, content in zip(turns, contents, strict=True):
            answers = turn.role == ASSISTANT
            head = self._heads.get(turn.role, [])
            end = self._end if answers or self._chatml else []
            pieces += [head, content, end, self._after]
            start = at + len(head)
            stop = start + len(content) + len(end)
            if answers:
                spans.append((start, stop))
            at = stop + len(self._after)
        return Rendered(np.concatenate([np.asarray(p, dtype=np.int32) for p in pieces]), spans)

    def _text(self, turn: Turn) -> str:
        asked = not self._chatml and turn.role != ASSISTANT
        return turn.content + _BREAK if asked else turn.content


def cut_document(
    layout: Writes, turns: Sequence[Turn], document: str, length: int
) -> Rendered | None:
    """The conversation in at most `length` tokens, with the end of its document left out.

    None where no turn but the assistant's holds the document, or where all else is too long.
    """
    place = _place(turns, document)
    if place is None:
        return None
    number, at = place
    role, content = turns[number]
    before, after = content[:at], content[at + len(document) :]
    while True:
        shorter = [*turns[:number], Turn(role, before + document + after), *turns[number + 1 :]]
        found = layout.render(shorter)
        over = len(found.ids) - length
        if over <= 0:
            return found
        ids = layout.tokenizer.encode_batch([document])[0]
        if len(ids) <= over:
            return None
        # A character of several tokens ends with each of them: one character at least goes.
        end = int(token_ends(layout.tokenizer, ids, document)[len(ids) - over - 1])
        document = document[: min(end, len(document) - 1)]


def _place(turns: Sequence[Turn], document: str) -> tuple[int, int] | None:
    """The first turn that holds the document, and where in it."""
    for number, turn in enumerate(turns):
        if document and turn.role != ASSISTANT and (at := turn.content.find(document)) >= 0:
            return number, at
    return None


def labels_of(ids: I32, spans: Iterable[tuple[int, int]]) -> I32:
    """Labels of a sequence: its ids on targets, -100 elsewhere."""
    labels = np.full(len(ids), IGNORE, dtype=np.int32)
    for start, end in spans:
        labels[start:end] = ids[start:end]
    return labels


def sequence_of(
    layout: Writes, fields: Mapping[str, Any], name: str, too_long: int | None
) -> tuple[Rendered, int] | Refused:
    """The sequence of a record and how many tokens it lost, or why there is none.

    `name` is the field with the messages. With `too_long` the field `context` loses its end where
    the sequence has more tokens; what cannot be cut stays as long as it is.
    """
    turns = turns_of(fields.get(name))
    if isinstance(turns, Refused):
        return turns
    context = fields.get("context")
    try:
        found = layout.render(turns)
        if too_long is None or len(found.ids) <= too_long or not isinstance(context, str):
            return found, 0
        shorter = cut_document(layout, turns, context, too_long)
    except RefusedError as error:
        return Refused(error.code, error.detail)
    return (found, 0) if shorter is None else (shorter, len(found.ids) - len(shorter.ids))
