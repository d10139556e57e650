"""What `longctx mix train` shows when it is done: losses of each target, and the noise of seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longctx.mixture.proxies import NAMED, Result, seed_spread
from longctx.report.format import MISSING, count, one_line, percent, plural
from longctx.report.grids import legend, listed

_WIDTH = 28
_TERMS = (
    ("least .. most", "held-out losses of all proxies, nats per token of the tokenizer"),
    ("own class", "tokens that are frequent enough to be predicted themselves, not in a bucket"),
)


def proxy_view(
    results: Sequence[Result], targets: Sequence[str], design: Mapping[str, Any]
) -> Group:
    """Losses of each target over all proxies, and what was read of it; then remarks."""
    head = (
        f"{plural(len(results), 'proxy').replace('proxys', 'proxies')} of "
        f"{count(design['parameters'])} parameters, {count(design['tokens'])} tokens each"
    )
    parts: list[RenderableType] = [Text(head), Text(), _table(results, targets, design), Text()]
    return Group(*parts, legend(_TERMS), Text(), listed(_remarks(results)))


def _table(results: Sequence[Result], targets: Sequence[str], design: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("target", overflow="fold", min_width=_WIDTH, header_style="bold")
    named = next((n for n in NAMED if any(r.mixture_id == n for r in results)), None)
    columns = ["least", "most", *([named] if named else []), "held out", "own class"]
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for target in targets:
        losses = _known(results, target)
        own = _known([r for r in results if r.mixture_id == named], target)
        read = design["sources"][target]
        cells = [_loss(min(losses, default=None)), _loss(max(losses, default=None))]
        cells += [_loss(float(np.mean(own)) if own else None)] if named else []
        cells += [count(read["held_tokens_measured"]), percent(read["coverage"])]
        table.add_row(Text(one_line(target, _WIDTH)), *cells)
    return table


def _known(results: Sequence[Result], target: str) -> list[float]:
    return [loss for r in results if (loss := r.losses[target]) is not None]


def _loss(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _remarks(results: Sequence[Result]) -> list[str]:
    said = [
        f"'{name}' with {len(means)} seeds: mean loss {means.mean():.4f}, standard deviation "
        f"{means.std(ddof=1):.4f}; losses closer than {2 * means.std(ddof=1):.4f} are ties"
        for name, means in sorted(seed_spread(results).items())
    ]
    broken = [r for r in results if r.reason]
    if broken:
        first = broken[0]
        said.append(
            f"{count(len(broken))} without a loss, such as '{first.mixture_id}' with seed "
            f"{first.seed}: {first.reason}; try a smaller --learning-rate"
        )
    return said or ["no mixture was trained with several seeds: the noise is not known."]
