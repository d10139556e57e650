"""From rows to usable replies: prompts built, asked, understood, checked, repaired, or rejected.

A stage of a system says how its prompt is made, what its replies have to hold and how long they may
be (`CallStage`); everything else is the same for all of them and is done here. Every row comes back
as `Ok` or as a `Reject` with its reason: a prompt that cannot be built, a request that fails and a
check that breaks are the fate of their own row alone. Requests go out ordered by their text, so
those that begin alike are neighbours and a server reads the common beginning once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from longctx.llm.rejects import Reject
from longctx.llm.repair import REPAIRS, Outcome, generate_repaired, understand
from longctx.llm.seeds import derive_seed
from longctx.llm.structured import Reply, ReplyCode
from longctx.llm.types import Generator, GenRequest, GenResult, Message

Value = dict[str, Any]


class Prompted(Protocol):
    """What is asked for one row: turns, the pieces they were made from, the schema of a reply."""

    @property
    def messages(self) -> Sequence[Message]: ...

    @property
    def parts(self) -> dict[str, Any]: ...

    @property
    def schema(self) -> dict[str, Any] | None: ...


@dataclass(frozen=True, kw_only=True)
class CallStage:
    """One kind of call. `check` gets a reply and the parts of its prompt, and names what is wrong.

    What it names (one detail, or all) is the detail of the code `semantic`, unless it is one of
    `codes`; `words` tell the model what each means when it is asked again, `repairs` times at most.
    `from_text` reads replies that are no JSON. Without a schema the reply is {"text": ...}; where
    that may be fiction, `check` tells a refusal better and `refusals` is False. A text that is
    `open_ended` may stop where its budget ends and is taken so, as {"text", "finish"}. `extra` goes
    to the server (top_k, ...).
    """

    system: str
    name: str
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], str | tuple[str, ...] | None]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    from_text: Callable[[str], Value | None] | None = None
    codes: frozenset[str] = frozenset()
    words: Mapping[str, str] = field(default_factory=dict)
    repairs: int = REPAIRS
    refusals: bool = True
    open_ended: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> str:
        """The name without the system's."""
        return self.name.removeprefix(f"{self.system}.")


@dataclass(frozen=True, slots=True)
class Ok:
    """A usable reply; `fix` is what was mended in it, `repairs` how often it was asked anew."""

    value: Value
    fix: str | None = None
    repairs: int = 0


@dataclass(frozen=True, slots=True)
class _Understood:
    """A reply with the object that it holds, or what the stage's check says against that."""

    reply: Reply
    value: Value | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The last request of a row with what came of it."""

    outcome: Outcome
    found: _Understood


def ask(
    client: Generator,
    stage: CallStage,
    rows: Sequence[tuple[str, Callable[[], Prompted]]],
    base_seed: int = 0,
    samples: Sequence[int] | None = None,
) -> list[Ok | Reject]:
    """What became of rows, in their order, each given by its id and the maker of its prompt.

    Where a row is asked for several samples it is there once for each, with their numbers beside,
    in `samples`. Raises LLMJobError for faults of the whole job; whatever else goes wrong rejects
    a row.
    """
    done: dict[int, Ok | Reject] = {}
    reqs: dict[int, GenRequest] = {}
    for i, (row_id, make) in enumerate(rows):
        try:
            sample = samples[i] if samples is not None else 0
            reqs[i] = _request(str(i), row_id, make(), stage, base_seed, sample)
        except Exception as error:  # of this row alone
            said = f"the prompt cannot be built: {type(error).__name__}: {error}"
            done[i] = Reject(code="bad_request", detail=said)
    order = sorted(reqs, key=lambda i: [m["content"] for m in reqs[i].messages])
    asked = _rounds(client, stage, [reqs[i] for i in order], base_seed)
    done |= {i: _verdict(one, stage) for i, one in zip(order, asked, strict=True)}
    assert len(done) == len(rows), f"{len(rows)} rows in, {len(done)} out"
    return [done[i] for i in range(len(rows))]


def _request(
    request_id: str,
    row_id: str,
    prompt: Prompted,
    stage: CallStage,
    base_seed: int,
    sample: int,
) -> GenRequest:
    drawn = stage.temperature > 0
    return GenRequest(
        request_id=request_id,
        messages=list(prompt.messages),
        max_tokens=stage.max_tokens,
        temperature=stage.temperature,
        top_p=stage.top_p,
        seed=derive_seed(base_seed, stage.system, stage.name, row_id, sample) if drawn else None,
        sample_index=sample,
        schema=prompt.schema,
        system=stage.system,
        stage=stage.name,
        row_id=row_id,
        parts=prompt.parts,
        extra=dict(stage.extra),
        may_be_cut=stage.open_ended,
    )


def _rounds(
    client: Generator, stage: CallStage, reqs: Sequence[GenRequest], base_seed: int
) -> list[_Asked]:
    """Requests, asked again where a reply cannot be used, each with its last reply."""
    seen: dict[str, _Understood] = {}

    def judge(req: GenRequest, result: GenResult) -> Reply:
        found = seen[req.request_id] = _understood(req, result, stage)
        return found.reply

    outcomes = generate_repaired(client, reqs, judge, base_seed=base_seed, repairs=stage.repairs)
    return [_Asked(one, seen[one.request.request_id]) for one in outcomes]


def _understood(req: GenRequest, result: GenResult, stage: CallStage) -> _Understood:
    reply = understand(req, result, refusals=stage.refusals)
    if result.error is not None:
        return _Understood(reply)
    value = {"text": reply.text} if req.schema is None else reply.value
    if stage.open_ended and reply.code in (None, "truncated"):
        reply, value = Reply(reply.text), {"text": reply.text, "finish": result.finish_reason}
    if reply.code == "not_json" and stage.from_text is not None:
        value = stage.from_text(reply.text)
        reply = reply if value is None else Reply(reply.text, value)
    if reply.code is not None or value is None:
        return _Understood(reply)
    try:
        named = stage.check(value, req.parts or {})
    except Exception as error:  # of this row alone
        named = f"the check failed: {type(error).__name__}: {error}"
    details = (named,) if isinstance(named, str) else named
    if not details:
        return _Understood(reply, value)
    code = next((detail for detail in details if detail in stage.codes), "semantic")
    words = tuple(stage.words.get(detail, detail) for detail in details)
    wrong = Reply(reply.text, code=cast(ReplyCode, code), messages=words)
    return _Understood(wrong, None, ", ".join(details))


def _verdict(one: _Asked, stage: CallStage) -> Ok | Reject:
    outcome, found = one.outcome, one.found
    if outcome.code is None and found.value is not None:
        return Ok(found.value, outcome.reply.fix, outcome.repairs)
    detail = found.detail or "; ".join(outcome.reply.messages)
    # Words of ours hold nothing of the prompt; those of a server are searched for it.
    return Reject(
        code=outcome.code or "not_json",
        detail=detail,
        request=None if detail else outcome.request,
        result=outcome.result,
    )
