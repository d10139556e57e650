"""Published mixtures: shares by slot, the Pile's copies, and what fills a slot.

A slot is a kind of text ("books") that a recipe fills with its own sources. The share of a slot
that nothing fills goes to the others of its group in proportion, so that ProLong's 60 : 40 of long
and short text stays (ours); a group that nothing fills is an error.

Sources: the Pile (arXiv 2101.00027, table 1; raw sizes in GiB and copies; its Books3 must not be
used and is listed for the check of its effective size), Fu et al. (2402.10171: shares of the code,
and LLaMA's, which the text of the paper gives), ProLong (2410.02660, tables of both stages), and
the two phases of LLaMA-2-7B-32K by Together. A document that fills a window of ProLong's second
stage is in no window of the first length there (ours).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from longctx.errors import RecipeError
from longctx.registry import did_you_mean

PresetName = Literal["slimpajama_fu", "llama1", "together_32k_1", "together_32k_2"]
PILE = "pile22"
SHORT = "short"
LONG = "long"
_64K, _512K = 65536, 524288


class Slot(NamedTuple):
    """A share of tokens, and the group that takes it when nothing fills the slot.

    With `windows` every document fills windows of its own, at a share for each length; longer
    documents belong to the longer windows.
    """

    share: float
    group: str = ""
    windows: tuple[tuple[int, float], ...] = ()


class PileSource(NamedTuple):
    """Raw size in GiB, and how often it is read in 1.2 TB."""

    raw: float
    copies: float


PILE_SOURCES: dict[str, PileSource] = {
    "Pile-CC": PileSource(227.12, 1),
    "PubMed Central": PileSource(90.27, 2),
    "Books3": PileSource(100.96, 1.5),
    "OpenWebText2": PileSource(62.77, 2),
    "ArXiv": PileSource(56.21, 2),
    "Github": PileSource(95.16, 1),
    "FreeLaw": PileSource(51.15, 1.5),
    "StackExchange": PileSource(32.20, 2),
    "USPTO Backgrounds": PileSource(22.90, 2),
    "PubMed Abstracts": PileSource(19.26, 2),
    "Gutenberg (PG-19)": PileSource(10.88, 2.5),
    "OpenSubtitles": PileSource(12.98, 1.5),
    "Wikipedia (en)": PileSource(6.38, 3),
    "DM Mathematics": PileSource(7.75, 2),
    "Ubuntu IRC": PileSource(5.52, 2),
    "BookCorpus2": PileSource(6.30, 1.5),
    "EuroParl": PileSource(4.59, 2),
    "HackerNews": PileSource(3.90, 2),
    "YoutubeSubtitles": PileSource(3.73, 2),
    "PhilPapers": PileSource(2.38, 2),
    "NIH ExPorter": PileSource(1.89, 2),
    "Enron Emails": PileSource(0.88, 2),
}
_FORBIDDEN = frozenset({"Books3"})


def _plain(shares: Mapping[str, float]) -> dict[str, Slot]:
    return {name: Slot(share) for name, share in shares.items()}


SHARES: dict[str, dict[str, Slot]] = {
    "slimpajama_fu": _plain(
        {
            "C4": 0.26609933,
            "CommonCrawl": 0.53374772,
            "StackExchange": 0.03169647,
            "Wikipedia": 0.03402128,
            "GitHub": 0.05004782,
            "ArXiv": 0.04290379,
            "Book": 0.0414836,
        }
    ),
    "llama1": _plain(
        {
            "CommonCrawl": 0.67,
            "C4": 0.15,
            "GitHub": 0.045,
            "Wikipedia": 0.045,
            "Book": 0.045,
            "ArXiv": 0.025,
            "StackExchange": 0.02,
        }
    ),
    "together_32k_1": _plain({"books": 0.25, "arxiv": 0.25, "other": 0.25, "ul2_oscar": 0.25}),
    "together_32k_2": _plain(
        {"natural_instructions": 0.2, "p3": 0.2, "pile": 0.2, "books": 0.2, "arxiv": 0.2}
    ),
}

_PROLONG_SHORT = {
    "fineweb_edu": 0.10,
    "fineweb": 0.10,
    "stackexchange": 0.04,
    "wikipedia": 0.04,
    "instructions": 0.03,
    "arxiv": 0.03,
    "openwebmath": 0.03,
    "textbooks": 0.03,
}


def _prolong(**windows: tuple[tuple[int, float], ...]) -> dict[str, Slot]:
    long = {n: Slot(sum(s for _, s in parts), LONG, parts) for n, parts in windows.items()}
    return {**long, **{name: Slot(share, SHORT) for name, share in _PROLONG_SHORT.items()}}


PROLONG: dict[str, dict[str, Slot]] = {
    "prolong_64k": _prolong(code_repos=((_64K, 0.30),), books=((_64K, 0.30),)),
    "prolong_512k": _prolong(
        code_repos=((_512K, 0.15), (_64K, 0.15)), books=((_512K, 0.05), (_64K, 0.25))
    ),
}


def pile_copies_of(raw: Mapping[str, float] | None = None) -> dict[str, float]:
    """Copies of the sources of the Pile that may be used; `raw` names those that are there."""
    known = {n: s.copies for n, s in PILE_SOURCES.items() if n not in _FORBIDDEN}
    return known if raw is None else {n: c for n, c in known.items() if n in raw}


def filled(
    preset: Mapping[str, Slot],
    slots: Mapping[str, Sequence[str]],
    sources: Collection[str],
    name: str,
) -> tuple[dict[str, list[str]], dict[str, float], list[str]]:
    """Sources and share of every slot that something fills, and notes about the others.

    `slots` says which sources fill a slot; a slot that it does not name takes the source of its own
    name, if there is one. Shares sum to 1. Raises RecipeError for slots that the preset lacks, a
    source in two slots, and groups that nothing fills.
    """
    for slot in slots:
        if slot not in preset:
            raise RecipeError(
                f"{name} has no slot '{slot}'{did_you_mean(slot, preset)}",
                where="slots",
                remedy=f"name slots among {', '.join(preset)}",
            )
    by_slot = {slot: list(slots.get(slot, [slot] if slot in sources else [])) for slot in preset}
    taken: dict[str, str] = {}
    for slot, named in by_slot.items():
        for source in named:
            if source in taken:
                raise RecipeError(
                    f"source '{source}' fills two slots, '{taken[source]}' and '{slot}'",
                    where="slots",
                    remedy="name every source once",
                )
            taken[source] = slot
    groups = dict.fromkeys(one.group for one in preset.values())
    shares: dict[str, float] = {}
    notes: list[str] = []
    for group in groups:
        own = {slot: one.share for slot, one in preset.items() if one.group == group}
        there = {slot: share for slot, share in own.items() if by_slot[slot]}
        if not there:
            kind = f" of its {group} text" if group else ""
            raise RecipeError(
                f"no source fills a slot{kind} of {name}: {', '.join(own)}",
                where="slots",
                remedy="say in `slots` which sources fill them, as in "
                f"slots: {{{next(iter(own))}: [my_source]}}",
            )
        factor = sum(own.values()) / sum(there.values())
        shares |= {slot: share * factor for slot, share in there.items()}
        if missing := [slot for slot in own if slot not in there]:
            notes.append(
                f"nothing fills {', '.join(missing)}: their share goes to {', '.join(there)}"
            )
    total = sum(shares.values())
    used = {slot: by_slot[slot] for slot in shares}
    return used, {slot: share / total for slot, share in shares.items()}, notes
