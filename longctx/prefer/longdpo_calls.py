"""What LongDPO asks: steps of the policy; marks, facts, denials and critique of a judge.

Six stages (arXiv 2502.02095, wording ours). A step continues the assistant's own words, so policy
and server must be able to go on with a given beginning (`Caps.continuation`). The judge spreads its
belief over the marks 1..5 for each of seven principles, which tells more than one number. Evidence
has to stand in the text that it is taken from, word for word. The judge reads the whole text so
far at every step: half a text of D steps, D * K times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longctx.llm.types import Message
from longctx.prefer.longdpo import MARKS, PRINCIPLES, WEIGHT_SLACK, expected_mark
from longctx.prefer.longdpo_search import (
    Contradict,
    Critique,
    Expand,
    Extract,
    Judge,
    Refine,
    Suggestion,
)
from longctx.synth.prompt import (
    BOOL,
    INT,
    TEXT,
    Prompt,
    fill,
    list_of,
    object_schema,
    prompt,
    sections,
)

PROMPT_VERSION = "longdpo-1"
STEP, JUDGE, FACTS = "step", "judge", "facts"
CONTRADICTION, CRITIQUE, REFINE = "contradiction", "critique", "refine"
STEPS = (STEP, JUDGE, FACTS, CONTRADICTION, CRITIQUE, REFINE)
JUDGING = frozenset({JUDGE, FACTS, CONTRADICTION, CRITIQUE})
_PACKAGE = "longctx.prefer"
_KNOWN = ("yes", "no", "unsure")

WORDS = {
    "weights": "p1 to p7 must each be five numbers of 0 and above that add up to 1.",
    "evidence": "The evidence must be copied from the passage, exactly as it stands there.",
    "confidence": "The confidence must be a whole number from 1 to 5.",
    "suggestion": "The suggestion must not be empty.",
    "relevant_text": "relevant_text must be copied from the first text, or be empty.",
}


@dataclass(frozen=True, slots=True)
class StepPrompt:
    """The turn of the user, and the beginning of the answer, which is to be gone on with."""

    task: str
    prefix: str
    parts: dict[str, Any]
    schema: None = None

    @property
    def messages(self) -> list[Message]:
        """One turn, or two where something is written."""
        asked = [{"role": "user", "content": self.task}]
        begun = [{"role": "assistant", "content": self.prefix}] if self.prefix else []
        return [*asked, *begun]


def request_step(question: Expand, depth: int) -> StepPrompt:
    """Stage `longdpo.step`: what follows the text so far, in a tree of `depth` steps."""
    return StepPrompt(question.task.prompt, question.prefix, _parts(question, depth))


def request_refine(question: Refine, depth: int) -> StepPrompt:
    """Stage `longdpo.refine`: the same with suggestions behind the task."""
    lang, listed = question.task.lang, "\n".join(f"- {s}" for s in question.suggestions)
    wording = sections("longdpo.refine", lang, _PACKAGE)["user"]
    task = fill(wording, {"prompt": question.task.prompt, "suggestions": listed})
    parts = _parts(question, depth) | {"suggestions": list(question.suggestions)}
    return StepPrompt(task, question.prefix, parts)


def _parts(question: Expand | Refine, depth: int) -> dict[str, Any]:
    task = question.task
    return {
        "prompt": task.prompt,
        "lang": task.lang,
        "target": task.target.x if task.target else None,
        "prefix": question.prefix,
        "depth": question.depth,
        "depths": depth,
        "sample": question.sample if isinstance(question, Expand) else 0,
    }


def check_step(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """Every text is a candidate; what it is worth the judge says."""
    return None


def request_judge(question: Judge) -> Prompt:
    """Stage `longdpo.judge`: belief over marks for seven principles."""
    lang = question.task.lang
    begins = sections("longdpo.judge", lang, _PACKAGE)["start"]
    weights = list_of({"type": "number"})
    parts = {
        "kind": "principles",
        "prompt": question.task.prompt,
        "prefix": question.prefix,
        "text": question.step.strip(),
        "lang": lang,
        "whole": question.whole,
    }
    schema = object_schema(analysis=TEXT, **dict.fromkeys(PRINCIPLES, weights))
    shown = {"so_far": question.prefix or begins}
    return prompt("longdpo.judge", lang, parts, schema, shown=shown, package=_PACKAGE)


def check_judge(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`weights` where a principle has not five weights of 0 and above with a sum of 1."""
    return None if all(_are_weights(reply[p]) for p in PRINCIPLES) else "weights"


def _are_weights(found: Sequence[float]) -> bool:
    sound = len(found) == MARKS and all(w >= 0 for w in found)
    return sound and abs(sum(found) - 1) <= WEIGHT_SLACK + 1e-9


def marks_of(reply: Mapping[str, Any]) -> tuple[float, ...]:
    """The expected mark of each principle."""
    return tuple(expected_mark(reply[p]) for p in PRINCIPLES)


def request_facts(question: Extract) -> Prompt:
    """Stage `longdpo.facts`: what later steps must not contradict."""
    lang = question.task.lang
    known = {"type": "string", "enum": list(_KNOWN)}
    fact = object_schema(content=TEXT, contradicts_knowledge=known, evidence=TEXT)
    parts = {"text": question.step.strip(), "lang": lang}
    schema = object_schema(facts=list_of(fact))
    return prompt("longdpo.facts", lang, parts, schema, package=_PACKAGE)


def check_facts(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """None is too many: `facts_of` keeps what the step supports."""
    return None


def request_contradiction(question: Contradict) -> Prompt:
    """Stage `longdpo.contradiction`: whether a passage denies a fact."""
    lang = question.task.lang
    parts = {
        "kind": "contradiction",
        "fact": question.fact,
        "text": question.segment.strip(),
        "lang": lang,
    }
    schema = object_schema(analysis=TEXT, contradicts=BOOL, evidence=TEXT)
    return prompt("longdpo.contradiction", lang, parts, schema, package=_PACKAGE)


def check_contradiction(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`evidence` where a contradiction is told without words of the passage."""
    evidence = reply["evidence"].strip()
    if reply["contradicts"] and (not evidence or evidence not in parts["text"]):
        return "evidence"
    return None


def denial_of(reply: Mapping[str, Any]) -> str:
    """The words that deny the fact, "" where none do."""
    return str(reply["evidence"]).strip() if reply["contradicts"] else ""


def request_critique(question: Critique) -> Prompt:
    """Stage `longdpo.critique`: one suggestion from a better sibling."""
    lang = question.task.lang
    principle = sections("longdpo.critique", lang, _PACKAGE)[f"p{question.principle}"]
    parts = {
        "prompt": question.task.prompt,
        "principle": principle,
        "better": question.better.strip(),
        "text": question.step.strip(),
        "lang": lang,
    }
    schema = object_schema(
        analysis=TEXT, justification=TEXT, suggestion=TEXT, confidence=INT, relevant_text=TEXT
    )
    return prompt("longdpo.critique", lang, parts, schema, package=_PACKAGE)


def check_critique(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`suggestion` (empty), `confidence` (1..5), or `relevant_text` (not in the better text)."""
    if not reply["suggestion"].strip():
        return "suggestion"
    if not 1 <= reply["confidence"] <= MARKS:
        return "confidence"
    return None if reply["relevant_text"].strip() in parts["better"] else "relevant_text"


def suggestion_of(reply: Mapping[str, Any]) -> Suggestion:
    """The suggestion of a reply on one line."""
    return Suggestion(" ".join(reply["suggestion"].split()), reply["confidence"])
