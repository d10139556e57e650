"""What a recipe may say to `decide`: bounds of columns, and rules that compare a row with others.

Only words and their checks; what a rule does stands in `borders.py` and `derived.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from longctx.filter.derived import DERIVED
from longctx.filter.narrow import Mode
from longctx.registry import did_you_mean

Share = Annotated[float, Field(ge=0, le=1)]
Class = Literal["holistic", "aggregated", "chaotic"]
_MODES: dict[str, tuple[str, ...]] = {
    "top": ("top",),
    "top_tokens": ("top_tokens",),
    "min_quantile, max_quantile": ("min_quantile", "max_quantile"),
    "band": ("band",),
    "threshold": ("threshold",),
    "budget_tokens": ("budget_tokens",),
}
_MODE_FIELDS = tuple(name for names in _MODES.values() for name in names)
_FAILS = {"ge": "<", "gt": "<=", "le": ">", "lt": ">="}


class Bounds(BaseModel):
    """Inclusive limits of one column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some(self) -> "Bounds":
        if self.min is None and self.max is None:
            raise ValueError("give `min`, `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class KeepOfSource(BaseModel):
    """What to keep by one score; every field may be another for a source.

    One of `top` (a fraction of the rows with a score), `top_tokens`, `min_quantile` and
    `max_quantile`, `band` (percent ranks) or `threshold` with `compare`; the others are options of
    derived scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: float | None = Field(None, gt=0, le=1)
    top_tokens: float | None = Field(None, ge=1)
    min_quantile: Share | None = None
    max_quantile: Share | None = None
    band: tuple[Share, Share] | None = None
    threshold: float | None = None
    compare: Literal["ge", "gt", "le", "lt"] | None = None
    alpha: Share | None = None
    norm: Literal["z", "rank", "paper_softmax", "released"] | None = None
    hmg: Literal["log_difference", "z_each"] | None = None
    classes: list[Class] | None = Field(None, min_length=1)
    weights: dict[Class, Annotated[float, Field(ge=0)]] | None = None
    p_lo: Share | None = None
    p_hi: Share | None = None
    x_lo: Share | None = None
    x_hi: Share | None = None

    @model_validator(mode="after")
    def _one_mode(self) -> "KeepOfSource":
        given = self.modes()
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(given)}, not {len(given)}")
        if self.compare is not None and self.threshold is None:
            raise ValueError("`compare` says on which side of a `threshold`: give both")
        for low, high in ((self.min_quantile, self.max_quantile), self.band or (None, None)):
            if low is not None and high is not None and low > high:
                raise ValueError(f"{low:g} is above {high:g}")
        return self

    def modes(self) -> list[str]:
        """The modes that are given, by the fields that they have."""
        return [
            name
            for name, fields in _MODES.items()
            if any(getattr(self, f, None) is not None for f in fields)
        ]

    def given_options(self) -> dict[str, Any]:
        """The options of derived scores that are given."""
        known = {n for entry in DERIVED.values() for n in entry.options}
        return {n: v for n in sorted(known) if (v := getattr(self, n)) is not None}


class Keep(KeepOfSource):
    """What to keep by one score: the rule of `KeepOfSource`, for which groups, and budgets.

    Rows are compared inside their source, or with `per: all` together. `per_source` changes fields
    for a source. `budget_tokens` keeps about so many tokens in all: by `shares` the same percent of
    every source (the smallest that exceeds it), by `score` the best rows of all sources that fit.
    """

    budget_tokens: float | None = Field(None, ge=1)
    budget: Literal["shares", "score"] | None = None
    per: Literal["source", "all"] | None = None
    per_source: dict[str, KeepOfSource] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_whole(self) -> "Keep":
        if self.budget is not None and self.budget_tokens is None:
            raise ValueError("`budget` says how `budget_tokens` are dealt out: give both")
        if self.budget == "score" and self.per == "source":
            raise ValueError("`budget: score` compares all sources: leave `per` out")
        if self.budget_tokens is not None and any(k.modes() for k in self.per_source.values()):
            raise ValueError("`budget_tokens` is a budget of all sources: no source has its own")
        return self

    def together(self, name: str) -> bool:
        """Whether rows of all sources are compared by this score."""
        usual = DERIVED[name].per if name in DERIVED else "source"
        return self.budget == "score" or (self.per or usual) == "all"

    def of(self, source: str) -> "Keep":
        """The rule for a source, with what `per_source` changes."""
        own = self.per_source.get(source)
        if own is None:
            return self
        changed: dict[str, Any] = {n: getattr(own, n) for n in own.model_fields_set}
        if own.modes():
            changed = {**dict.fromkeys((*_MODE_FIELDS, "compare")), **changed}
        return self.model_copy(update=changed)

    def options(self, name: str) -> dict[str, Any]:
        """The options of a derived score, defaults included."""
        usual = dict(DERIVED[name].options) if name in DERIVED else {}
        given = self.given_options()
        if "weights" in given:
            given["weights"] = {**usual["weights"], **given["weights"]}
        return {**usual, **given}

    def mode(self) -> Mode:
        """What is kept of a line, for the borders; "all" where this rule says nothing."""
        if self.top is not None:
            return Mode("top", (self.top,))
        if self.top_tokens is not None:
            return Mode("top_tokens", (self.top_tokens,))
        if self.min_quantile is not None or self.max_quantile is not None:
            return Mode("quantiles", (self.min_quantile, self.max_quantile))
        if self.band is not None:
            return Mode("band", self.band)
        if self.threshold is not None:
            return Mode("threshold", (self.threshold,), self.compare or "ge")
        if self.budget_tokens is not None:
            kind: Literal["top_tokens", "shares"] = (
                "top_tokens" if self.budget == "score" else "shares"
            )
            return Mode(kind, (self.budget_tokens,))
        return Mode("all")

    def reasons(self, name: str) -> tuple[str, str]:
        """Why a row goes that is too low, and why one that is too high."""
        mode = self.mode()
        if mode.kind == "quantiles":
            low, high = mode.at
            return f"{name} < quantile {low or 0:g}", f"{name} > quantile {high or 0:g}"
        if mode.kind == "threshold":
            said = f"{name} {_FAILS[mode.compare]} {self.threshold:g}"
        elif mode.kind == "band":
            said = f"{name} outside ranks {mode.at[0]:g} to {mode.at[1]:g}"
        elif mode.kind == "top":
            said = f"{name} not in top {self.top:g}"
        else:
            said = f"{name} over budget"
        return said, said

    def needs_tokens(self) -> bool:
        """Whether a budget is counted in tokens."""
        rules = (self, *self.per_source.values())
        return self.budget_tokens is not None or any(r.top_tokens is not None for r in rules)


def check_keep(keep: Mapping[str, Keep]) -> None:
    """Raise ValueError where a rule does not fit its score, or rules do not fit each other."""
    for name, rule in keep.items():
        rules = (rule, *rule.per_source.values())
        _check_options(name, rules)
        modes = [r.modes() for r in rules]
        if name == "wanjuan":
            if any(modes):
                raise ValueError("wanjuan keeps `classes`; it has no score to cut by")
        elif not any(modes):
            raise ValueError(f"{name}: give one of {', '.join(_MODES)}")
        if rule.per_source and rule.together(name):
            raise ValueError(f"{name}: `per_source` needs `per: source`")
    if len(keep) > 1 and any(r.budget_tokens is not None for r in keep.values()):
        raise ValueError(
            "`budget_tokens` works with one score: cut by the others in another decide"
        )


def _check_options(name: str, rules: tuple[KeepOfSource, ...]) -> None:
    own = DERIVED[name].options if name in DERIVED else {}
    for rule in rules:
        for option in rule.given_options():
            if option in own:
                continue
            having = ", ".join(n for n, entry in DERIVED.items() if option in entry.options)
            meant = "" if name in DERIVED else did_you_mean(name, DERIVED)
            raise ValueError(f"`{option}` is an option of {having}, not of {name}{meant}")
