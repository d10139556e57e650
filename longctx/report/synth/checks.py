"""The checks of a synthesis in one sentence each: what should hold, and what was found. Pure.

What should hold stands here by the name of the check; what was found is told from the form of its
figures, so that a check which an op adds is told in numbers even where this page has no words for
it.
"""

from collections.abc import Mapping
from typing import Any

from longctx.report.format import count, decimal, one_line, percent, plural
from longctx.report.synth.data import Check, Verdict

_SHOULD = {
    "depth": "The evidence stands at every depth of the context equally often",
    "token_depth": "Counted in tokens, too, the evidence stands at every depth equally often",
    "gold_position": "The right passages stand at every place equally often",
    "clue_places": "The clue documents stand at every place equally often",
    "clue_depth": "Counted in tokens, too, the clue documents stand at every depth equally often",
    "adjacent": "Pieces of evidence stand side by side no more often than chance puts them there",
    "order": "Pieces of one document keep their order no more often than chance lets them",
    "lengths": "Lengths in tokens keep to what was drawn or allowed",
    "target_len": "The lengths that contexts aim at are spread evenly over their range",
    "contexts": "Contexts are as long as was drawn, which takes enough other documents",
    "token_limit": "The lengths that contexts aim at are spread evenly over their range",
    "even_lengths": "The lengths of the documents are spread evenly over their range",
    "length": "The length of every row keeps to its bound",
    "stated_lengths": "Rows whose instruction states a length",
    "s_l": "Every text has about the length that was wanted: its length score",
    "s_q": "The judge's marks, from 0 to 100",
    "n_calls": "Calls that a row is made of",
    "context_tokens": "Contexts keep to their bounds in tokens",
    "row_tokens": "Rows keep to their bounds in tokens",
    "answer_words": "Words of the answers",
    "support": "The words of the answers stand in their evidence",
    "leave_summary_out": "Without the summary the answers have less support",
    "leave_gold_out": "Without the right passages no passage holds an answer",
    "leave_clues_out": "Without the clues no other document holds all short answers",
    "unanswerable": "Questions without a right passage have the share that was asked for",
    "short_of_hard": "There were enough passages that resemble the right ones",
    "multihop": "The judge finds that questions need several hops",
    "quality_passed": "The judge's marks are above the bound",
    "necessary": "Each clue is needed for the answer",
    "non_duplicate": "Questions differ from one another",
    "links": "Linked questions are alike, not too much so, and of one path",
    "position_coverage": "Training rows reach the positions of the window that chance would reach",
    "offsets": "Chunks stand anywhere in their slots of the window, equally often",
    "modes": "Rows whose tokens stand apart have the share that was asked for",
    "equal_chunks": "All answers of a triple were given from equally many chunks",
    "answer_lengths": "Chosen answers are about as long as rejected ones: mean words",
    "relevance_gap": "What relevant chunks share with the question more than irrelevant ones",
    "gold": "Triples whose right answer was known",
    "evaluators": "Named entities and content words rank chunks alike",
    "sound_rows": "Every row is what its parts say",
    "rows": "Every row is what its parts say",
    "decontamination": "No row shares a run of words with the evaluation sets",
    "types": "The types of rows have the shares that were asked for",
    "task_type": "The kinds of questions are drawn equally often",
    "chosen": "Each of the proposed questions is drawn equally often",
    "lang": "Languages have the shares that were asked for",
    "hops": "Every question has the number of hops of its kind",
    "size": "The mixture has as many rows as were asked for",
    "mixture": "Every part of the mixture has the share that was asked for",
    "long_tokens": "Long rows keep to their bounds in tokens",
    "short_tokens": "Tokens of short rows",
    "duplicates": "No question is asked twice of one document",
    "distinct_ids": "No two pairs have one id",
    "length_ratio": "Both texts of a pair are of comparable length",
    "chosen_longer": "The chosen text is not nearly always the longer one",
    "margin": "The texts of every pair are as far apart as was asked for",
    "evidence": "Every statement that is supported names a passage",
    "notes": "Every part of each context has notes",
    "dropped_candidates": "Few candidates are left out for lack of statements",
    "judge_controls": "The judge passes its hard controls",
    "inconsistent": "Pairs whose rejected step denies what was stated before",
    "depths": "Every depth of a path has a pair, or a reason for none",
    "prefixes": "The steps of a path join to its text",
    "permutations": "No pair is one text in two orders of its words",
    "near_facts": "Some later pieces are near enough to a fact to be compared with it",
    "conservation": "Every document is either in a row or among the rejects",
}
# Checks that cannot be told because what they compare with was not given.
_WITHOUT = frozenset({"decontamination"})
_NONE = "none were given, so nothing was held out"
_LARGEST = 1e18
# What judges nothing although its `ok` is null.
_FIGURES = frozenset({"inconsistent"})
_NAMES = ("histogram", "problems", "reasons", "counts")


def check_of(name: str, found: Mapping[str, Any]) -> Check:
    """A check by its name and figures; one without `ok` is a bare figure."""
    should = _SHOULD.get(name, one_line(name.replace("_", " "), 60).capitalize())
    verdict = _verdict(name, found)
    figures = {k: v for k, v in found.items() if k not in ("ok", "warn")}
    said = (
        "none were given, so nothing was held out"
        if verdict == "not looked at"
        else _found(figures)
    )
    sentence = f"{should}: {said}."
    if found.get("warn") is True and verdict == "holds":
        sentence += " One sound run in a hundred is as far off as this."
    return Check(one_line(name, 60), sentence, verdict)


def _verdict(name: str, found: Mapping[str, Any]) -> Verdict:
    if "ok" not in found or (name in _FIGURES and found["ok"] is None):
        return "figure"
    if found["ok"] is None:
        return "not looked at" if name in _WITHOUT else "too few rows"
    return "holds" if found["ok"] is True else "fails"


def _found(figures: Mapping[str, Any]) -> str:
    """What was found, by the form of the figures."""
    for keys, say in _FORMS:
        if all(_is_number(figures.get(key)) for key in keys):
            return say(figures)
    return _plain(figures)


def _chi2(f: Mapping[str, Any]) -> str:
    return (
        f"chi-squared {decimal(f['stat'])}, degrees of freedom {count(f['df'])}, p "
        f"{_p(f['p'])}; the largest deviation is {percent(f['max_dev'])}, "
        f"{percent(f['tol'])} allowed"
    )


def _ks(f: Mapping[str, Any]) -> str:
    return (
        f"the distribution is {decimal(f['D'])} off at the most (Kolmogorov-Smirnov, "
        f"{count(f['n'])} rows)"
    )


def _adjacent(f: Mapping[str, Any]) -> str:
    return (
        f"{count(f['found'])} such pairs, {decimal(f['expected'])} expected with a standard error "
        f"of {decimal(f['error'])}"
    )


def _kept(f: Mapping[str, Any]) -> str:
    return f"{count(f['kept'])} did, {decimal(f['expected'])} expected, p {_p(f['p'])}"


def _shared(f: Mapping[str, Any]) -> str:
    return f"{percent(f['share'])} of the rows, at least {percent(f['bound'])} wanted"


def _wanted(f: Mapping[str, Any]) -> str:
    return f"{percent(f['share'])} of the rows, {percent(f['wanted'])} wanted"


def _rate(f: Mapping[str, Any]) -> str:
    return f"{percent(f['share'])} of {count(f['n'])}, at least {percent(f['target'])} wanted"


def _expected(f: Mapping[str, Any]) -> str:
    return f"{percent(f['share'])} of it, {percent(f['expected'])} expected"


def _of(f: Mapping[str, Any]) -> str:
    return f"{percent(f['share'])} of {count(f['n'])}"


def _answered(f: Mapping[str, Any]) -> str:
    return f"one does in {count(f['answered'])} of {plural(round(f['rows']), 'row')}"


def _short(f: Mapping[str, Any]) -> str:
    lack = f"{plural(round(f['rows']), 'row')} ({percent(f['share'])})"
    return f"too few in {lack}, where {plural(round(f['documents']), 'random one')} stand in"


def _some(f: Mapping[str, Any]) -> str:
    return f"{count(f['rows'])} ({percent(f['share'])})"


def _links(f: Mapping[str, Any]) -> str:
    return (
        f"of {plural(round(f['links']), 'link')} {count(f['outside'])} lie outside of the bounds "
        f"and {count(f['apart'])} lead to another path"
    )


def _most(f: Mapping[str, Any]) -> str:
    return f"{_range(f)}; at most {count(f['most'])} allowed"


def _within(f: Mapping[str, Any]) -> str:
    return f"{_range(f)}; {count(f['least'])} to {count(f['most'])} allowed"


def _bounded(f: Mapping[str, Any]) -> str:
    return f"{_range(f)}; the bound is {decimal(f['bound'])}"


def _over(f: Mapping[str, Any]) -> str:
    return f"{_range(f)}; {count(f['over'])} too long"


def _range(f: Mapping[str, Any]) -> str:
    low, mean, high = (_value(f[key]) for key in ("min", "mean", "max"))
    return f"from {low} to {high}, {mean} on average"


def _looked_for(f: Mapping[str, Any]) -> str:
    texts = f"{plural(round(f['texts']), 'text')} of theirs looked for"
    return f"{plural(round(f['hits']), 'row')} found, {texts} in runs of {count(f['ngram'])} words"


def _hits(f: Mapping[str, Any]) -> str:
    return f"{count(f['hits'])} found"


# The first form all of whose numbers are there is taken.
_FORMS = (
    (("share", "wanted"), _wanted),
    (("share", "n", "target"), _rate),
    (("share", "expected"), _expected),
    (("rows", "share", "documents"), _short),
    (("rows", "share"), _some),
    (("share", "n"), _of),
    (("rows", "answered"), _answered),
    (("links", "outside", "apart"), _links),
    (("stat", "df", "p", "max_dev", "tol"), _chi2),
    (("D", "n"), _ks),
    (("found", "expected", "error"), _adjacent),
    (("kept", "expected", "p"), _kept),
    (("share", "bound"), _shared),
    (("min", "mean", "max", "least", "most"), _within),
    (("min", "mean", "max", "most"), _most),
    (("min", "mean", "max", "over"), _over),
    (("min", "mean", "max", "bound"), _bounded),
    (("min", "mean", "max"), _range),
    (("hits", "texts", "ngram"), _looked_for),
    (("hits",), _hits),
    (("n",), lambda f: f"{count(f['n'])} looked at"),
)


def _plain(figures: Mapping[str, Any]) -> str:
    """Names and values as they stand; of faults by name how often each was found."""
    if len(figures) == 1:
        (key, value), *_ = figures.items()
        if key in _NAMES and isinstance(value, Mapping):
            return _listed(value) if value else "nothing was found against it"
    # How values are spread is drawn, or stands in run.json.
    told = {key: value for key, value in figures.items() if key != "histogram"}
    if (parts := _parts(told.get("parts"))) is not None:
        return parts
    said = [
        f"{one_line(str(key).replace('_', ' '), 40)} {_told(value)}"
        for key, value in list(told.items())[:12]
    ]
    return "; ".join(said) or "nothing was counted"


def _parts(parts: Any) -> str | None:
    """Parts of a mixture with their shares, reached and wanted; None for anything else."""
    if not isinstance(parts, Mapping) or not all(isinstance(p, Mapping) for p in parts.values()):
        return None
    both = [(n, p.get("reached_share"), p.get("requested_share")) for n, p in parts.items()]
    if not both or not all(_is_number(a) and _is_number(b) for _, a, b in both):
        return None
    said = (f"{one_line(str(n), 40)} {percent(a)} of {percent(b)}" for n, a, b in both[:12])
    return f"reached of wanted: {', '.join(said)}"


def _told(value: Any) -> str:
    return f"({_listed(value)})" if isinstance(value, Mapping) else _value(value)


def _listed(values: Mapping[str, Any]) -> str:
    shown = [f"{one_line(str(k), 40)} {_value(v)}" for k, v in list(values.items())[:12]]
    return ", ".join(shown) or "none"


def _value(value: Any) -> str:
    if _is_number(value):
        return count(value) if float(value).is_integer() else decimal(value)
    if value is None:
        return "unknown"
    return one_line(str(value), 60)


def _is_number(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and abs(value) < _LARGEST


def _p(value: float) -> str:
    return "below 0.0001" if value < 1e-4 else decimal(value)
