"""Asking again for a reply that could not be used.

Invalid replies at most twice, with the bad reply and what is wrong with it behind the messages that
it answered; so the key differs by itself, and a killed run finds these replies in the cache too.
Judges, who answer at temperature 0 first, are asked again at 0.95: at 0 they would repeat
themselves. A reply that was cut off is not corrected but asked for once more, with twice the room.
Refusals, loops and empty texts are not asked for again: they seldom mend, and a prompt of a whole
document is dear.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from longctx.llm.accounting import estimate_tokens
from longctx.llm.openai_wire import is_continuation
from longctx.llm.seeds import derive_seed, messages_digest
from longctx.llm.structured import Reply, verdict
from longctx.llm.types import Generator, GenRequest, GenResult, Message

REPAIRS = 2
JUDGE_AGAIN = 0.95
_QUOTED = 2000
_REPAIRED = {
    "not_json": "It is not one valid JSON object.",
    "schema": "The JSON object has not the fields that were asked for.",
    "semantic": "Its content does not fit the task.",
}

# What a stage knows beyond its schema: complaints about a reply, none if it is good.
Check = Callable[[Reply], Sequence[str]]
# The verdict on what came back for a request.
Judge = Callable[[GenRequest, GenResult], Reply]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last reply to a request, and the request that it answers.

    `repairs` is how often it was corrected, `grown` whether it was asked for with more room.
    """

    request: GenRequest
    result: GenResult
    reply: Reply
    repairs: int = 0
    grown: bool = False

    @property
    def code(self) -> str | None:
        """The code of the reject; None where the reply can be used."""
        return self.result.error.code if self.result.error else self.reply.code


def understand(
    req: GenRequest, result: GenResult, check: Check | None = None, *, refusals: bool = True
) -> Reply:
    """The verdict on a result, with the checks of its stage."""
    if result.error is not None:
        return Reply(result.text)
    found = verdict(result.text, result.finish_reason, req.schema, refusals)
    complaints = tuple(check(found)) if found.code is None and check is not None else ()
    if complaints:
        return Reply(found.text, code="semantic", fix=found.fix, messages=complaints)
    return found


def asked_again(
    outcome: Outcome,
    *,
    base_seed: int = 0,
    max_context: int | None = None,
    repairs: int = REPAIRS,
) -> GenRequest | None:
    """The next request for a reply that cannot be used; None where asking would not help.

    `max_context` bounds prompt (as estimated) and completion of a reply that was cut off; at most
    `repairs` corrections are asked for.
    """
    req, reply = outcome.request, outcome.reply
    if outcome.result.error is not None or reply.code is None:
        return None
    if reply.code == "truncated":
        return _roomier(outcome, max_context)
    if reply.code not in _REPAIRED or outcome.repairs >= repairs:
        return None
    messages = _corrected(req.messages, outcome.result.text, reply)
    if req.temperature > 0:
        return replace(req, messages=messages)
    seed = derive_seed(
        base_seed, req.system, req.stage, messages_digest(messages), req.sample_index
    )
    return replace(req, messages=messages, temperature=JUDGE_AGAIN, seed=seed)


def _roomier(outcome: Outcome, max_context: int | None) -> GenRequest | None:
    """The same with max_tokens doubled, within the context; once."""
    if outcome.grown:
        return None
    req, wanted = outcome.request, 2 * outcome.request.max_tokens
    if max_context is not None:
        wanted = min(wanted, max_context - estimate_tokens(req.messages))
    return replace(req, max_tokens=wanted) if wanted > req.max_tokens else None


def _corrected(messages: Sequence[Message], text: str, reply: Reply) -> list[Message]:
    """The conversation with the bad reply and what is wrong with it; roles take turns."""
    begun = messages[-1]["content"] if is_continuation(messages) else ""
    wrong = reply.messages or (_REPAIRED[str(reply.code)],)
    complaint = "\n".join(
        [
            "Your reply cannot be used:",
            *(f"- {message}" for message in wrong),
            "Answer again, in full and in the form that was asked for, and nothing else.",
        ]
    )
    return [
        *(messages[:-1] if begun else messages),
        {"role": "assistant", "content": begun + text[:_QUOTED]},
        {"role": "user", "content": complaint},
    ]


def generate_repaired(
    client: Generator,
    reqs: Sequence[GenRequest],
    judge: Judge = understand,
    *,
    base_seed: int = 0,
    repairs: int = REPAIRS,
) -> list[Outcome]:
    """Outcomes of requests in their order, bad replies asked for again, all of a round together.

    `judge` says of each result whether it can be used, `repairs` how often one may be corrected.
    Raises LLMJobError as `generate` does.
    """
    if not reqs:
        return []
    found = [
        Outcome(req, result, judge(req, result))
        for req, result in zip(reqs, client.generate(reqs), strict=True)
    ]
    room = client.caps.max_context
    for _ in range(repairs + 1):
        wanted = {
            i: req
            for i, outcome in enumerate(found)
            if (req := asked_again(outcome, base_seed=base_seed, max_context=room, repairs=repairs))
        }
        if not wanted:
            break
        results = client.generate(list(wanted.values()))
        for (i, req), result in zip(wanted.items(), results, strict=True):
            found[i] = _next(found[i], req, result, judge(req, result))
    return found


def _next(before: Outcome, req: GenRequest, result: GenResult, reply: Reply) -> Outcome:
    grown = before.reply.code == "truncated"
    return Outcome(req, result, reply, before.repairs + (not grown), before.grown or grown)
