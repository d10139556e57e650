"""Replies without a model for the stages of LongDPO, so that what is planted is found in the pairs.

A step has sentences of words that stand nowhere else, as many as its share of the wanted length.
Candidates differ in quality alone: worse ones say sentences twice, which the judge of the reader
(`longctx.llm.reader`, kind `principles`) marks down. Which sample is the best depends on the depth.
The last step ends by itself, the others by their budget.
"""

import json
from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

from longctx.ids import h64
from longctx.llm.reader import READER
from longctx.llm.scripted import Cut, Rule
from longctx.llm.types import GenRequest
from longctx.synth.rule_basics import sentences

# A changed rule needs a new version, or replies of the old one come out of the cache.
VERSION = "longdpo-1"
# Shares of a step that repeat its first sentence, from the best candidate to the worst.
REPEATED = (0.0, 0.25, 0.45, 0.65)
_OPEN_WORDS, _SENTENCE = 120, 11


def step(parts: Mapping[str, Any]) -> str:
    """A step of its share of words; sample i is the ((i + depth) mod 4)-th best."""
    wanted = round((parts["target"] or parts["depths"] * _OPEN_WORDS) / parts["depths"])
    count = max(2, round(wanted / _SENTENCE))
    repeated = REPEATED[(parts["sample"] + parts["depth"]) % len(REPEATED)]
    told = [_sentence(parts, i) for i in range(count - round(count * repeated))]
    said = [*told, *islice(cycle(told[:1]), count - len(told))]
    text = ("\n\n" if parts["prefix"] else "") + " ".join(said)
    return text if parts["depth"] == parts["depths"] else Cut(text)


def _sentence(parts: Mapping[str, Any], i: int) -> str:
    """Eleven words that name prompt, depth, sample and place."""
    about = h64(parts["prompt"].encode("utf-8", "replace")) % 10_000
    name = f"{about}x{parts['depth']}x{parts['sample']}x{i}"
    words = " ".join(f"{word}{name}" for word in ("harbour", "clerk", "lamp", "road"))
    return f"Keeper Zora{name} saw {words} near pier {i} today."


def refine(parts: Mapping[str, Any]) -> str:
    """A step without repeats that nobody wrote before."""
    best = -parts["depth"] % len(REPEATED)
    return step({**parts, "sample": best + 100 * len(REPEATED)})


def facts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The first two sentences."""
    told = [
        {"content": s, "contradicts_knowledge": "no", "evidence": ""}
        for s in sentences(parts["text"])[:2]
    ]
    return {"facts": told}


def critique(parts: Mapping[str, Any]) -> dict[str, Any]:
    """To repeat less; sure in the middle."""
    return {
        "analysis": "The first repeats less.",
        "justification": "It says every sentence once.",
        "suggestion": "Say nothing twice.",
        "confidence": 3,
        "relevant_text": sentences(parts["better"])[0],
    }


def _json(rule: Any) -> Rule:
    def said(req: GenRequest) -> str:
        return json.dumps(rule(req.parts or {}), ensure_ascii=False)

    return said


def _text(rule: Any) -> Rule:
    def said(req: GenRequest) -> str:
        found: str = rule(req.parts or {})
        return found

    return said


# By stage; those of the judge and of contradictions name their kind in the pieces of the prompt.
RULES: dict[str, Rule] = {
    "longdpo.step": _text(step),
    "longdpo.refine": _text(refine),
    "longdpo.facts": _json(facts),
    "longdpo.critique": _json(critique),
    "principles": READER["principles"],
    "contradiction": READER["contradiction"],
}
