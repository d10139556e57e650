"""HTML and SVG as typed text: nothing reaches the page without having been escaped.

`Markup` is a type of its own, so the type checker refuses a plain string (a document's text, an
id, a reason) where markup is expected: it has to pass through `text` or stand in an attribute.
"""

import html
from collections.abc import Iterable
from typing import NewType

from longctx.report.format import printable

Markup = NewType("Markup", str)

NOTHING = Markup("")
_VOID = frozenset({"br", "meta"})


def text(value: object) -> Markup:
    """`value` as escaped text."""
    return Markup(html.escape(printable(str(value))))


def tag(name: str, /, *children: Markup, **attributes: str | int | float | None) -> Markup:
    """One element. Attribute values are escaped; null ones are left out.

    Names are written as Python allows them: `class_` is `class`, `aria_label` is `aria-label`.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{''.join(children)}</{name}>")


def join(parts: Iterable[Markup], between: str = "") -> Markup:
    """The parts one after the other, with escaped text between them."""
    return Markup(text(between).join(parts))


def _short(value: str | int | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
