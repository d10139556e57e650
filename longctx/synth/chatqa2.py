"""ChatQA2 / NarrativeQA (arXiv 2407.14482): a summary hidden in a long page, and who asks about it.

Questions and answers were written by people on a summary; the summary stands somewhere in its own
page, so the evidence is one span and all else is its surroundings. Here are the places where it can
stand and the insertion itself; `chatqa2_rows` chooses the pages.

What we changed: places are uniform over tokens (a uniform sentence is not, where sentences differ
in length). Linear in the page. Lost: ends of sentences behind an abbreviation or a single letter.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.synth.checks import HAN_OR_KANA

SYSTEM = "chatqa2"
PROMPT_VERSION = "chatqa2-1"

# Stage 3 of the published training: data sets and their weights.
BLEND = {
    "drop": 0.069,
    "narrativeqa": 0.095,
    "quoref": 0.026,
    "ropes": 0.026,
    "squad1.1": 0.095,
    "squad2.0": 0.095,
    "newsqa": 0.095,
    "tatqa-arithmetic": 0.15,
    "tatqa-others": 0.08,
    "synthetic_convqa": 0.3,
    "sft": 0.2,
    "long_sft": 2.5,
    "NarrativeQA_131072": 5.0,
}

_END = re.compile(
    r"(?<![.!?])(?P<stops>[.!?]++)(?P<closed>[\"'”’»)\]}]*+)(?=\s|\Z)"
    r"|[。！？]++[\"'”’」』）】》]*+"
    r"|\n[^\S\n]*+\n\s*+"
)
_NEXT = re.compile(r"\S")
_WORD_BEFORE = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]+\Z")
_ABBREVIATIONS = frozenset(
    "Mr Mrs Ms Dr St Prof Sr Jr vs etc e.g i.e No Vol Fig Gen Col Capt Lt Rev Hon".split()  # noqa: SIM905
)
_LOOK_BACK = 16
_NO_BLANK_BEHIND = frozenset("。！？」』）")
_PROMPT = re.compile(r"\s*User:\s*(.*?)\s*(?:Assistant:\s*)?\Z", re.DOTALL)
_BEGIN_OF_TEXT = re.compile(
    r"<\|begin_of_text\|>|<\|startoftext\|>|<｜begin▁of▁sentence｜>|\A\s*(?:<s>|<bos>|\[BOS\])"
)


class Inserted(NamedTuple):
    """A page with a summary in it; spans in characters, `inserted` with the blanks around."""

    context: str
    inserted_start: int
    inserted_end: int
    summary_start: int
    summary_end: int


def sentence_ends(text: str) -> list[int]:
    """Where sentences of `text` end: the first character of the next one, or the text's end.

    Behind .!? (and closing quotes or brackets) before white space or the end, unless the next
    visible character is lower-case, or a single full stop follows an abbreviation or a single
    letter; behind 。！？ and closing quotes; behind a blank line.
    """
    found = {_next_visible(text, end.end()) for end in _END.finditer(text) if _ends(text, end)}
    return sorted(found - {0})


def _next_visible(text: str, at: int) -> int:
    visible = _NEXT.search(text, at)
    return visible.start() if visible else len(text)


def _ends(text: str, end: re.Match[str]) -> bool:
    stops = end["stops"]
    if stops is None:
        return True
    if text[(at := _next_visible(text, end.end())) : at + 1].islower():
        return False
    if stops != ".":
        return True
    word = _WORD_BEFORE.search(text[max(0, end.start() - _LOOK_BACK) : end.start()])
    if word is None:
        return True
    return word[0] not in _ABBREVIATIONS and len(word[0].rpartition(".")[2]) > 1


def boundaries(text: str) -> list[int]:
    """Where something can be inserted without breaking a sentence: both ends and all between."""
    return sorted({0, *sentence_ends(text), len(text)})


def choose_boundary(token_offsets: Sequence[int] | npt.NDArray[np.int64], u: float) -> int:
    """The offset that is nearest to u of all tokens, u in [0, 1); of two the lower.

    `token_offsets` ascend from 0 to the number of tokens N; the target is u * N.
    """
    return int(token_offsets[nearest(token_offsets, u)])


def nearest(token_offsets: Sequence[int] | npt.NDArray[np.int64], u: float) -> int:
    """Index of what `choose_boundary` returns."""
    offsets = np.asarray(token_offsets, dtype=np.float64)
    return int(np.argmin(np.abs(offsets - u * offsets[-1])))


def insert_summary(page: str, summary: str, b: int, between: str = "") -> Inserted:
    """The summary before character `b` of the page, with a blank on either side where one belongs.

    No blank at the ends of the page, beside white space, nor beside Han, kana and their marks. With
    `between`, what stands between the paragraphs of a page, it becomes a paragraph of its own.
    """
    before, after = page[b - 1 : b] if b else "", page[b : b + 1]
    if between:
        lead = between if b and not page.endswith(between, 0, b) else ""
        trail = between if after else ""
    else:
        lead = " " if before and not _needs_no_blank(before, _NO_BLANK_BEHIND) else ""
        trail = " " if after and not _needs_no_blank(after, frozenset()) else ""
    start = b + len(lead)
    end = start + len(summary)
    context = f"{page[:b]}{lead}{summary}{trail}{page[b:]}"
    return Inserted(context, b, end + len(trail), start, end)


def _needs_no_blank(char: str, marks: frozenset[str]) -> bool:
    return char.isspace() or char in marks or HAN_OR_KANA.match(char) is not None


def blend_shares(weights: Mapping[str, float] = BLEND) -> dict[str, float]:
    """Each data set's share of the blend; ValueError where no weight is above 0."""
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise ValueError(f"weights {dict(weights)}: none may be negative, one must be above 0")
    return {name: weight / total for name, weight in weights.items()}


def without_begin_of_text(text: str) -> str:
    """A text without the literal begin-of-text tokens that tokenizers would take for their own."""
    return _BEGIN_OF_TEXT.sub("", text)


def read_released(row: Mapping[str, Any]) -> dict[str, Any]:
    """Context, question and answers of a row of the published data, in either of its layouts.

    `NarrativeQA_131072` has the text in `sub-paragraphs` and a list of answers; `long_sft` has the
    whole prompt in `question` ("User: ... Assistant:") and one answer as a string.
    """
    answer = row["answer"]
    prompt = _PROMPT.match(row["question"])
    return {
        "id": str(row.get("paragraph_id", "")),
        "context": without_begin_of_text(row.get("sub-paragraphs") or ""),
        "question": prompt[1] if prompt else row["question"].strip(),
        "answers": [answer] if isinstance(answer, str) else list(answer),
    }
