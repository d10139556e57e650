"""UTF-8 in place: every character is what `re` and `str` say it is."""

import re
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.text.utf8 import (
    ALPHA,
    BREAK,
    DECIMAL,
    SPACE,
    WORD,
    as_utf8,
    char_at,
    char_before,
    char_count,
    char_kinds,
    strings,
    stripped,
    utf8_of,
    utf8_rows,
)

characters = st.characters() | st.sampled_from(
    "a é\u07ff\u0800日\uffff\U00010000😀\U0010ffff\u3000\x1f"
)


def test_kinds_are_those_of_python():
    kinds = char_kinds()
    for code in [*range(0x3100), *range(0x3100, sys.maxunicode + 1, 7)]:
        char = chr(code)
        found = {flag for flag in (WORD, ALPHA, SPACE, DECIMAL, BREAK) if kinds[code] & flag}
        expected = {
            WORD: re.match(r"\w", char),
            ALPHA: char.isalpha(),
            SPACE: char.isspace(),
            DECIMAL: re.match(r"\d", char),
            BREAK: len(f"a{char}b".splitlines()) == 2,
        }
        assert found == {flag for flag, holds in expected.items() if holds}, hex(code)


@given(st.text(characters, max_size=30))
@settings(deadline=None)
def test_characters_are_walked_over_in_both_directions(text: str):
    data = as_utf8(text)
    forwards, pos = [], 0
    while pos < data.size:
        code, pos = char_at(data, pos)
        forwards.append(chr(code))
    backwards = []
    while pos:
        code, pos = char_before(data, pos)
        backwards.append(chr(code))
    assert "".join(forwards) == text == "".join(reversed(backwards))
    assert char_count(data, 0, data.size) == len(text)
    start, end = stripped(data, 0, data.size, char_kinds())
    assert data[start:end].tobytes().decode("utf-8", "surrogatepass") == text.strip()


def test_bytes_of_a_lone_surrogate_are_one_character():
    data = as_utf8("a\ud800")
    assert char_at(data, 1) == (0xD800, 4)


def test_sliced_and_null_arrow_strings_are_read_in_place():
    array = pa.array(["skip", "ab", None, "é"], pa.large_string()).slice(1)
    data, offsets = utf8_of(array)
    read = [data[start:stop].tobytes().decode() for start, stop in pairwise(offsets)]
    assert read == ["ab", "", "é"]
    assert utf8_of(pa.array([], pa.string()))[1].tolist() == [0]
    column = pa.chunked_array([array, array.slice(2)])
    rows = list(utf8_rows(column))
    assert [row.tobytes().decode() for row in rows] == [*read, "é"]
    assert np.shares_memory(rows[0], data)
    assert list(strings(column)) == [*read, "é"]
