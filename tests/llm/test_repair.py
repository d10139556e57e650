"""Asking again: what is asked, how often, and what is left alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from longctx.llm.keys import canonical_key
from longctx.llm.repair import Outcome, asked_again, generate_repaired, understand
from longctx.llm.structured import Reply
from longctx.llm.types import Caps, GenError, GenRequest, GenResult

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "number"}},
    "required": ["score"],
}
GOOD = '{"score": 7}'
LONG = '{"score": "7"} ' + " ".join(map(str, range(1000)))


def ask(text: str = "mark this", **changes: Any) -> GenRequest:
    return GenRequest(
        request_id=text,
        messages=[{"role": "user", "content": text}],
        max_tokens=16,
        **{"schema": SCHEMA, "system": "s", "stage": "judge", **changes},
    )


def said(text: str, finish: Any = "stop", error: str | None = None) -> GenResult:
    return GenResult(
        request_id="r",
        key="k",
        text=text,
        finish_reason=finish,
        error=GenError(error) if error else None,
    )


def outcome(req: GenRequest, text: str, finish: Any = "stop", **changes: Any) -> Outcome:
    result = said(text, finish)
    return Outcome(req, result, understand(req, result), **changes)


def test_a_judge_is_asked_again_warmer() -> None:
    req = ask()
    again = asked_again(outcome(req, LONG))
    assert again is not None
    assert again.messages[0] == req.messages[0]
    assert [m["role"] for m in again.messages] == ["user", "assistant", "user"]
    assert len(again.messages[1]["content"]) == 2000
    assert "$.score: '7' is not of type 'number'" in again.messages[2]["content"]
    assert again.temperature == 0.95
    assert canonical_key(again, "m") != canonical_key(req, "m")
    # Equal requests of other rows share what was asked again, too.
    assert again.seed == getattr(asked_again(outcome(ask(row_id="8"), LONG)), "seed", None)


def test_sampled_stages_keep_their_temperature_and_seed() -> None:
    again = asked_again(outcome(ask(temperature=0.7, seed=5), "no object"))
    assert again is not None
    assert (again.temperature, again.seed) == (0.7, 5)


def test_a_begun_reply_is_corrected_in_turns() -> None:
    begun = [{"role": "user", "content": "q"}, {"role": "assistant", "content": '{"sco'}]
    again = asked_again(outcome(replace(ask(), messages=begun), "nothing"))
    assert again is not None
    assert [m["role"] for m in again.messages] == ["user", "assistant", "user"]
    assert again.messages[1]["content"] == '{"sconothing'


def test_a_cut_reply_gets_twice_the_room_once() -> None:
    cut = outcome(ask(), '{"sco', "length")
    again = asked_again(cut)
    assert again is not None
    assert (again.max_tokens, again.messages, again.temperature) == (32, ask().messages, 0.0)
    assert getattr(asked_again(cut, max_context=27), "max_tokens", None) == 20
    assert asked_again(cut, max_context=20) is None
    assert asked_again(replace(cut, grown=True)) is None
    assert asked_again(replace(cut, repairs=2)) is not None


def test_what_is_left_alone() -> None:
    for text in ("", "I cannot help with that.", "Max tries. Failed.", "so " * 200, GOOD):
        assert asked_again(outcome(ask(), text)) is None
    failed = said("", "error", "context_overflow")
    assert asked_again(Outcome(ask(), failed, understand(ask(), failed))) is None
    assert Outcome(ask(), failed, understand(ask(), failed)).code == "context_overflow"
    assert asked_again(outcome(ask(), "no object", repairs=2)) is None


@dataclass
class Client:
    """Answers by a function of the request; keeps what it was asked."""

    rule: Callable[[GenRequest], GenResult]
    model_id: str = "m"
    caps: Caps = field(default_factory=lambda: Caps(max_context=1000))
    rounds: list[list[GenRequest]] = field(default_factory=list)

    def generate(self, reqs: Sequence[GenRequest]) -> list[GenResult]:
        self.rounds.append(list(reqs))
        return [self.rule(req) for req in reqs]

    def close(self) -> None:
        pass


def test_rounds_until_all_are_good() -> None:
    def rule(req: GenRequest) -> GenResult:
        turns = len(req.messages)
        if req.request_id == "cut" and req.max_tokens == 16:
            return said('{"sco', "length")
        if req.request_id == "late" and turns < 5:
            return said("not yet")
        if req.request_id == "never":
            return said('{"score": 70}' if turns > 1 else "never")
        return said(GOOD)

    def check(reply: Reply) -> list[str]:
        return [] if reply.value and reply.value["score"] <= 10 else ["score must be at most 10"]

    client = Client(rule)
    names = ["good", "cut", "late", "never"]
    found = generate_repaired(client, [ask(n) for n in names], partial(understand, check=check))
    assert [len(r) for r in client.rounds] == [4, 3, 2]
    assert [o.code for o in found] == [None, None, None, "semantic"]
    assert [o.repairs for o in found] == [0, 0, 2, 2]
    assert [o.grown for o in found] == [False, True, False, False]
    assert "score must be at most 10" in client.rounds[2][1].messages[4]["content"]


def test_texts_are_checked_too() -> None:
    client = Client(lambda req: said("short" if len(req.messages) == 1 else "long enough"))
    long_enough = partial(understand, check=lambda r: [] if len(r.text) > 6 else ["too short"])
    (found,) = generate_repaired(client, [ask(schema=None)], long_enough)
    assert (found.reply.text, found.repairs, found.code) == ("long enough", 1, None)
