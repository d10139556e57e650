"""LongWriter's preference pairs: several answers to a writing task, scored by length and quality.

LongWriter (arXiv 2408.07055) samples four answers to each prompt from its fine-tuned model, scores
them, and takes the best as chosen and one of the other three as rejected. Ours, where the paper is
silent: the score is the mean of the length score S_l and the judge's S_q, and S_q alone where the
prompt states no length; rejected is drawn from those at least `margin` points below the best. A
sample is asked for plainly, as a user asks; a prompt with two scored answers and more may give a
pair. Cost: a call and a mark for every sample, the mark reading the sample. Lost: prompts whose
answers are equally good, which a sharper judge might tell apart.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from longctx.llm.ask import Ok
from longctx.llm.rejects import Reject as Refused
from longctx.prefer.asking import Asker, Call
from longctx.prefer.pairs import Group, Side, build, histogram, pair_problems
from longctx.synth.draw import generator
from longctx.synth.longwriter import DIMENSIONS, counter_of, length_score, pick_pair, s_q
from longctx.synth.longwriter_calls import marks_of, refuses, request_judge
from longctx.synth.longwriter_required import Required
from longctx.synth.longwriter_rows import overall
from longctx.synth.prompt import Prompt
from longctx.synth.rows import Reject, Row
from longctx.synth.words import count_words

SYSTEM, PROMPT_VERSION = "longwriter_pairs", "longwriter_pairs-1"
SAMPLE, JUDGE = "lw.sample", "lw.judge"
RULE = "random_below_margin"
LENGTH_RATIO = 4.0  # the length score's own bound: at four times the length it is 0
_EDGES = (2.0, 5.0, 10.0, 20.0, 40.0)

CANDIDATES = pa.schema(
    {
        "id": pa.string(),
        "sample_index": pa.int32(),
        "text": pa.string(),
        "status": pa.string(),
        "length": pa.int32(),
        "s_l": pa.float64(),
        "s_q": pa.float64(),
        "score": pa.float64(),
        **dict.fromkeys(DIMENSIONS, pa.int32()),
    }.items()
)


@dataclass
class Sample:
    """One answer with its scores; `status` says what is missing ("ok": nothing)."""

    index: int
    text: str | None = None
    status: str = "ok"
    length: int | None = None
    s_l: float | None = None
    marks: dict[str, int] | None = None

    @property
    def s_q(self) -> float | None:
        """The quality score, 0 to 100."""
        return None if self.marks is None else s_q([self.marks])

    @property
    def score(self) -> float | None:
        """S: the mean of both scores; of the marks alone where no length is wanted."""
        return self.s_q if self.s_l is None else overall(self.s_l, self.s_q)

    def told(self) -> dict[str, Any]:
        """The sample as plain JSON values."""
        scores = {"length": self.length, "s_l": self.s_l, "s_q": self.s_q, "score": self.score}
        known = {"sample_index": self.index, "text": self.text, "status": self.status}
        return {**known, **scores, "dims": self.marks}


@dataclass
class Case:
    """One prompt of a unit: the task, the length that is wanted, and what was sampled."""

    id: str
    task: str
    lang: str
    required: Required | None
    samples: list[Sample] = field(default_factory=list)


def request_sample(case: Case, index: int) -> Prompt:
    """Stage `lw.sample`: the task as a user states it, and nothing else."""
    parts = {"prompt": case.task, "lang": case.lang, "required": case.required, "sample": index}
    return Prompt(SAMPLE, ({"role": "user", "content": case.task},), parts)


def check_sample(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`empty` or `refusal`; a story may speak of not being able to help."""
    text = reply["text"].strip()
    if not text:
        return "empty"
    return "refusal" if refuses(text, count_words(text)) else None


def judge_unit(cases: Sequence[Case], asker: Asker, n: int) -> None:
    """Sample `n` answers to every case, count them, and have them marked."""
    calls = [
        Call(case.id, case.id, partial(request_sample, case, index), index)
        for case in cases
        for index in range(n)
    ]
    found = iter(asker.ask(SAMPLE, calls))
    for case in cases:
        case.samples = [_sampled(case, index, next(found)) for index in range(n)]
    listed = [(case, one) for case in cases for one in case.samples if one.text is not None]
    marked = asker.ask(JUDGE, [judge_call(case, one.text, one.index) for case, one in listed])
    for (_, one), reply in zip(listed, marked, strict=True):
        if isinstance(reply, Ok):
            one.marks = marks_of(reply.value)
        else:
            one.status = f"{JUDGE}:{reply.code}"


def judge_call(case: Case, text: str | None, name: int | str) -> Call:
    """The call that marks a text of a case."""
    make = partial(request_judge, case.task, text or "", case.lang)
    return Call(case.id, f"{case.id}/{name}", make)


def _sampled(case: Case, index: int, reply: Ok | Refused) -> Sample:
    if isinstance(reply, Refused):
        return Sample(index, status=f"{SAMPLE}:{reply.code}")
    text = reply.value["text"].strip()
    length = count_words(text, counter_of(case.required))
    score = None if case.required is None else length_score(case.required, length)
    return Sample(index, text, length=length, s_l=score)


def pair_of(
    told: Sequence[Mapping[str, Any]], group: Group, margin: float, max_ratio: float
) -> Row | Reject:
    """The row of a prompt's samples, as `Sample.told` says them, or why there is none.

    `too_few_candidates` with fewer than two scored samples, `small_margin` where none is far enough
    below the best; then all that speaks against a pair.
    """
    scored = [one for one in told if one["score"] is not None]
    if len(scored) < 2:
        found = f"{len(scored)} of {len(told)} samples have a score, two are needed"
        return Reject("too_few_candidates", found)
    scores = [one["score"] for one in scored]
    rng = generator(group.seed, SYSTEM, "pair", group.group_id)
    picked = pick_pair(scores, rng, margin)
    if picked is None:
        below = max(scores) - min(scores)
        return Reject("small_margin", f"the worst is {below:.1f} below the best of {margin:g}")
    chosen, rejected = (_side(scored[i]) for i in picked)
    return build(group, chosen, rejected, rule=RULE, max_ratio=max_ratio)


def _side(one: Mapping[str, Any]) -> Side:
    dims = {name: float(mark) for name, mark in one["dims"].items()}
    known = {name: one[name] for name in ("s_l", "s_q") if one[name] is not None}
    return Side(text=one["text"], score=one["score"], dims={**dims, **known})


def candidate_rows(id_: str, told: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The samples of a prompt as rows of CANDIDATES."""
    none = dict.fromkeys(DIMENSIONS)
    return [
        {"id": id_, **{k: v for k, v in one.items() if k != "dims"}, **(one["dims"] or none)}
        for one in told
    ]


def facts(row: Row, told: Sequence[Mapping[str, Any]], max_ratio: float) -> dict[str, Any]:
    """What the checks read of one pair and of all samples of its prompt."""
    sides = [Side(text=row[name]) for name in ("chosen", "rejected")]
    scores = [one["score"] for one in told if one["score"] is not None]
    problems = [bad.code for bad in pair_problems(sides[0], sides[1], max_ratio=max_ratio)]
    if row["score_chosen"] != max(scores):
        problems.append("not_the_best")
    return {
        "margin": round(row["margin"], 4),
        "score_chosen": round(row["score_chosen"], 4),
        "score_rejected": round(row["score_rejected"], 4),
        "words_chosen": count_words(row["chosen"]),
        "words_rejected": count_words(row["rejected"]),
        "statuses": dict(Counter(one["status"] for one in told)),
        "problems": problems,
    }


def figures(rows: Sequence[Mapping[str, Any]], margin: float) -> dict[str, Any]:
    """The checks by name; empty without rows."""
    if not rows:
        return {}
    margins = [r["margin"] for r in rows]
    problems = Counter(p for r in rows for p in r["problems"])
    statuses: Counter[str] = Counter()
    for row in rows:
        statuses.update(row["statuses"])
    longer = sum(r["words_chosen"] > r["words_rejected"] for r in rows)
    return {
        "margin": {
            "min": min(margins),
            "mean": _mean(margins),
            "max": max(margins),
            "bound": margin,
            "histogram": histogram(margins, _EDGES),
            "ok": min(margins) >= margin - 1e-4,  # of the rounding
        },
        "scores": {n: _mean([r[f"score_{n}"] for r in rows]) for n in ("chosen", "rejected")},
        "words": {n: _mean([r[f"words_{n}"] for r in rows]) for n in ("chosen", "rejected")},
        "chosen_longer": {"rows": longer, "share": round(longer / len(rows), 4)},
        "samples": dict(sorted(statuses.items())),
        "sound_rows": {"problems": dict(sorted(problems.items())), "ok": not problems},
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
