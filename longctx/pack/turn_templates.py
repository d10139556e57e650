"""Conversations as ids in a tokenizer's own chat template, with exact borders of what is learnt.

A template is a program that writes the text of a whole conversation; it does not say which of it
is whose. It is asked once with a mark in place of every content: what stands between the marks is
what the template adds, and depends on the roles alone. Then it is asked with the contents, and must
write the same around them (or around the contents without blanks at their ends, as some do); a
conversation of which it makes anything else is refused. Pieces are tokenised one by one, contents
as text, the template's own pieces with their special tokens; so a border of targets is a border of
tokens, and a mark inside of a content is text.

Prefixes must nest: what a model sees before its answer (the turns so far, and the beginning of an
answer) must be what stands before that answer in the whole conversation, or it would learn to go on
from what it is never given. Templates that drop earlier reasoning or move the system's turn do not
nest. An answer ends with the first special token behind it, which is learnt, too.

Templates that write the day are given a fixed one, so that the same rows are the same ids. Costs a
rendering a conversation. Ids are those of the whole text but where a content begins or ends with
what a merge would join to its neighbour (line breaks); vocabularies with a word-start marker get
one at the start of every piece.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from longctx.pack.turns import ASSISTANT, RefusedError, Rendered, Turn
from longctx.text.tokenize import Tokenizer

# Messages and whether the beginning of an answer is wanted -> text. Raises what the template does.
Render = Callable[[list[dict[str, str]], bool], str]
# A piece of the template -> ids, its special tokens being tokens.
Encode = Callable[[str], list[int]]

REFUSES, NOT_NESTED = "template_refuses", "not_nested"
_USUAL = ("user", ASSISTANT, "user", ASSISTANT)


class _Frame(NamedTuple):
    """What a template writes around contents of certain roles.

    `texts` are the n + 1 pieces around n contents, `ids` their ids, `ends` how many ids at the
    beginning of the piece behind a content end it (0: it is no answer).
    """

    texts: list[str]
    ids: list[list[int]]
    ends: list[int]


class TemplateLayout:
    """A chat template in the ids of its tokenizer.

    Raises ValueError where the template cannot be used with any conversation.
    """

    def __init__(
        self, tokenizer: Tokenizer, render: Render, encode: Encode, special: Iterable[int]
    ) -> None:
        self.tokenizer = tokenizer
        self._render, self._encode, self._special = render, encode, frozenset(special)
        self._frames: dict[tuple[str, ...], _Frame] = {}
        try:
            self._frame(_USUAL)
        except RefusedError as error:
            raise ValueError(error.detail) from None

    def render(self, turns: Sequence[Turn]) -> Rendered:
        """The ids of a conversation and its targets. Raises RefusedError."""
        frame = self._frame(tuple(turn.role for turn in turns))
        contents = self._contents(frame, turns)
        said = self.tokenizer.encode_batch(contents)
        pieces: list[Any] = [frame.ids[0]]
        spans, at = [], len(frame.ids[0])
        for number, content in enumerate(said):
            behind, end = frame.ids[number + 1], frame.ends[number]
            if end:
                spans.append((at, at + len(content) + end))
            pieces += [content, behind]
            at += len(content) + len(behind)
        return Rendered(np.concatenate([np.asarray(p, dtype=np.int32) for p in pieces]), spans)

    def _contents(self, frame: _Frame, turns: Sequence[Turn]) -> list[str]:
        """What the template shows of contents: as they are, or without blanks at their ends."""
        whole = self._written(turns, False)
        as_they_are = [turn.content for turn in turns]
        for contents in (as_they_are, [content.strip() for content in as_they_are]):
            if whole == _joined(frame.texts, contents):
                return contents
        raise RefusedError(REFUSES, "it writes the contents of these turns otherwise")

    def _frame(self, roles: tuple[str, ...]) -> _Frame:
        if roles not in self._frames:
            self._frames[roles] = self._framed(roles)
        return self._frames[roles]

    def _framed(self, roles: tuple[str, ...]) -> _Frame:
        marks = [f"\ue000{number}\ue001" for number in range(len(roles))]
        turns = [Turn(role, mark) for role, mark in zip(roles, marks, strict=True)]
        whole, texts, at = self._written(turns, False), list[str](), 0
        for number, mark in enumerate(marks):
            start = whole.find(mark, at)
            if start < 0 or whole.count(mark) > 1:
                raise RefusedError(REFUSES, f"it does not write turn {number} once, in its place")
            if roles[number] == ASSISTANT:
                self._check_nested(turns, number, whole[:start])
            texts.append(whole[at:start])
            at = start + len(mark)
        texts.append(whole[at:])
        ids = [self._encode(text) for text in texts]
        ends = [
            self._end(behind) if role == ASSISTANT else 0
            for role, behind in zip(roles, ids[1:], strict=True)
        ]
        return _Frame(texts, ids, ends)

    def _check_nested(self, turns: Sequence[Turn], number: int, before: str) -> None:
        if self._written(turns[:number], True) != before:
            raise RefusedError(
                NOT_NESTED,
                f"what it writes before the answer in turn {number} is not what it writes when "
                "that answer is asked for",
            )

    def _end(self, behind: Sequence[int]) -> int:
        """How many of the ids behind an answer end it."""
        places = [place for place, token in enumerate(behind) if token in self._special]
        if not places:
            raise RefusedError(REFUSES, "it ends an answer with no special token")
        return places[0] + 1

    def _written(self, turns: Sequence[Turn], asked: bool) -> str:
        try:
            return self._render([{"role": t.role, "content": t.content} for t in turns], asked)
        except Exception as error:  # templates raise what they like
            raise RefusedError(REFUSES, f"it fails: {type(error).__name__}: {error}") from None


def _joined(texts: Sequence[str], contents: Sequence[str]) -> str:
    return texts[0] + "".join(c + t for c, t in zip(contents, texts[1:], strict=True))
