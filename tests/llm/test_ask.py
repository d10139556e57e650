"""From rows to usable replies: every row comes back, good ones whole, bad ones with a reason."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.llm.ask import CallStage, Ok, ask
from longctx.llm.cache import NullCache
from longctx.llm.client import Client
from longctx.llm.faults import Fault, FaultKind, FaultPlan
from longctx.llm.rejects import Reject, reject_row
from longctx.llm.scripted import Cut, ScriptedBackend
from longctx.llm.types import Caps, GenRequest, GenResult

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Sums:
    """What is asked: the sum of two numbers, behind a text that many share."""

    a: int
    b: int
    text: str = "the same long document"
    schema: dict[str, Any] | None = field(default_factory=lambda: SCHEMA)

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"{self.text}\n\n{self.a} + {self.b}?"}]

    @property
    def parts(self) -> dict[str, Any]:
        return {"a": self.a, "b": self.b}


def is_right(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    if "sum" not in reply:
        return None
    if reply["sum"] < 0:
        return "refusal"
    return None if reply["sum"] == parts["a"] + parts["b"] else "wrong"


def stage(**changes: Any) -> CallStage:
    usual: dict[str, Any] = {"system": "t", "name": "t.sum", "check": is_right, "max_tokens": 64}
    return CallStage(**{**usual, "words": {"wrong": "The sum is wrong."}, **changes})


def adds(req: GenRequest) -> str:
    parts = req.parts or {}
    return json.dumps({"sum": parts["a"] + parts["b"]})


def client_with(rule: Callable[[GenRequest], str] = adds, *faults: Fault) -> Client:
    return Client(ScriptedBackend({"t.sum": rule}, "t-1", FaultPlan(faults)), NullCache())


def rows(n: int, **changes: Any) -> list[tuple[str, Callable[[], Sums]]]:
    return [(f"r{i}", partial(Sums, i, 2 * i, **changes)) for i in range(n)]


def codes(found: Sequence[Ok | Reject]) -> list[str | None]:
    return [r.code if isinstance(r, Reject) else None for r in found]


def test_good_replies_come_back_in_the_order_of_their_rows() -> None:
    with client_with() as client:
        found = ask(client, stage(), rows(20)[::-1])
    assert found == [Ok({"sum": 3 * i}) for i in reversed(range(20))]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("refusal", "refusal"),
        ("sentinel", "sentinel"),
        ("bad_json", "not_json"),
        ("wrong_schema", "schema"),
        ("repeat_loop", "degenerate"),
        ("truncated", "truncated"),
        ("content_filter", "content_filter"),
        ("http_400_context", "context_overflow"),
    ],
)
def test_one_bad_row_spoils_no_other(kind: FaultKind, code: str) -> None:
    with client_with(adds, Fault(kind=kind, row_id="r3", times=None)) as client:
        found = ask(client, stage(), rows(8))
    assert codes(found) == [code if i == 3 else None for i in range(8)]


def test_words_of_ours_are_kept_whole_in_the_table_of_rejects() -> None:
    made = rows(1, text="Reply with one JSON object.")
    with client_with(lambda req: "no object") as client:
        (found,) = ask(client, stage(), made)
    assert isinstance(found, Reject)
    labels = {"run_id": "", "system": "t", "stage": "t.sum", "row_id": "r0", "model": "m"}
    assert reject_row(found, **labels, ts_ms=0)["detail"] == "The JSON object is missing."


@pytest.mark.parametrize("kind", ["bad_json", "wrong_schema", "truncated"])
def test_what_can_be_mended_is_asked_for_again(kind: FaultKind) -> None:
    with client_with(adds, Fault(kind=kind, row_id="r3", nth=4)) as client:
        found = ask(client, stage(), rows(8))
        assert found[3] == Ok({"sum": 9}, repairs=0 if kind == "truncated" else 1)
        assert client.usage_rows()[0]["calls"] == 9


def test_what_a_check_says_is_told_to_the_model_in_words() -> None:
    seen: list[GenRequest] = []

    def corrects_itself(req: GenRequest) -> str:
        seen.append(req)
        return adds(req) if len(req.messages) > 2 else '{"sum": 1000}'

    with client_with(corrects_itself) as client:
        assert ask(client, stage(), rows(1)) == [Ok({"sum": 0}, repairs=1)]
    assert "- The sum is wrong." in seen[1].messages[-1]["content"]


def test_a_check_that_is_never_met_rejects_with_its_detail() -> None:
    with client_with(lambda req: '{"sum": 1000}') as client:
        (found,) = ask(client, stage(), rows(1))
        assert client.usage_rows()[0]["calls"] == 3
    assert isinstance(found, Reject)
    assert (found.code, found.detail) == ("semantic", "wrong")


def test_a_check_may_name_all_that_is_wrong_and_a_stage_how_often_it_asks_again() -> None:
    seen: list[GenRequest] = []

    def never_right(req: GenRequest) -> str:
        seen.append(req)
        return '{"sum": 1000}'

    once = stage(check=lambda *_: ("wrong", "round"), words={"wrong": "It is wrong."}, repairs=1)
    with client_with(never_right) as client:
        (found,) = ask(client, once, rows(1))
    assert isinstance(found, Reject)
    assert (found.code, found.detail, len(seen)) == ("semantic", "wrong, round", 2)
    assert "- It is wrong.\n- round\n" in seen[1].messages[-1]["content"]
    with client_with(never_right) as client:
        (found,) = ask(
            client, stage(check=lambda *_: ("wrong", "refusal"), codes={"refusal"}), rows(1)
        )
    assert codes([found]) == ["refusal"]
    with client_with() as client:
        assert ask(client, stage(check=lambda *_: ()), rows(1)) == [Ok({"sum": 0})]


def test_a_stage_of_stories_knows_itself_what_a_refusal_is() -> None:
    told = "I cannot help, said the old man, and went on rowing."
    with client_with(lambda req: told) as client:
        strict = ask(client, stage(), rows(1, schema=None))
        mild = ask(client, stage(refusals=False), rows(1, schema=None))
    assert codes(strict) == ["refusal"]
    assert mild == [Ok({"text": told})]


def test_a_detail_may_be_a_code_of_its_own() -> None:
    with client_with(lambda req: '{"sum": -1}') as client:
        (found,) = ask(client, stage(codes=frozenset({"refusal"})), rows(1))
        assert client.usage_rows()[0]["calls"] == 1
    assert codes([found]) == ["refusal"]


def test_text_can_be_read_where_no_json_comes() -> None:
    def read(text: str) -> dict[str, Any] | None:
        return {"sum": int(text.split()[-1])} if text.split()[-1].isdigit() else None

    with client_with(lambda req: "The sum is 3") as client:
        found = ask(client, stage(from_text=read), rows(2))
    assert isinstance(found[1], Ok)
    assert codes(found) == ["semantic", None]


def test_without_a_schema_the_text_is_the_reply() -> None:
    with client_with(lambda req: "It is three.") as client:
        assert ask(client, stage(), rows(1, schema=None)) == [Ok({"text": "It is three."})]


def test_an_open_ended_text_may_stop_where_its_budget_ends() -> None:
    said = {0: Cut("It is th"), 1: "It is three.", 2: Cut("I cannot help with that, so")}
    asked: list[GenRequest] = []

    def rule(req: GenRequest) -> str:
        asked.append(req)
        return said[(req.parts or {})["a"]]

    with client_with(rule) as client:
        wanted = stage(open_ended=True, extra={"top_k": 5})
        found = ask(client, wanted, rows(3, schema=None))
        assert codes(ask(client, stage(), rows(1, schema=None))) == ["truncated"]
    assert found[:2] == [
        Ok({"text": "It is th", "finish": "length"}),
        Ok({"text": "It is three.", "finish": "stop"}),
    ]
    assert codes(found)[2] == "refusal"
    assert {(r.may_be_cut, r.max_tokens, r.extra["top_k"]) for r in asked[:3] if r.extra} == {
        (True, 64, 5)
    }


def test_prompts_and_checks_that_break_reject_their_row_alone() -> None:
    def breaks() -> Sums:
        raise KeyError("no such language")

    def check(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
        return None if 1 / parts["a"] else "none"

    listed: list[tuple[str, Callable[[], Sums]]] = [*rows(3), ("bad", breaks)]
    with client_with() as client:
        found = ask(client, stage(check=check), listed)
    assert codes(found) == ["semantic", None, None, "bad_request"]
    assert isinstance(found[0], Reject)
    assert "ZeroDivisionError" in found[0].detail


@dataclass
class Listening:
    """A generator that keeps what it was asked and says nothing usable."""

    asked: list[GenRequest] = field(default_factory=list)
    model_id: str = "api:listening"
    caps: Caps = field(default_factory=Caps)

    def generate(self, reqs: Sequence[GenRequest]) -> list[GenResult]:
        self.asked += reqs
        return [GenResult(request_id=r.request_id, key="k", finish_reason="stop") for r in reqs]

    def close(self) -> None:
        pass


def test_requests_that_begin_alike_are_neighbours() -> None:
    client = Listening()
    listed = [(f"r{i}", partial(Sums, i, 0, text=f"document {i % 3}")) for i in range(9)]
    assert codes(ask(client, stage(), listed)) == ["empty"] * 9
    begun = [r.messages[0]["content"].split("\n")[0] for r in client.asked]
    assert begun == sorted(begun)


def test_seeds_come_from_the_row_and_only_where_something_is_drawn() -> None:
    client = Listening()
    ask(client, stage(temperature=0.7), rows(3), base_seed=5)
    ask(client, stage(temperature=0.7), rows(3)[1:], base_seed=5)
    ask(client, stage(), rows(1), base_seed=5)
    seeds = {(r.row_id, r.seed) for r in client.asked[:5]}
    assert len(seeds) == len({seed for _, seed in seeds}) == 3
    assert client.asked[-1].seed is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["good", "refusal", "not_json", "breaks"]), max_size=20))
def test_rows_in_are_rows_ok_and_rejected(fates: list[str]) -> None:
    said = {"good": None, "refusal": "I cannot help with that.", "not_json": "words"}

    def rule(req: GenRequest) -> str:
        return said[fates[(req.parts or {})["a"]]] or adds(req)

    def prompt(i: int) -> Sums:
        if fates[i] == "breaks":
            raise ValueError("no prompt")
        return Sums(i, i)

    listed = [(str(i), partial(prompt, i)) for i in range(len(fates))]
    with client_with(rule) as client:
        found = Counter(codes(ask(client, stage(), listed)))
    wanted = {"good": None, "breaks": "bad_request"}
    assert found == Counter(wanted.get(fate, fate) for fate in fates)
