"""Sentences as character spans, in any language that ends them with a mark, and in code.

A rule, not a model: a sentence ends behind .!?… (and closing quotes or brackets) when white space
or the end follows, behind 。！？ whatever follows, and at a blank line. A full stop does not end
one behind a title or an abbreviation, a single capital (an initial), letters joined by stops
("e.g."), or the number of a list item; a stop inside a number has no space behind it. Headings,
list items and the times of chat logs begin a sentence. A block of lines that mostly end like code
(brackets, semicolons, colons, commas) is cut into its lines: a stop means nothing there.

Every abbreviation that the lists lack costs one wrong cut, and a sentence that ends in a listed one
is joined to the next. Linear in the text: 20 MB/s and more on a core, and about 120 bytes of memory
for each sentence, so 200 MB of prose take ten seconds and 250 MB beside the text.
"""

import re
from collections.abc import Iterator

_NARROW = ".!?…"
_WIDE = "。！？｡"
_CLOSERS = "\"'”’»)\\]}」』】）》〉"
# List items, headings, rules, and the times of chat logs begin a sentence on a line of their own.
_BEGINS = r"(?:[-*+•]|\#{1,6}|\d{1,3}[.)])[^\S\n]|={3}|\[\d\d?:\d\d"
# The class in front lets the regex engine skip to candidates; possessive runs keep it linear.
_END = re.compile(
    rf"[{_NARROW}{_WIDE}\n](?:"
    rf"(?<=\n)(?=[^\S\n]*+(?:{_BEGINS}))"
    rf"|(?<!\n)(?<![{_NARROW}{_WIDE}]{{2}})(?:"
    rf"(?<=[{_NARROW}])[{_NARROW}]*+(?P<closed>[{_CLOSERS}]*+)(?=\s|\Z)"
    rf"|[{_NARROW}]*+(?:(?<=[{_WIDE}])|[{_WIDE}])[{_NARROW}{_WIDE}]*+[{_CLOSERS}]*+"
    r")[^\S\n]*+\n?+)"
)
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*+\n)++")
_LINE = re.compile(r"\n(?=[^\S\n]*+\S)")
_WORD_BEFORE = re.compile(r"[^\s(\[{\"'“‘«「『（]*\Z")
_JOINED_LETTERS = re.compile(r"[^\W\d_](?:\.[^\W\d_])+\Z")
_CODE_ENDS = frozenset(";{}()[]:=\\,>|&")
_LOOK_BACK = 16


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


# Never the end of a sentence.
_TITLES = _words(
    "mr mrs ms mx dr prof rev hon st mt gen col maj capt cmdr lt sgt gov sen rep pres mme mlle",
    "messrs vs v cf viz ca resp",
)
# Not the end when a lower-case letter or a digit follows.
_SOMETIMES = _words(
    "etc inc ltd co corp jr sr bros al approx est dept univ assn ave blvd rd min max incl excl ed",
    "eds trans jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun",
)
# Not the end when a number follows ("no. 5").
_BEFORE_NUMBERS = _words(
    "no nos p pp fig figs eq eqs sec secs art arts vol vols ch chap para ex tab ref refs ver"
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Half-open character spans of the sentences of `text`, in order and without gaps.

    White space behind a sentence belongs to it (up to one line break, or all blank lines), so the
    spans join to the text; none is white space alone unless the whole text is. "" has no spans.
    """
    starts = [0]
    for first, block in _blocks(text):
        body = block.rstrip()
        if not body:
            continue
        if first:
            starts.append(first)
        inner = _line_ends(body) if _is_code(body) else _sentence_ends(body)
        lead = len(body) - len(body.lstrip())
        starts += [first + end for end in inner if lead < end < len(body)]
    ends = [*starts[1:], len(text)]
    return list(zip(starts, ends, strict=True)) if text else []


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Position and text of what lies between blank lines, those behind it included.

    White space in front of the first block belongs to it, so a block without words is the last.
    """
    first = 0
    for blank in _BLANK_LINES.finditer(text):
        if first == 0 and not text[: blank.start()].strip():
            continue
        yield first, text[first : blank.end()]
        first = blank.end()
    yield first, text[first:]


def _is_code(body: str) -> bool:
    """Whether at least half of two or more lines end like code."""
    lines = body.split("\n")
    if len(lines) < 2:
        return False
    return 2 * sum(line.rstrip()[-1:] in _CODE_ENDS for line in lines) >= len(lines)


def _line_ends(body: str) -> Iterator[int]:
    return (line.end() for line in _LINE.finditer(body))


def _sentence_ends(body: str) -> Iterator[int]:
    return (found.end() for found in _END.finditer(body) if not _goes_on(body, found))


def _goes_on(body: str, found: re.Match[str]) -> bool:
    """Whether the sentence goes on behind what looks like its end."""
    after = body[found.end() : found.end() + 1]
    if found["closed"] and after.islower():
        return True
    mark = found.start()
    if not found[0].startswith(".") or found[0][1:].strip():
        return False
    window = body[max(0, mark - _LOOK_BACK) : mark]
    before = _WORD_BEFORE.search(window)
    word = before[0] if before else ""
    lower = word.lower()
    if lower in _TITLES or _JOINED_LETTERS.match(word):
        return True
    if len(word) == 1 and word.isupper():
        return True
    if lower in _SOMETIMES:
        return after.islower() or after.isdigit()
    if lower in _BEFORE_NUMBERS:
        return after.isdigit()
    # The number of a list item: nothing stands before it on its line.
    on_line = window[: len(window) - len(word)].rpartition("\n")[2]
    return word.isdecimal() and len(word) <= 3 and not on_line.strip()
