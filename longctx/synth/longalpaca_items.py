"""What `synth.longalpaca` asks for, takes and looks at (LongLoRA, arXiv 2309.12307).

Quotas by category for the documents that are asked about, with some to spare for those that come to
nothing; the records of a file of short rows, checked field by field; and what the rows of a mixture
must look like together: shares as they were asked for, lengths, support, every question behind its
document, nothing twice. Linear in the rows.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longctx.errors import RecipeError
from longctx.ids import h128
from longctx.synth.checks import allocate, norm_answer, support
from longctx.synth.items import Bin, Quotas, bin_name
from longctx.synth.longalpaca import LEAST_SUPPORT
from longctx.synth.rows import Row

Facts = dict[str, Any]
SHORT = "short"
_POINT = 0.01  # how far a share of the mixture may be from what was asked for


@dataclass(frozen=True)
class CategoryQuotas(Quotas):
    """Documents by language and category, `spare` more of each than the mixture takes.

    A bin is a category, by its place in `quota`; `total` are the long rows of the mixture.
    """

    quota: Mapping[str, int]
    spare: float

    @property
    def bins(self) -> int:
        return len(self.quota)

    def wanted(self) -> dict[Bin, int]:
        found: dict[Bin, int] = {}
        for at, n in enumerate(allocate(self.total, list(self.quota.values()))):
            asked = math.ceil(n * (1 + self.spare))
            for lang, own in zip(
                self.shares, allocate(asked, list(self.shares.values())), strict=True
            ):
                found[lang, at] = own
        return found

    def place(self, lang: str | None, n_tokens: int | None, category: str | None) -> Bin | None:
        """The bin of a document; None for one that no bin takes."""
        is_known = category in self.quota and super().bin_of(lang, n_tokens) is not None
        return (str(lang), list(self.quota).index(str(category))) if is_known else None

    def bounds(self, at: int) -> tuple[int, int]:
        return self.least, self.most

    def mean_tokens(self) -> float:
        return (self.least + self.most) / 2

    def report(
        self, available: Mapping[str, int], reached: Mapping[str, int]
    ) -> list[dict[str, Any]]:
        names = list(self.quota)
        return [
            {
                "lang": lang,
                "category": names[at],
                "least": self.least,
                "most": self.most,
                "wanted": n,
                "available": available.get(bin_name((lang, at)), 0),
                "reached": reached.get(bin_name((lang, at)), 0),
            }
            for (lang, at), n in self.wanted().items()
            if n
        ]


def read_short(records: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Row]:
    """Rows in Alpaca form, each given with its place; RecipeError for what is none.

    `id` may be missing; it is then the number of the row, from 0.
    """
    found: dict[str, Row] = {}
    for number, (place, record) in enumerate(records):
        row_id = record.get("id")
        row = {
            "id": f"{number:09d}" if row_id is None else str(row_id),
            "instruction": _text(record, "instruction", place),
            "input": "" if record.get("input") is None else _text(record, "input", place, True),
            "output": _text(record, "output", place),
        }
        if row["id"] in found:
            raise _wrong(place, "id", f"{row['id']!r} is the id of an earlier row, too")
        found[row["id"]] = row
    return list(found.values())


def _text(record: Mapping[str, Any], field: str, place: str, may_be_empty: bool = False) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        told = "an empty one" if isinstance(value, str) else type(value).__name__
        have = ", ".join(sorted(record)[:12])
        raise _wrong(place, field, f"a text is expected, found {told}; the row has {have}")
    return value.encode("utf-8", "replace").decode()


def _wrong(place: str, field: str, found: str) -> RecipeError:
    return RecipeError(
        f"field `{field}` of a short row: {found}",
        where=place,
        remedy="a short row is {instruction, input, output}, in which `input` may be empty",
    )


def facts(row: Row) -> Facts:
    """What the mixture and the checks read of a row."""
    alpaca = row["alpaca"]
    problems = []
    if alpaca["input"] != "":
        problems.append("input")
    if [turn["content"] for turn in row["messages"]] != [alpaca["instruction"], alpaca["output"]]:
        problems.append("messages")
    known = {"kind": row["kind"], "category": row["category"], "tokens": row["n_tokens"]}
    if row["kind"] == SHORT:
        return {**known, "problems": problems}
    document, question = row["context"], row["instruction"]
    at = alpaca["instruction"].find(document)
    if at < 0 or not alpaca["instruction"][at + len(document) :].endswith(question):
        problems.append("question_before_document")
    return {
        **known,
        "document": h128(document.encode("utf-8", "replace")),
        "question": h128(norm_answer(question).encode()),
        "support": round(support(row["response"], document), 4),
        "problems": problems,
    }


def figures(
    rows: Sequence[Mapping[str, Any]],
    wanted: int,
    ratio: tuple[int, int],
    quota: Mapping[str, int],
    lengths: tuple[int, int],
) -> dict[str, Any]:
    """The checks by name, each with `ok`; empty without rows.

    `wanted` rows were asked for; `lengths` are the fewest and most tokens of a long row.
    """
    if not rows:
        return {}
    long = [r for r in rows if r["kind"] != SHORT]
    found = {
        "size": {"wanted": wanted, "rows": len(rows), "ok": len(rows) >= wanted},
        "mixture": _mixture(rows, ratio, quota),
        "sound_rows": _problems(rows),
        "short_tokens": _spread([r["tokens"] for r in rows if r["kind"] == SHORT]),
    }
    if long:
        spread = _spread([r["tokens"] for r in long])
        supports = _spread([r["support"] for r in long])
        pairs = Counter((r["document"], r["question"]) for r in long)
        twice = sum(n - 1 for n in pairs.values())
        found |= {
            "long_tokens": {
                **spread,
                "ok": lengths[0] <= spread["min"] and spread["max"] <= lengths[1],
            },
            "support": {**supports, "ok": supports["min"] >= LEAST_SUPPORT},
            "duplicates": {"rows": twice, "ok": twice == 0},
        }
    return found


def _mixture(
    rows: Sequence[Mapping[str, Any]], ratio: tuple[int, int], quota: Mapping[str, int]
) -> dict[str, Any]:
    """Requested and reached share of each category and of short rows."""
    reached = Counter(r["category"] for r in rows)
    long = ratio[0] / sum(ratio)
    asked = {c: n / sum(quota.values()) * long for c, n in quota.items() if n}
    asked[SHORT] = ratio[1] / sum(ratio)
    parts = {
        part: {
            "rows": reached[part],
            "requested_share": round(share, 6),
            "reached_share": round(reached[part] / len(rows), 6),
        }
        for part, share in asked.items()
    }
    # Two roundings to whole rows, of all and of the long ones, can move a part by nearly two.
    bound = max(_POINT, 2 / len(rows))
    ok = all(abs(p["requested_share"] - p["reached_share"]) <= bound for p in parts.values())
    return {"parts": parts, "ok": ok}


def _problems(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = Counter(problem for r in rows for problem in r["problems"])
    return {"problems": dict(sorted(counts.items())), "ok": not counts}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {"min": 0, "mean": 0.0, "max": 0}
    return {"min": min(values), "mean": round(sum(values) / len(values), 4), "max": max(values)}
