"""How GATEAU reads one instruction row: its three fields, what is fed, and the passes over it.

Context, instruction and response are made into tokens separately and joined under fixed titles, so
it is known by position where each is: nothing is searched in the text. The context is cut on its
left to what a window holds. Four readings give the raw values of a row: the response after the
context that fits the short window, the response after that which fits the long one, the response
after each segment of the context alone (all with the likelihoods of the response only), and the
attention of the response's tokens on the segments, taken from the long reading's own pass where
both feed the same tokens.

Costs, for a context of n tokens, n + short window + n·(1 + (|x| + |y|)/segment) tokens of forward
pass and the attention of |y| rows in every layer: mostly the segments.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.score.attention import Query, collecting
from longctx.score.causal_lm import CausalLM, Segment, TokenScores
from longctx.score.gateau import Importance, cas, importance
from longctx.score.plan import Scorer

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
ShortMode = Literal["truncate", "full"]

TITLES = ("Input:\n", "\n\nInstruction:\n", "\n\nResponse:\n")
_BLANK_LINES = re.compile(r"\n\s*\n")


class Fields(NamedTuple):
    """An instruction row in words."""

    context: str
    instruction: str
    response: str


class Parts(NamedTuple):
    """An instruction row in one model's tokens, or that model's titles of the three, int32 each."""

    context: I32
    instruction: I32
    response: I32


class Role(NamedTuple):
    """A model, the titles in its tokens (BOS before the first), and the most tokens it is fed."""

    lm: Scorer
    titles: Parts
    window: int


class Fed(NamedTuple):
    """What a model reads: ids int32 [n], and where context and response are, half open.

    `cut` says whether the context was cut.
    """

    ids: I32
    context: tuple[int, int]
    response: tuple[int, int]
    cut: bool

    @property
    def segment(self) -> Segment:
        """The ids with the response as what is scored."""
        return Segment(self.ids, *self.response, bos=False)


class Limits(NamedTuple):
    """Tokens of a segment, segments of a context, and tokens of instruction and response in CAM."""

    segment: int = 128
    segments: int = 500
    field: int = 500


LIMITS = Limits()


class Raw(NamedTuple):
    """Raw values of a row: mean NLL of the response, short (a) and long (b); per segment the mean
    NLL of the response after it alone, and its attention, float64 [segments]; whether the long
    model's context was cut. Without two segments there are none.
    """

    nll_a: float
    nll_b: float
    alone: F64
    attention: F64
    cut: bool

    def cas(self, kind: Importance) -> float:
        """Cosine of importance and attention, NaN without two segments."""
        return cas(importance(self.alone, kind), self.attention)


Attend = Callable[[Any, Segment, Query], tuple[TokenScores, F64]]


def fields_of(text: str, meta: dict[str, Any], instruction: str, response: str) -> Fields | None:
    """Fields of a row whose text is the context; None where a field is missing or no text."""
    found = meta.get(instruction), meta.get(response)
    if not all(isinstance(f, str) for f in found):
        return None
    return Fields(text, *map(str, found))


def fields_of_messages(messages: Any) -> Fields | None:
    """Fields of one user message and its answer; None where it is not these two.

    The user's last block, after a blank line, is the instruction (empty where there is no other),
    what is before it the context.
    """
    if not isinstance(messages, list) or len(messages) != 2:
        return None
    contents = []
    for message, role in zip(messages, ("user", "assistant"), strict=True):
        if not isinstance(message, dict) or message.get("role") != role:
            return None
        contents.append(message.get("content"))
    asked, response = contents
    if not isinstance(asked, str) or not isinstance(response, str):
        return None
    asked = asked.strip()
    last = max((m.span() for m in _BLANK_LINES.finditer(asked)), default=None)
    if last is None:
        return Fields(asked, "", response)
    return Fields(asked[: last[0]], asked[last[1] :], response)


def role_of(lm: CausalLM, window: int) -> Role:
    """A loaded model that is fed at most `window` tokens, or what it can read."""
    first, *others = lm.encode(TITLES)
    bos = np.array([] if lm.bos is None else [lm.bos], dtype=np.int32)
    return Role(lm, Parts(np.concatenate([bos, first]), *others), min(window, lm.limit))


def parts_of(lm: CausalLM, fields: Fields) -> Parts:
    """A row in the tokens of a loaded model."""
    return Parts(*lm.encode(list(fields)))


def fed(parts: Parts, titles: Parts, window: int) -> Fed | None:
    """A row as it is fed in at most `window` tokens: the context's end, and all of the rest.

    None where the rest alone is longer.
    """
    rest = sum(map(len, titles)) + len(parts.instruction) + len(parts.response)
    room = window - rest
    if room < 0:
        return None
    context = parts.context[max(0, len(parts.context) - room) :]
    ids = [
        titles.context,
        context,
        titles.instruction,
        parts.instruction,
        titles.response,
        parts.response,
    ]
    start = len(titles.context)
    joined = np.concatenate(ids).astype(np.int32)
    return Fed(
        joined,
        (start, start + len(context)),
        (len(joined) - len(parts.response), len(joined)),
        len(context) < len(parts.context),
    )


def attend(lm: CausalLM, segment: Segment, query: Query) -> tuple[TokenScores, F64]:
    """Scores of a segment, and the weights of the query's groups in the same pass, mean over the
    layers, float64 [groups]."""
    with collecting(lm, [query]) as found:
        scores = lm.scores([segment])[0]
    return scores, found.sums()[0][:, 0].mean(axis=0)


def read_row(
    short: tuple[Role, Parts],
    long: tuple[Role, Parts],
    *,
    short_mode: ShortMode = "truncate",
    limits: Limits = LIMITS,
    attend: Attend = attend,
) -> Raw | None:
    """Raw values of a row, given to each model in its own tokens; None where it does not fit.

    With `full` the short model reads as much as the long one. Likelihoods and weights that are no
    numbers stay so.
    """
    (role_a, parts_a), (role_b, parts_b) = short, long
    fed_a = fed(
        parts_a, role_a.titles, role_a.window if short_mode == "truncate" else role_b.window
    )
    fed_b = fed(parts_b, role_b.titles, role_b.window)
    cut = _for_cam(parts_b, limits)
    cam = fed(cut, role_b.titles, role_b.window)
    if fed_a is None or fed_b is None or cam is None:
        return None
    alone = attention = np.zeros(0)
    scores_b: TokenScores | None = None
    borders = _borders(cam.context, limits.segment)
    if len(borders) > 2:
        scores, weights = attend(role_b.lm, cam.segment, Query(*cam.response, borders))
        attention = weights / (np.diff(borders) * len(cut.response))
        alone = _alone(role_b, cut, cam, borders)
        scores_b = scores if np.array_equal(cam.ids, fed_b.ids) else None
    nll_b = _mean(scores_b or role_b.lm.scores([fed_b.segment])[0])
    if role_a.lm is role_b.lm and np.array_equal(fed_a.ids, fed_b.ids):
        return Raw(nll_b, nll_b, alone, attention, fed_b.cut)
    nll_a = _mean(role_a.lm.scores([fed_a.segment])[0])
    return Raw(nll_a, nll_b, alone, attention, fed_b.cut)


def _for_cam(parts: Parts, limits: Limits) -> Parts:
    kept = limits.segment * limits.segments
    return Parts(
        parts.context[max(0, len(parts.context) - kept) :],
        parts.instruction[: limits.field],
        parts.response[: limits.field],
    )


def _borders(context: tuple[int, int], size: int) -> npt.NDArray[np.int64]:
    """Where the segments of a context begin and, last, end; only the last may be shorter."""
    return np.append(np.arange(context[0], context[1], size, dtype=np.int64), context[1])


def _alone(role: Role, parts: Parts, cam: Fed, borders: npt.NDArray[np.int64]) -> F64:
    """Mean NLL of the response after each segment alone."""
    rows = []
    for start, end in pairwise(borders):
        row = fed(parts._replace(context=cam.ids[start:end]), role.titles, role.window)
        assert row is not None  # it is no longer than the whole row was
        rows.append(row.segment)
    return np.array([_mean(scores) for scores in role.lm.scores(rows)])


def _mean(scores: TokenScores) -> float:
    return float(scores.nll.mean(dtype=np.float64))
