"""Lines, paragraphs and sentences in place: equal to the same measures with Python's strings."""

import re
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.filter import c4, c4_kernel, lines
from longctx.filter.lines import TERMINAL, duplicates, ended_and_short, spans_between
from longctx.filter.phrases import START, automaton, step
from longctx.text.utf8 import as_utf8

bits = st.sampled_from(
    [
        *"ab \n\r\x0b\x1c\x1f\x85\u2028\u3000.…?!#{•-_\"'”»)]}[",
        *("\n\n", "\r\n", "...", "[1]", "[٣]", "[edit]", "[citation needed]", "word word word. "),
        *("JavaScript", "use of cookies", "coo\u212aie policy", "lorem ipsum", "LOREM \u0130psum"),
        *("x" * 1000, "x" * 1001, "日本", "😀", "\ud800"),
    ]
)
texts = st.lists(bits, max_size=40).map("".join) | st.text(max_size=100)


@given(texts)
@settings(max_examples=400, deadline=None)
def test_figures_are_those_of_the_string(text):
    found = lines.figures(as_utf8(text))
    cut = text.splitlines()
    assert found._asdict() == {
        "chars": len(text),
        "hashes": text.count("#"),
        "braces": text.count("{"),
        "newlines": text.count("\n"),
        "ellipses": text.count("...") + text.count("…"),
        "longest": max(map(len, text.split()), default=0),
        "lorem": "lorem ipsum" in text.lower(),
        "lines": len(cut),
        "bullets": sum(line.lstrip().startswith(("•", "-")) for line in cut),
        "trailing": sum(line.rstrip().endswith(("...", "…")) for line in cut),
    }


@given(texts)
@settings(max_examples=400, deadline=None)
def test_sentences_are_those_of_the_reference(text):
    assert c4_kernel.count_sentences(text) == c4.count_sentences(text)


@given(st.lists(st.sampled_from(["a", "ab", "", " ", "é.", "x" * 30, "x" * 31])).map("\n".join))
@settings(max_examples=300, deadline=None)
def test_lines_and_paragraphs_are_those_of_the_string(text):
    data = as_utf8(text)
    for newlines, strip in ((1, False), (1, True), (2, False)):
        cut = re.split(f"\n{{{newlines},}}", text.strip("\n"))
        expected = [e for raw in cut if (e := raw.rstrip() if strip else raw)]
        found = spans_between(data, 0, len(data), newlines, strip)
        stretches = [data[i:j].tobytes().decode() for i, j in zip(*found, strict=True)]
        # A newline before a single one at the edge of the text stays with its paragraph.
        assert [s.strip("\n") for s in stretches] == expected
        distinct = set(stretches)
        assert duplicates(data, found) == (
            len(stretches) - len(distinct),
            sum(map(len, stretches)) - sum(map(len, distinct)),
        )
        assert ended_and_short(data, found) == (
            sum(s.endswith(TERMINAL) for s in stretches),
            sum(len(s) <= 30 for s in stretches),
        )


def test_only_two_characters_have_ascii_in_their_lower_case():
    found = {chr(c) for c in range(0x80, sys.maxunicode + 1) if min(chr(c).lower()) < "\x80"}
    assert found == {"\u0130", "\u212a"}
    phrases = (*c4_kernel._PHRASES, *lines._LOREM)
    assert not [phrase for phrase in phrases if phrase.endswith("i") or not phrase.isascii()]


@given(st.text("abAB", max_size=20))
@settings(deadline=None)
def test_an_automaton_finds_what_in_finds(text):
    phrases = ("aba", "bb", "abba")
    states, state = automaton(phrases), START
    for char in text:
        state = step(states, state, ord(char))
    assert (state == len(states) - 1) == any(phrase in text.lower() for phrase in phrases)
