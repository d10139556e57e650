"""How many calls a tree of LongDPO takes, and of how many tokens: what `longctx plan` shows.

Counted for trees whose steps all use their budget and whose every search goes to its bound; what
depends on what is written (facts, passages near to them) is assumed and said so. Critique is not
counted: it is asked for weak steps alone.
"""

from typing import NamedTuple

from longctx.prefer import longdpo_calls as calls
from longctx.prefer.longdpo_search import Settings

FACTS_A_STEP, WORDING = 6, 450


class Planned(NamedTuple):
    """Calls of a stage for one prompt, with their tokens in all."""

    calls: int
    prompt: int
    completion: int


def layers_of(settings: Settings) -> int:
    """Nodes whose children are written, at most."""
    if settings.search == "greedy":
        return settings.depth
    inner = sum(settings.children**level for level in range(settings.depth))
    return min(inner, 1 + settings.rollouts * (settings.depth - 1))


def planned_calls(settings: Settings, step: int, prompt: int, judge: int) -> dict[str, Planned]:
    """By stage; `step`, `prompt` and `judge` are tokens of a step, a prompt and a judge's reply."""
    layers, depth = layers_of(settings), settings.depth
    steps = layers * settings.children
    texts = 1 if settings.search == "greedy" else settings.rollouts
    before = step * (depth - 1) // 2  # of a text that is written, on average
    inner = max(0, depth - 1 if settings.search == "greedy" else layers - 1)
    remembered = inner if settings.memory else 0
    # One candidate a layer is checked, one passage for each fact of the steps before.
    near = FACTS_A_STEP * depth // 2 * remembered
    marked = steps * (prompt + before + step) + texts * (prompt + depth * step)
    whole = (steps + texts) * WORDING
    return {
        calls.STEP: Planned(steps, steps * (prompt + before), steps * step),
        calls.JUDGE: Planned(steps + texts, marked + whole, (steps + texts) * judge),
        calls.FACTS: Planned(remembered, remembered * (step + WORDING), remembered * judge),
        calls.CONTRADICTION: Planned(near, near * WORDING, near * judge),
        calls.CRITIQUE: Planned(0, 0, 0),
        calls.REFINE: Planned(0, 0, 0),
    }


def assumed(settings: Settings, step: int) -> str:
    """What the numbers assume."""
    bound = "every step written to its budget"
    if settings.search == "mcts":
        bound += f", all {settings.rollouts} rollouts through new nodes"
    facts = f", {FACTS_A_STEP} facts a step and a passage near each" if settings.memory else ""
    return (
        f"steps of {step:,} tokens, {bound}{facts}; no step refined, no reply asked for again, "
        "nothing in the cache"
    )
