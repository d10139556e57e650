"""A backend without a model: its text is a function of the request, and it fails as it is told.

All automated tests run on it: deterministic, without a network, the same on any number of actors.
A rule answers a kind of stage from the named pieces that the prompt was built from
(`GenRequest.parts`), so that a whole system can be run and what was planted in its input be found
in its output. A stage without a rule gets words that depend on the key.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import numpy as np

from longctx.llm.accounting import estimate_text, estimate_tokens
from longctx.llm.classify import read_reply
from longctx.llm.faults import FaultPlan, Said, wire_reply
from longctx.llm.types import Answer, AttemptError, Caps, GenRequest, Usage


class Cut(str):
    """What a rule says of a text that its budget ended: the reply's finish reason is `length`."""

    __slots__ = ()


Rule = Callable[[GenRequest], str]
Rules = Mapping[str, Rule]

_WORDS = " ".join(
    [
        "amber anchor apple arrow autumn basin beacon birch border bridge canyon carbon cedar",
        "circle clover copper coral cotton crystal delta desert ember engine falcon fern forest",
        "garden glacier granite harbour hazel island ivory jacket jungle kernel lantern lemon",
        "lilac marble meadow mirror needle nickel oasis orchard oyster pebble pepper pigeon quarry",
        "raven ribbon saddle silver spiral thunder timber tunnel velvet violet walnut willow",
    ]
).split()
_MOST_WORDS = 64


def words(key: str, count: int) -> str:
    """`count` words of a fixed list, drawn by a generator that is seeded with a key."""
    rng = np.random.Generator(np.random.PCG64(int(key[:16], 16)))
    return " ".join(_WORDS[i] for i in rng.integers(len(_WORDS), size=count))


def kind_of(req: GenRequest) -> str:
    """The kind of stage that picks the rule: `parts["kind"]`, or else the stage's name."""
    return str((req.parts or {}).get("kind", req.stage))


def reply_text(req: GenRequest, key: str, rules: Rules) -> str:
    """What the rule of a request's stage says, cut at the first of its stop strings."""
    rule = rules.get(kind_of(req))
    text = rule(req) if rule else words(key, min(req.max_tokens, _MOST_WORDS))
    ends = [at for stop in req.stop or () if stop and (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def said(req: GenRequest, key: str, rules: Rules, model: str) -> Said:
    """The reply of a request before anything fails; tokens are those of the estimate."""
    text = reply_text(req, key, rules)
    usage = Usage(estimate_tokens(req.messages), estimate_text(text))
    return Said(str(text), model, usage, "length" if isinstance(text, Cut) else "stop")


class ScriptedBackend:
    """Answers by rules, after `latency_s` seconds (of all stages, or by kind of stage).

    `version` names the rule set in the model id: new rules need a new one, or old answers come out
    of the cache. `sleep` is the clock of the tests. A rule that raises fails its request alone.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        version: str = "words-1",
        plan: FaultPlan | None = None,
        latency_s: float | Mapping[str, float] = 0.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        caps: Caps | None = None,
    ) -> None:
        self.model_id = f"scripted:{version}"
        self.caps = caps or Caps(json_schema=True, seed=True, continuation="implicit")
        self.attempts = 0
        self._rules = rules or {}
        self._plan = plan or FaultPlan()
        self._latency = latency_s
        self._sleep = sleep

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        """The rule's answer, or what the plan says that this attempt meets."""
        self.attempts += 1
        fault = self._plan.next(
            key, stage=req.stage, row_id=req.row_id, with_schema=req.schema is not None
        )
        if (latency := self._latency_of(req)) > 0:
            await self._sleep(latency)
        if fault and fault.kind == "hang":
            raise AttemptError("timeout", "scripted: nothing came")
        if fault and fault.kind == "reset":
            raise AttemptError("connection", "scripted: the connection was reset")
        reply = wire_reply(said(req, key, self._rules, self.model_id), fault)
        return read_reply(
            reply.status,
            reply.body,
            retry_after=reply.retry_after,
            schema_sent=req.schema is not None,
        )

    def _latency_of(self, req: GenRequest) -> float:
        if isinstance(self._latency, Mapping):
            return self._latency.get(kind_of(req), 0.0)
        return self._latency

    async def aclose(self) -> None:
        """Nothing is held."""
