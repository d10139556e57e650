"""C4's line rules (arXiv 1910.10683) and mC4's paragraph rule (arXiv 2010.11934).

C4 rewrites the text, so `clean` is a transform a user asks for; the heuristics only count the
sentences it would leave. We test white-space words for the 3-word minimum and end a sentence at
[.?!], optional closing quotes or brackets, and white space or the end of a line (ours).
"""

import re

POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
MIN_WORDS, MAX_WORD = 3, 1000
_CITATION = re.compile(r"\[\d+\]|\[edit\]|\[citation needed\]")
_SENTENCE_END = re.compile(r"[.?!]+[\"'”’»)\]}]*(?=\s|$)", re.MULTILINE)
_LINE_ENDS = (".", "?", "!", '"', "'")


def kept_line(line: str) -> str | None:
    """The line as C4 keeps it: stripped, without citation marks; None where C4 drops it."""
    line = line.strip()
    if "[" in line:
        line = _CITATION.sub("", line)
    # The cheapest rule first: it drops nearly every line of code.
    if not line.endswith(_LINE_ENDS) or line.endswith("..."):
        return None
    parts = line.split()
    if len(parts) < MIN_WORDS or max(map(len, parts)) > MAX_WORD:
        return None
    lowered = line.lower()
    if "javascript" in lowered or any(phrase in lowered for phrase in POLICY_PHRASES):
        return None
    return line


def clean(text: str) -> str:
    """The text without the lines that C4 drops."""
    return "\n".join(line for raw in text.split("\n") if (line := kept_line(raw)) is not None)


def count_sentences(text: str) -> int:
    """Sentences that are left after `clean`."""
    return len(_SENTENCE_END.findall(clean(text)))


def has_long_paragraphs(text: str) -> bool:
    """mC4's rule: at least three lines, and the three longest all of 200 characters or more."""
    longest = sorted(map(len, text.split("\n")), reverse=True)[:3]
    return len(longest) == 3 and longest[-1] >= 200
