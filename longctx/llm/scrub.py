"""Messages of servers without what the request said: servers quote what they were sent.

What is kept of a message goes into logs, rejects and reports, where neither prompts nor keys may
stand. Cut out is every piece of 12 characters or more that also stands in the request.
"""

from collections.abc import Sequence

from longctx.llm.types import LONGEST_MESSAGE, Message

_PIECE = 12
_MASK = "(request)"


def scrubbed(message: str, messages: Sequence[Message]) -> str:
    """At most 500 characters of a message, what it quotes of the request replaced."""
    # What the cut leaves of a quotation at the end would be too short to be found.
    said = " ".join(message[: 2 * LONGEST_MESSAGE].split())
    texts = [" ".join(m["content"].split()) for m in messages]
    quoted = [False] * len(said)
    for i in range(len(said) - _PIECE + 1):
        piece = said[i : i + _PIECE]
        if any(piece in text for text in texts):
            quoted[i : i + _PIECE] = [True] * _PIECE
    kept: list[str] = []
    for i, character in enumerate(said):
        if not quoted[i]:
            kept.append(character)
        elif i == 0 or not quoted[i - 1]:
            kept.append(_MASK)
    return "".join(kept)[:LONGEST_MESSAGE]
