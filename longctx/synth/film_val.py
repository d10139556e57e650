"""VaL probing (FILM, arXiv 2404.16811): whether a model finds what stands at each place.

Three tasks over contexts of about 32,000 tokens: the sentence that holds a given piece (looked for
in both directions), the name of the function that holds a given line (backwards), label and
description of a given id (forwards). A context asks once about each of its elements, so every
position has one example in each set.

What we changed: an element is taken only if one of its keys stands in the context exactly once; the
released items do not see to that. A function's name must be found as a whole identifier, for `get`
stands inside `get_all`; `strict=False` gives the published score. Cost: each key is looked for in
its context, sets times elements searches.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from longctx.synth.draw import generator
from longctx.synth.film import SYSTEM, word_recall
from longctx.synth.film_rows import occurrences

SETS = 4
# Elements of a context by task: sentences, functions, entities.
POSITIONS = {"sentence": 800, "function": 800, "entity": 750}
_LINES = 3


class Element(NamedTuple):
    """Something a context is made of: `gold` is what an asker wants who has one of `keys`."""

    text: str
    keys: Sequence[str]
    gold: Sequence[str]


class Item(NamedTuple):
    """A question about the element at a 0-based position."""

    position: int
    key: str
    gold: Sequence[str]


class Probe(NamedTuple):
    """A context and one item for each of its positions."""

    name: str
    context: str
    items: list[Item]


def sentence_element(sentence: str, piece: str) -> Element:
    """A sentence that is asked for by a piece of it."""
    return Element(sentence, [piece], [sentence])


def function_element(name: str, code: str, seed: int) -> Element:
    """A function that is asked for by one of three lines, drawn from those that do not name it."""
    lines = [line.strip() for line in code.splitlines()]
    told = [line for line in dict.fromkeys(lines) if line and name not in line]
    order = generator(seed, SYSTEM, "lines", name).permutation(len(told)).tolist()
    return Element(code, [told[i] for i in order[:_LINES]], [name])


def entity_element(entity: str, label: str, description: str) -> Element:
    """An entity that is asked for by its id."""
    return Element(
        f"<id: {entity}, label: {label}, description: {description}>",
        [entity],
        [label, description],
    )


def build_probes(
    pool: Sequence[Element], n: int, seed: int, sets: int = SETS, join: str = "\n"
) -> list[Probe]:
    """`sets` contexts of n elements each, drawn without repetition inside a context.

    Raises ValueError where the pool has too few elements with a key of their own.
    """
    return [_probe(pool, n, seed, f"set-{i}", join) for i in range(sets)]


def _probe(pool: Sequence[Element], n: int, seed: int, name: str, join: str) -> Probe:
    order = generator(seed, SYSTEM, "probe", name).permutation(len(pool)).tolist()
    chosen, spare = order[:n], order[n:]
    while len(chosen) == n:
        context = join.join(pool[i].text for i in chosen)
        keys = [_own_key(pool[i], context) for i in chosen]
        found = [(i, key) for i, key in zip(chosen, keys, strict=True) if key is not None]
        if len(found) == n:
            items = [Item(p, key, pool[i].gold) for p, (i, key) in enumerate(found)]
            return Probe(name, context, items)
        # Elements without a key of their own give their places to others.
        chosen = [
            i if key is not None else spare.pop() if spare else -1
            for i, key in zip(chosen, keys, strict=True)
        ]
        chosen = [i for i in chosen if i >= 0]
    raise ValueError(f"fewer than {n} of {len(pool)} elements have a key that stands once")


def _own_key(element: Element, context: str) -> str | None:
    return next((key for key in element.keys if key and occurrences(key, context) == 1), None)


def sentence_found(sentence: str, reply: str) -> float:
    """Score of the first task: the recall of the sentence's words."""
    return word_recall(sentence, reply)


def function_named(name: str, reply: str, strict: bool = True) -> bool:
    """Whether a reply names a function, in its case; `strict`: as a whole identifier."""
    wanted = name.rstrip(".")
    if not strict:
        return bool(wanted) and wanted in reply
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", reply) is not None


def entity_found(label: str, description: str, reply: str) -> bool:
    """Whether a reply holds label or description, in any case; empty ones never count."""
    said = reply.casefold()
    wanted = (text.strip().rstrip(".").casefold() for text in (label, description))
    return any(text and text in said for text in wanted)
