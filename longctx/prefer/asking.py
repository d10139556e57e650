"""Calls of a unit: which model a stage asks, what became of every request, and who lost one.

A system of this room makes many calls for a prompt: answers, marks, checks of single sentences. The
unit's logic names stages and prompts; `Asker` sends them to the policy or to the judge, counts for
every stage what went in and what came of it, and keeps the calls that came to nothing for a table
of their own (a prompt can lose a call and still become a pair).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from longctx.llm.ask import CallStage, Ok, Prompted, ask
from longctx.llm.rejects import Reject, StageCount
from longctx.llm.types import Generator


class Call(NamedTuple):
    """One request: whose prompt it serves, its own id, and the maker of its prompt.

    `row_id` is "<id>/<candidate>/..."; `sample` numbers several texts of one prompt.
    """

    owner: str
    row_id: str
    make: Callable[[], Prompted]
    sample: int = 0


class Lost(NamedTuple):
    """A call without a usable reply."""

    owner: str
    row_id: str
    stage: CallStage
    model: str
    reject: Reject


@dataclass
class Asker:
    """Asks stages by their step. `judging` are the steps that the judge is asked."""

    stages: dict[str, CallStage]
    policy: Generator
    judge: Generator
    judging: frozenset[str]
    seed: int
    counts: dict[str, StageCount] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    lost: list[Lost] = field(default_factory=list)

    def client(self, step: str) -> Generator:
        """The model of a step."""
        return self.judge if step in self.judging else self.policy

    def ask(self, step: str, calls: Sequence[Call]) -> list[Ok | Reject]:
        """What became of the calls of a stage, in their order."""
        stage, client = self.stages[step], self.client(step)
        rows = [(call.row_id, call.make) for call in calls]
        found = ask(client, stage, rows, self.seed, [call.sample for call in calls])
        bad = [(c, r) for c, r in zip(calls, found, strict=True) if isinstance(r, Reject)]
        count = StageCount(len(found), len(found) - len(bad))
        count.rejects.update(reject.code for _, reject in bad)
        self.counts[step] = self.counts.get(step, StageCount()) + count
        # Every prompt that could be built is one request; what is more was asked anew.
        self.requests[step] += len(found) - sum(r.result is None for _, r in bad)
        model = client.model_id
        self.lost += [Lost(c.owner, c.row_id, stage, model, reject) for c, reject in bad]
        return found
