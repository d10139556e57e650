"""Reads a page with the standard parser and notes every element and every fault of nesting."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr", "base", "source"}
PARENTS = {
    "li": {"ul", "ol"},
    "dt": {"dl", "div"},
    "dd": {"dl", "div"},
    "tr": {"thead", "tbody"},
    "td": {"tr"},
    "th": {"tr"},
    "thead": {"table"},
    "tbody": {"table"},
    "caption": {"table"},
    "figcaption": {"figure"},
    "summary": {"details"},
    "rect": {"svg", "g"},
    "line": {"svg"},
    "path": {"svg"},
    "g": {"svg"},
    "text": {"svg", "g"},
    "desc": {"svg"},
    "title": {"svg", "head", "rect", "g"},
    "style": {"head"},
    "meta": {"head"},
}
IN_PARAGRAPHS = {"a", "b", "code", "i", "small", "span", "strong"}


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    parents: tuple[str, ...]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """`elements` in the order of their start tags; `faults` is empty for a well-formed page."""

    source: str
    elements: list[Element] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()
        self.faults += [f"<{one.name}> is never closed" for one in self._open]

    def __hash__(self) -> int:
        return id(self)

    def named(self, *names: str) -> list[Element]:
        return [one for one in self.elements if one.name in names]

    @property
    def text(self) -> str:
        return " ".join(self.elements[0].text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        parents = tuple(one.name for one in self._open)
        parent = parents[-1] if parents else ""
        if tag in PARENTS and parent not in PARENTS[tag]:
            self.faults.append(f"<{tag}> in <{parent}>")
        if "p" in parents and tag not in IN_PARAGRAPHS:
            self.faults.append(f"<{tag}> in a paragraph")
        if tag == "a" and "a" in parents:
            self.faults.append("a link in a link")
        if len({name for name, _ in attrs}) < len(attrs):
            self.faults.append(f"<{tag}> repeats an attribute")
        element = Element(tag, {name: value or "" for name, value in attrs}, parents)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1].name != tag:
            self.faults.append(f"</{tag}> closes nothing")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for one in self._open:
            one.text += data

    def handle_comment(self, data: str) -> None:
        self.faults.append(f"a comment: {data[:40]}")
