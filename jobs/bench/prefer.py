"""Calls of prefer.longreward: ours against the naive way, with the scripted backend in one process.

    python -m jobs.bench.prefer [--prompts N] [--tokens T] [--write]

Both ways judge the same sampled answers by the same prompts. The naive way does what follows from
reading the method literally: notes for every answer anew, every copy of an answer judged again,
requests in the order of the candidates, and nothing kept. Ours is the unit that the op runs.
Counted are requests, calls that reach the model, tokens of prompts by the client's estimate, and
the tokens of each prompt that a server with a prefix cache of `--slots` recent prompts need not
read again. A second pass over the same unit shows what a killed run pays again. Exit code 1 when
the ways find other totals, when ours calls more, or when the second pass calls anything.
"""

import argparse
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jobs.bench.report import table, write_section
from longctx.llm.accounting import estimate_text, estimate_tokens
from longctx.llm.cache import Cache, NullCache
from longctx.llm.cache_sqlite import SQLiteCache
from longctx.llm.client import Client
from longctx.llm.scripted import ScriptedBackend
from longctx.llm.settings import ClientSettings
from longctx.llm.types import Answer, GenRequest
from longctx.prefer.asking import Asker
from longctx.prefer.longreward_unit import Settings, judge_unit
from longctx.prefer.retrieval import hash_vectors
from longctx.prefer.stages_longreward import PreferLongReward
from longctx.synth.items import Item
from longctx.synth.rule_set import rule_set
from longctx.synth.tokens import TokenCounter

TITLE = "Calls of prefer.longreward"
SAMPLES = 10
Found = Mapping[str, Mapping[str, Any]]


class Prefixes:
    """What a server keeps of the prompts that it read last, as whole blocks of characters."""

    block = 256

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._kept: OrderedDict[str, None] = OrderedDict()

    def shared(self, text: str) -> int:
        """Characters at the beginning of a prompt that are there, which is then kept itself."""
        best = max((self._common(text, other) for other in self._kept), default=0)
        self._kept[text] = None
        self._kept.move_to_end(text)
        while len(self._kept) > self._slots:
            self._kept.popitem(last=False)
        return best

    def _common(self, one: str, other: str) -> int:
        at, size = 0, self.block
        while at + size <= len(one) and one[at : at + size] == other[at : at + size]:
            at += size
        return at


class Watched(ScriptedBackend):
    """The backend with what reached it."""

    def __init__(self, prefixes: Prefixes) -> None:
        rules = rule_set()
        super().__init__(rules.rules, rules.version)
        self.prefixes = prefixes
        self.calls = self.read = self.again = 0

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        self.calls += 1
        text = "\n".join(m["content"] for m in req.messages)
        tokens = estimate_tokens(req.messages)
        self.read += tokens
        self.again += min(tokens, estimate_text(text[: self.prefixes.shared(text)]))
        return await super().attempt(req, key)


class Run(NamedTuple):
    """One way: requests, calls, tokens of prompts, those a prefix cache saves, seconds of CPU."""

    name: str
    requests: int
    calls: int
    read: int
    again: int
    cpu_s: float


def items(prompts: int, tokens: int) -> list[Item]:
    """Questions on contexts of so many words; two of three share their context with another."""
    found = []
    for i in range(prompts):
        doc = i // 3
        words = (
            f"Keeper Zora{doc} found lamp {k} of brass under stair{k} today." for k in range(9**6)
        )
        text: list[str] = []
        while 11 * len(text) < tokens:
            text.append(next(words))
        asked = {"question": {"question": f"What did Zora{doc} find under stair{3 + i}?"}}
        found.append(Item(f"p{i:03d}", "en", "s", 11 * len(text), " ".join(text), asked))
    return found


def op() -> PreferLongReward:
    """The op with its defaults."""
    fields = {"op": "prefer.longreward", "generator": {"backend": "scripted"}, "rows": 1}
    return PreferLongReward.model_validate(fields)


def asker(client: Client) -> Asker:
    known = op()
    return Asker({c.step: c for c in known.judged_calls()}, client, client, known.judging, 0)


def copied(answers: Mapping[int, str]) -> dict[int, str]:
    """The answers of a prompt, the last two being the same as the first two, as sampling has it."""
    last = len(answers) - 2
    return {k: answers[k - last] if k >= last else text for k, text in answers.items()}


def sampled(of: Sequence[Item], settings: Settings) -> dict[str, dict[int, str]]:
    """Answers that both ways judge."""
    with Client(ScriptedBackend(rule_set().rules, "s"), NullCache()) as client:
        found = judge_unit(of, asker(client), TokenCounter(), replace(settings, notes_chunk=10**9))
    return {
        i: copied({c["sample_index"]: c["answer"] for c in told["candidates"]})
        for i, told in found.items()
    }


def ours(
    name: str, of: Sequence[Item], settings: Settings, cache: Cache, slots: int
) -> tuple[Run, Found]:
    """The op's own unit."""
    backend = Watched(Prefixes(slots))
    # One in flight: then a prefix cache sees the requests in the order in which they go out.
    with Client(backend, cache, ClientSettings(in_flight=1)) as client:
        asking = asker(client)
        begin = time.process_time()
        found = judge_unit(of, asking, TokenCounter(), settings)
        took = time.process_time() - begin
        requests = sum(c.rows_in for c in asking.counts.values())
    return Run(name, requests, backend.calls, backend.read, backend.again, took), found


def naive(of: Sequence[Item], settings: Settings, slots: int) -> tuple[Run, Found]:
    """Each answer of each prompt for itself: its own notes, its own marks, one after the other."""
    backend = Watched(Prefixes(slots))
    assert settings.ready is not None
    found: dict[str, dict[str, Any]] = {item.id: {"candidates": [], "notes": []} for item in of}
    requests, begin = 0, time.process_time()
    most = max(len(answers) for answers in settings.ready.values())
    for k in range(most):
        for item in of:
            # Nothing is kept from one answer to the next, and no equal request is met in flight.
            with Client(backend, NullCache(), ClientSettings(in_flight=1)) as client:
                asking = asker(client)
                one = replace(settings, ready={item.id: {k: settings.ready[item.id][k]}})
                (told,) = judge_unit([item], asking, TokenCounter(), one).values()
                requests += sum(c.rows_in for c in asking.counts.values())
            found[item.id]["candidates"] += told["candidates"]
            found[item.id]["notes"] += told["notes"]
    took = time.process_time() - begin
    return Run("naive", requests, backend.calls, backend.read, backend.again, took), found


def totals(found: Found) -> dict[tuple[str, int], float | None]:
    """The total of every answer."""
    return {
        (i, c["sample_index"]): c["scores"]["total"]
        for i, told in found.items()
        for c in told["candidates"]
    }


def measured(prompts: int, tokens: int, slots: int, folder: Path) -> tuple[list[Run], list[str]]:
    """The ways with what is off about them."""
    of = items(prompts, tokens)
    settings = Settings(n=SAMPLES, embed=hash_vectors)
    settings = replace(settings, ready=sampled(of, settings))
    cache = partial(SQLiteCache, folder / "answers.sqlite")
    plain, first = naive(of, settings, slots)
    good, second = ours("ours", of, settings, cache(), slots)
    again, third = ours("ours, once more", of, settings, cache(), slots)
    off = []
    if not totals(first) == totals(second) == totals(third):
        off.append("the ways find other totals")
    if good.calls >= plain.calls:
        off.append(f"ours calls {good.calls} times, the naive way {plain.calls}")
    if again.calls:
        off.append(f"the second pass calls {again.calls} times, wanted 0")
    return [plain, good, again], off


def report(runs: Sequence[Run], prompts: int, tokens: int, slots: int) -> str:
    rows = [
        [
            run.name,
            f"{run.requests:,}",
            f"{run.calls:,}",
            f"{run.read:,}",
            f"{run.read - run.again:,}",
            f"{run.again / run.read:.2f}" if run.read else "-",
            f"{run.cpu_s:.1f}",
        ]
        for run in runs
    ]
    plain, good = runs[0], runs[1]
    fresh = (plain.read - plain.again) / (good.read - good.again)
    header = [
        "way",
        "requests",
        "calls",
        "tokens of prompts",
        "read anew",
        "from prefixes",
        "CPU s",
    ]
    return (
        f"{prompts} prompts, three on each context of {tokens:,} words, {SAMPLES} answers each of "
        "which the last two are copies of the first two; judged by rules (no model), defaults of "
        "the op. The naive way takes notes for every answer, judges copies again, sends requests "
        "answer by answer and keeps nothing. Tokens are the client's estimate; a prefix cache that "
        f"holds the last {slots} prompts is simulated beside both. Both ways give every answer the "
        f"same total.\n\n{table(header, rows)}\n\nOurs: {plain.calls / good.calls:.2f} times fewer "
        f"calls, {plain.read / good.read:.2f} times fewer tokens of prompts, {fresh:.2f} times "
        "fewer that a server with such a cache reads; a second pass over the same unit, as after a "
        "kill, calls nothing."
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Calls of prefer.longreward, counted.")
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="write them to docs/benchmarks.md")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        runs, off = measured(args.prompts, args.tokens, args.slots, Path(folder))
    text = report(runs, args.prompts, args.tokens, args.slots)
    print(text)
    print("\n".join(off), file=sys.stderr)
    if args.write and not off:
        write_section(TITLE, text)
    return int(bool(off))


if __name__ == "__main__":
    sys.exit(main())
