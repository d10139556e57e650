"""How AgentWrite's texts grow: paragraph k of every text that is alive, then paragraph k + 1.

AgentWrite (arXiv 2408.07055) writes a text strictly in order, each call with all that is written
so far. Ours: all texts of a unit advance together, so a round is as many calls at once as texts are
alive, and a text ends with the first paragraph that cannot be used. A paragraph is handed on
without its label, for a model that reads labels writes more of them. Cost: as many rounds as the
longest plan has steps, and input tokens that grow with the square of the steps
(`agentwrite_input_tokens`). Lost: the last rounds ask for the longest texts alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from longctx.llm.ask import Ok
from longctx.llm.rejects import Reject
from longctx.synth.longwriter import Step, strip_label
from longctx.synth.longwriter_calls import request_write
from longctx.synth.longwriter_required import Required
from longctx.synth.prompt import Prompt

# Asks for rows by their ids and the makers of their prompts; what became of them, in their order.
Ask = Callable[[Sequence[tuple[str, Callable[[], Prompt]]]], Sequence[Ok | Reject]]


@dataclass
class Draft:
    """A text on its way: its task, its plan, and the paragraphs that are written."""

    id: str
    task: str
    lang: str
    plan: Sequence[Step]
    required: Required | None
    paragraphs: list[str] = field(default_factory=list)
    reject: Reject | None = None

    @property
    def alive(self) -> bool:
        """Whether there is a paragraph to ask for."""
        return self.reject is None and len(self.paragraphs) < len(self.plan)

    def next_prompt(self) -> Prompt:
        """What is asked for the paragraph behind those that are written."""
        return request_write(self.task, self.lang, self.plan, self.paragraphs, self.required)

    def take(self, found: Ok | Reject) -> None:
        """What became of that paragraph."""
        if isinstance(found, Ok):
            self.paragraphs.append(strip_label(found.value["text"]))
            return
        said = found.result.error if found.result else None
        detail = found.detail or (said.message if said else "")
        place = f"paragraph {len(self.paragraphs) + 1} of {len(self.plan)}"
        self.reject = replace(found, detail=f"{place}: {detail}" if detail else place)

    def outcome(self) -> Ok | Reject:
        """The text as a reply, or why there is none."""
        return self.reject or Ok({"paragraphs": list(self.paragraphs)})


def write_all(drafts: Sequence[Draft], ask: Ask) -> list[Sequence[Ok | Reject]]:
    """Write the drafts to their ends, `ask` once a round; what became of each round's paragraphs.

    The row of a paragraph is "ID/K", K from 1.
    """
    rounds = []
    while alive := [draft for draft in drafts if draft.alive]:
        rows = [(f"{d.id}/{len(d.paragraphs) + 1}", d.next_prompt) for d in alive]
        found = ask(rows)
        for draft, one in zip(alive, found, strict=True):
            draft.take(one)
        rounds.append(found)
    return rounds


def paragraphs_of(reply: Mapping[str, Any]) -> list[str]:
    """The paragraphs of a text that was written."""
    return list(reply["paragraphs"])
