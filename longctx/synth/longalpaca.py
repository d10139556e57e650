"""LongAlpaca's mixture: long questions by category and short instructions, in Alpaca form.

LongLoRA (arXiv 2309.12307): 9k rows with a document and 3k short ones, so that short skills
stay. The published shares of categories are quotas here; the total shrinks until every rounded part
can be had, or (`fill="redistribute"`) what one category lacks goes to the others in proportion.
Filters, lengths and the model that wrote the released questions are not stated: the stage
`longalpaca.qa`, its bounds and `min_len` are ours. A document over the limit is refused, or loses
its own tail: the right truncation of the reference silently loses question and answer. One pass of
counting, then the rows of smallest hash. Lost: with `truncate`, what the tail alone could answer.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from longctx.ids import h128
from longctx.synth.checks import allocate, norm_answer, support
from longctx.synth.draw import hash_order
from longctx.synth.prompt import TEXT, Prompt, object_schema, prompt, sections
from longctx.synth.rows import Reject, Row, envelope
from longctx.synth.tokens import TokenCounter
from longctx.synth.words import count_words

SYSTEM = "longalpaca"
PROMPT_VERSION = "longalpaca-1"
QUOTA = {"book": 13, "summary": 7, "review": 20, "analysis": 20, "other": 14}
LIMIT, MIN_LEN = 16_384, 4_096
LEAST_SUPPORT = 0.5
LEAST_ANSWER_WORDS, MOST_ANSWER_WORDS = 30, 1_500

_QA_SCHEMA = object_schema(question=TEXT, answer=TEXT)
_IMPERATIVE = re.compile(
    r"(?:please\s+)?(?:summari[sz]e|describe|explain|compare|contrast|list|discuss|analy[sz]e|"
    r"identify|outline|give|name|tell|write|provide|evaluate|assess|suggest|propose|show|state|"
    r"review|criti(?:que|ci[sz]e)|examine|characteri[sz]e|trace|consider|find)\b"
    r"|请|概括|总结|归纳|描述|解释|比较|对比|分析|列出|列举|说明|评价|指出|简述|阐述|介绍|讨论|谈谈",
    re.IGNORECASE,
)
# A Korean request has its verb at the end.
_KOREAN_REQUEST = re.compile(r"(?:십시오|시오|세요|하라|해라|해\s?줘)[.。]?\s*\Z")
_FRAME = {
    "en": ("Below is a text. Read it, then do what is asked after it.", "The text ends here."),
    "zh": ("下面是一篇文章。请阅读，然后完成文后的要求。", "文章到此结束。"),
    "ko": ("아래는 글입니다. 읽고 나서 글 뒤의 요청에 답하십시오.", "글은 여기서 끝납니다."),
}


class Mix(NamedTuple):
    """The chosen rows in a shuffled order, each with `kind`; the parts; duplicates left out.

    `report` has `rows`, `requested_share` and `reached_share` by category and for "short".
    """

    rows: list[Row]
    report: dict[str, dict[str, float]]
    duplicates: int


def longalpaca_mix(
    long: Sequence[Mapping[str, Any]],
    short: Sequence[Mapping[str, Any]],
    ratio: tuple[int, int] = (3, 1),
    category_quota: Mapping[str, int] = QUOTA,
    total: int | None = None,
    seed: int = 0,
    fill: Literal["shrink", "redistribute"] = "shrink",
) -> Mix:
    """Long rows (`id`, `document`, `question`, `category`) and short ones (`id`) by quotas.

    Rows that `assemble_long` would refuse have to go before. Of rows with the same document and
    question the first in hash order stays. Ids are unique among the long and among the short rows.
    """
    pools, duplicates = _pools(long, category_quota, seed)
    names = hash_order((row["id"] for row in short), seed, SYSTEM, "short")
    supply = {category: len(ids) for category, ids in pools.items()}
    sizes, n_short = mix_sizes(supply, len(names), ratio, category_quota, total, fill)
    kept = {f"long|{i}" for c, n in sizes.items() for i in pools[c][:n]}
    kept |= {f"short|{i}" for i in names[:n_short]}
    rows = {f"long|{row['id']}": {**row, "kind": "long"} for row in long}
    rows |= {f"short|{row['id']}": {**row, "kind": "short"} for row in short}
    order = hash_order(kept, seed, SYSTEM, "shuffle")
    report = _report(sizes, n_short, ratio, category_quota)
    return Mix([rows[key] for key in order], report, duplicates)


def _pools(
    long: Sequence[Mapping[str, Any]], quota: Mapping[str, int], seed: int
) -> tuple[dict[str, list[str]], int]:
    """Ids of the distinct long rows by category in hash order, and how many were duplicates."""
    by_id = {row["id"]: row for row in long}
    if len(by_id) != len(long):
        raise ValueError(f"{len(long)} long rows have {len(by_id)} different ids")
    pools: dict[str, list[str]] = {category: [] for category, n in quota.items() if n}
    seen: set[tuple[str, str]] = set()
    for name in hash_order(by_id, seed, SYSTEM, "long"):
        row = by_id[name]
        key = (h128(row["document"].encode()), norm_answer(row["question"]))
        if key not in seen and row["category"] in pools:
            pools[row["category"]].append(name)
        seen.add(key)
    return pools, len(long) - len(seen)


def mix_sizes(
    supply: Mapping[str, int],
    short: int,
    ratio: tuple[int, int],
    quota: Mapping[str, int],
    total: int | None = None,
    fill: Literal["shrink", "redistribute"] = "shrink",
) -> tuple[dict[str, int], int]:
    """Rows to take of each category, and short ones: the largest total that can be had.

    `total` is the most that is wanted. Raises ValueError where quotas or ratio are not positive.
    """
    wanted = {category: n for category, n in quota.items() if n}
    if min(ratio) < 1 or not wanted or min(wanted.values()) < 0:
        raise ValueError(f"ratio {ratio} and quotas {dict(quota)} must be positive whole numbers")
    available = {category: supply.get(category, 0) for category in wanted}
    whole = sum(wanted.values())
    long_max = (
        min(Fraction(available[c] * whole, n) for c, n in wanted.items())
        if fill == "shrink"
        else Fraction(sum(available.values()))
    )
    most = int(min(long_max * sum(ratio) / ratio[0], Fraction(short * sum(ratio), ratio[1])))
    size = most if total is None else min(most, total)
    while size > 0:
        n_long, n_short = allocate(size, ratio)
        parts = _by_category(n_long, wanted, available if fill == "redistribute" else None)
        fits = all(parts[c] <= available[c] for c in wanted)
        if fits and n_short <= short and sum(parts.values()) == n_long:
            return parts, n_short
        size -= 1
    return dict.fromkeys(wanted, 0), 0


def _by_category(
    n_long: int, wanted: Mapping[str, int], caps: Mapping[str, int] | None
) -> dict[str, int]:
    """`n_long` by quota; with caps, what a category lacks goes to the others in proportion."""
    full: dict[str, int] = {}
    while open_ := {c: n for c, n in wanted.items() if c not in full}:
        rest = max(0, n_long - sum(full.values()))
        parts = dict(zip(open_, allocate(rest, list(open_.values())), strict=True))
        over = {c: caps[c] for c, n in parts.items() if n > caps[c]} if caps else {}
        if not over:
            return {c: full.get(c, parts.get(c, 0)) for c in wanted}
        full |= over
    return {c: full[c] for c in wanted}


def _report(
    sizes: Mapping[str, int], n_short: int, ratio: tuple[int, int], quota: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    whole, reached = sum(quota.values()), {**sizes, "short": n_short}
    total = sum(reached.values())
    asked = {c: quota[c] / whole * ratio[0] / sum(ratio) for c in sizes}
    asked["short"] = ratio[1] / sum(ratio)
    return {
        part: {
            "rows": n,
            "requested_share": asked[part],
            "reached_share": n / total if total else 0.0,
        }
        for part, n in reached.items()
    }


def request_qa(document: str, category: str, lang: str) -> Prompt:
    """Stage `longalpaca.qa`: one question of a category on a document, with its answer."""
    stage = "longalpaca.qa"
    parts = {"document": document, "category": category, "lang": lang}
    shown = {"kind": sections(stage, lang)[category]}
    return prompt(stage, lang, parts, _QA_SCHEMA, shown=shown)


def check_qa(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`question_form`, `answer_length` (30 to 1,500 words) or `unsupported`; None if it is good."""
    question, answer = reply["question"].strip(), reply["answer"]
    asks = question.endswith(("?", "？"))
    if not (asks or _IMPERATIVE.match(question) or _KOREAN_REQUEST.search(question)):
        return "question_form"
    if not LEAST_ANSWER_WORDS <= count_words(answer) <= MOST_ANSWER_WORDS:
        return "answer_length"
    return None if support(answer, parts["document"]) >= LEAST_SUPPORT else "unsupported"


def assemble_long(
    row: Mapping[str, Any],
    lang: str,
    source: str,
    counter: TokenCounter,
    seed: int,
    limit: int = LIMIT,
    min_len: int = MIN_LEN,
    truncate: Literal["", "document"] = "",
) -> Row | Reject:
    """A long row as it is trained on, or `too_short` or `too_long` in tokens of all its turns.

    With `truncate="document"` the document's tail is cut instead of refusing what is too long.
    """
    made = _long(row, row["document"], lang, source, counter, seed)
    document = row["document"]
    while truncate == "document" and made["n_tokens"] > limit and document:
        offsets = counter.encode(document).offsets
        kept = len(offsets) - (made["n_tokens"] - limit)
        document = document[: offsets[kept]].rstrip() if kept > 0 else ""
        made = _long(row, document, lang, source, counter, seed)
    if made["n_tokens"] > limit or not document:
        return Reject("too_long", f"{made['n_tokens']} tokens, more than {limit}")
    if made["n_tokens"] < min_len:
        return Reject("too_short", f"{made['n_tokens']} tokens, fewer than {min_len}")
    return made


def _long(
    row: Mapping[str, Any], document: str, lang: str, source: str, counter: TokenCounter, seed: int
) -> Row:
    intro, closing = _FRAME[lang]
    instruction = "\n\n".join([intro, document, closing, row["question"]])
    own = {"file": row.get("file"), "category": row["category"], "kind": "long"}
    return _row(row, instruction, row["answer"], own, lang, source, counter, seed) | {
        "context": document,
        "instruction": row["question"],
    }


def assemble_short(
    row: Mapping[str, Any], lang: str, source: str, counter: TokenCounter, seed: int
) -> Row:
    """A short row, asked by its `short_instruction`."""
    own = {"file": None, "category": "short", "kind": "short"}
    asked = short_instruction(row)
    return _row(row, asked, row["output"], own, lang, source, counter, seed)


def short_instruction(row: Mapping[str, Any]) -> str:
    """What a short row asks: a non-empty `input` follows the instruction after a blank line."""
    return "\n\n".join([row["instruction"], *([row["input"]] if row.get("input") else [])])


def _row(
    row: Mapping[str, Any],
    instruction: str,
    output: str,
    own: Row,
    lang: str,
    source: str,
    counter: TokenCounter,
    seed: int,
) -> Row:
    turns = [
        {"role": "user", "content": instruction},
        {"role": "assistant", "content": output},
    ]
    shared = envelope(
        id=f"{SYSTEM}-{own['kind']}-{row['id']}",
        system=SYSTEM,
        lang=lang,
        messages=turns,
        instruction=instruction,
        counter=counter,
        source=source,
        seed=seed,
        prompt_version=PROMPT_VERSION,
    )
    alpaca = {"instruction": instruction, "input": "", "output": output}
    return {**shared, "alpaca": alpaca, **own}
