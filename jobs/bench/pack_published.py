"""The published figures of packing, each with the order, strategy and options that made it.

Windows of `LENGTH` and `LONG` tokens over the log-normal lengths of `datasets.lengths`; the limits
are how far a correct implementation may be off.
"""

from typing import Any, NamedTuple

LENGTH, LONG = 8_192, 131_072

# Windows, fill, documents cut, of those that fit a window, coherence: None where none is published.
Figures = tuple[int, float, float | None, float | None, float | None]
WINDOWS, FILL, CUT, COHERENT, UNORDERED = 0.002, 0.002, 0.004, 0.01, 0.005


class Case(NamedTuple):
    """A row of the published table: an order of a set, packed in one way."""

    dataset: str
    length: int
    order: str
    strategy: str
    options: dict[str, Any]
    published: Figures


def _hier(order: str, strategy: str, published: Figures, **options: Any) -> Case:
    return Case("hier20000", LENGTH, order, strategy, options, published)


PUBLISHED = [
    _hier("random", "concat", (3_303, 0.9998, 0.1543, 0.1390, 0.030)),
    _hier("icp", "concat", (3_303, 0.9998, 0.1548, 0.1396, 0.503)),
    _hier("path", "concat", (3_303, 0.9998, 0.1549, 0.1396, 0.696)),
    _hier("path", "window", (3_949, 0.8363, 0.0152, 0.0, 0.705), look_ahead=1),
    _hier("path", "best_fit", (3_303, 0.9998, 0.0152, 0.0, 0.031)),
    _hier("path", "window", (3_332, 0.9911, 0.0152, 0.0, 0.656), look_ahead=16),
    _hier("path", "window", (3_317, 0.9956, 0.0152, 0.0, 0.652), look_ahead=64),
    _hier(
        "path", "window", (3_303, 0.9998, 0.1432, 0.1280, 0.654), look_ahead=64, fill_policy="split"
    ),
    _hier("path", "window", (3_312, 0.9971, 0.0152, 0.0, 0.651), look_ahead=256),
    _hier("path", "window", (3_310, 0.9977, 0.0152, 0.0, 0.600), look_ahead=64, rule="largest"),
    _hier("path", "window", (3_322, 0.9941, 0.0152, 0.0, 0.664), look_ahead=64, rule="similar"),
    Case("hier20000", LONG, "random", "concat", {}, (207, 0.9971, 0.0103, 0.0103, 0.028)),
    Case("hier20000", LONG, "icp", "concat", {}, (207, 0.9971, 0.0103, 0.0103, 0.168)),
    Case("hier20000", LONG, "path", "concat", {}, (207, 0.9971, 0.0103, 0.0103, 0.539)),
    Case("hier20000", LONG, "path", "window", {"look_ahead": 64}, (207, 0.9971, 0.0, 0.0, 0.538)),
    Case("hier20000", LONG, "path", "window", {"look_ahead": 1}, (211, 0.9782, 0.0, 0.0, None)),
    Case("wiki2", LENGTH, "random", "concat", {}, (1_003, 0.9994, 0.156, None, 0.055)),
    Case("wiki2", LENGTH, "icp", "concat", {}, (1_003, 0.9994, 0.156, None, 0.329)),
    Case("wiki2", LENGTH, "path", "concat", {}, (1_003, 0.9994, 0.156, None, 0.408)),
    Case("wiki2", LENGTH, "cluster_path", "concat", {}, (1_003, 0.9994, 0.156, None, 0.429)),
    Case("wiki2", LENGTH, "path", "window", {"look_ahead": 64}, (1_007, 0.9954, 0.0139, 0, 0.318)),
    Case(
        *("wiki2", LENGTH, "cluster_path", "window", {"look_ahead": 64}),
        (1_007, 0.9954, 0.0139, 0.0, 0.378),
    ),
]
