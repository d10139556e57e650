"""Heuristic columns, windows and verdicts: the specification's checks."""

import argparse
import inspect
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.errors import RecipeError
from longctx.filter import c4
from longctx.filter.heuristics import doc_and_window_stats, doc_stats
from longctx.filter.profiles import PROFILES, judge

SHORT, LONG, CODE = PROFILES["short_doc"], PROFILES["long_doc"], PROFILES["code"]


def prose(seed: int, n_words: int) -> str:
    """Sentences of invented words with English stop words: clean, and never the same twice."""
    rng = random.Random(seed)
    lexicon = ["".join(rng.choices("abcdefghilmnoprstu", k=rng.randint(3, 8))) for _ in range(5000)]
    lines, count = [], 0
    while count < n_words:
        line = [rng.choice(lexicon) for _ in range(min(12, n_words - count))]
        line[:: max(1, len(line) // 2)] = ["the", "of", "and"][
            : len(line[:: max(1, len(line) // 2)])
        ]
        lines.append(" ".join(line) + ".")
        count += len(line)
    return "\n".join(lines)


def verdict(text, profile, language="en"):
    stats, windows = doc_and_window_stats(text)
    return judge(stats, windows, profile, language)


def test_columns_of_a_small_text():
    stats = doc_stats("# Title…\n- The cat's hat...\n\n• {lorem ipsum}\n")
    assert stats["h_n_chars"] == 45
    assert stats["h_n_bytes"] == 45 + 2 + 2
    assert stats["h_n_words"] == 6  # Title The cat's hat lorem ipsum
    assert stats["h_n_tok"] == 15
    assert stats["h_mean_word_len"] == pytest.approx((5 + 3 + 5 + 3 + 5 + 5) / 6)
    assert stats["h_hash"] == pytest.approx(1 / 15)
    assert stats["h_ellipsis"] == pytest.approx(2 / 15)
    assert stats["h_bullets"] == pytest.approx(2 / 4)
    assert stats["h_end_ellipsis"] == pytest.approx(2 / 4)
    assert stats["h_alpha"] == 1
    assert stats["h_stop"] == 0
    assert stats["h_max_word"] == 6
    assert (stats["h_braces"], stats["h_lorem"]) == (1, True)
    assert stats["h_line_punct"] == pytest.approx(2 / 3)
    assert stats["h_short_lines"] == 1
    assert stats["h_newlines"] == pytest.approx(4 / 15)


def test_text_without_words():
    for text in ("", " \n "):
        stats = doc_stats(text)
        assert stats["h_mean_word_len"] is None
        assert stats["h_alpha"] is None
        assert stats["h_n_tok"] == 0
        assert verdict(text, SHORT).rule == "too_short"
        assert verdict(text, LONG).rule == "min_bytes"


def test_stop_words_are_distinct_and_case_sensitive():
    assert doc_stats("the the The of")["h_stop"] == 2


def test_repetition_fails_first_at_top_2():
    assert verdict("a b c d e a b c d e", SHORT).rule == "top_2"


@pytest.mark.parametrize(
    ("lines", "share", "rule"), [("x\nx\ny", 1 / 3, "dup_line"), ("x\nx\ny\nz", 0.25, "")]
)
def test_duplicate_lines(lines, share, rule):
    stats = doc_stats(lines)
    assert stats["h_dup_line"] == pytest.approx(share)
    rules = [r for r in SHORT.document if r.name == "dup_line"]
    assert [r.name for r in rules if not r.passes(stats)] == [rule] * bool(rule)


def test_duplicate_paragraphs_count_characters():
    stats = doc_stats("\n\nabcd\n\n\nabcd\n\nefgh\nij\n")
    assert stats["h_dup_para"] == pytest.approx(1 / 3)
    assert stats["h_dup_para_chars"] == pytest.approx(4 / 23)
    assert stats["h_fw_dup_chars"] == pytest.approx(4 / 14)


@pytest.mark.parametrize(
    ("n_words", "rule"), [(49, "too_short"), (50, ""), (100_000, ""), (100_001, "too_long")]
)
def test_length_bounds_are_inclusive(n_words, rule):
    stats = doc_stats(prose(1, n_words))
    assert stats["h_n_words"] == n_words
    gopher = [r for r in SHORT.document if r.name in ("too_short", "too_long")]
    assert [r.name for r in gopher if not r.passes(stats)] == [rule] * bool(rule)


def test_one_brace_kills_a_short_document_but_not_a_long_one():
    lines = prose(2, 120).split("\n")
    assert len(lines) == 10
    text = "\n".join([*lines, "{"])
    assert verdict("\n".join(lines), SHORT).keep
    assert verdict(text, SHORT).rule == "brace"
    assert verdict(text, LONG.with_bounds(min_bytes=1)).keep
    book = prose(3, 10_000)
    assert verdict(book[:5000] + "{ lorem ipsum " + book[5000:], LONG).keep


@pytest.mark.parametrize("kind", ["characters", "line"])
def test_planted_garbage_windows_are_the_share_that_fails(kind):
    rng = random.Random(5)
    parts = []
    for i in range(50):
        if i % 5:
            parts.append(prose(100 + i, 2000))
        elif kind == "line":
            parts.append("\n".join(["the same line of words again and again"] * 250))
        else:
            parts.append(
                " ".join(
                    "".join(rng.choices("#$%&*+", k=2) + rng.choices("0123456789", k=6))
                    for _ in range(2000)
                )
            )
    result = verdict("\n".join(parts), LONG)
    assert len(result.win_fail) == 50
    assert abs(result.win_fail_share - 0.2) <= 1 / 50
    assert result.keep
    assert not verdict("\n".join(parts), replace(LONG, max_fail_share=0.1)).keep


def test_ten_clean_documents_and_their_concatenation_agree():
    documents = [prose(200 + i, 6000) for i in range(10)]
    assert all(verdict(text, LONG).keep for text in documents)
    assert verdict("\n\n".join(documents), LONG).keep


def test_the_floor_is_inclusive():
    text = prose(7, 8000)[:32_768]
    assert len(text) == 32_768
    assert verdict(text, LONG).keep
    assert verdict(text[:-1], LONG).rule == "min_bytes"


def test_windows_tile_the_text_and_merge_a_short_end():
    for n_words, expected in ((1, 1), (2000, 1), (2999, 1), (3000, 2), (4999, 2), (5000, 3)):
        text = "\n\n " + prose(8, n_words) + " \n"
        stats, windows = doc_and_window_stats(text)
        assert len(windows) == expected
        assert [w["win_id"] for w in windows] == list(range(expected))
        edges = [w["start_char"] for w in windows] + [len(text)]
        assert edges[0] == 0
        assert [w["end_char"] for w in windows] == edges[1:]
        assert sum(w["h_n_words"] for w in windows) == stats["h_n_words"] == n_words


@given(st.text("ab. \n'-{…", min_size=1, max_size=200), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_a_window_scores_like_its_own_text(text, size):
    stats, windows = doc_and_window_stats(text, size)
    assert stats == doc_stats(text)
    for window in windows:
        inside = text[window["start_char"] : window["end_char"]].strip()
        assert {k: v for k, v in window.items() if k.startswith("h_")} == doc_stats(inside)


def test_verdicts_follow_from_the_columns_alone():
    """A moved threshold needs the two tables only, and moves the verdict."""
    text = prose(9, 5000) + "\n" + "\n".join(["again and again the same of it"] * 600)
    stats, windows = doc_and_window_stats(text)
    assert judge(stats, windows, LONG, "en").rule == "windows"
    loose = LONG.with_bounds(
        **{rule.name: 1e9 for rule in LONG.window if rule.high is not None and rule.low is None}
    )
    assert judge(stats, windows, loose, "en").keep
    with pytest.raises(RecipeError, match="no rule dup_11"):
        LONG.with_bounds(dup_11=0.5)


def test_rules_that_do_not_fit_the_language_are_skipped():
    chinese = "".join(chr(0x4E00 + i * 7 % 20_000) + "，" * (i % 14 == 13) for i in range(15_000))
    assert verdict(chinese, LONG, "zh").keep
    assert verdict(chinese, LONG, "fr").rule == "windows"
    french = prose(10, 8000)
    for word in ("the", "of", "and"):
        french = french.replace(f"{word} ", "mot ")
    assert verdict(french, LONG, "fr").keep
    assert verdict(french, LONG, None).keep
    assert verdict(french, LONG, "en-GB").win_fail == ("stop_words",) * 4


def test_the_code_profile_keeps_code_and_drops_a_repeated_block():
    code = inspect.getsource(argparse)
    assert verdict(code, CODE, "code").keep
    block = "\n".join(code.split("\n")[100:140])
    assert verdict(f"{block}\n" * 40, CODE, "code").rule == "windows"


def test_rule_order_of_the_short_profile():
    assert " ".join(rule.name for rule in SHORT.document) == (
        "dup_para dup_para_chars dup_line dup_line_chars top_2 top_3 top_4 dup_5 dup_6 dup_7 dup_8 "
        "dup_9 dup_10 too_short too_long word_len_low word_len_high hash ellipsis bullets "
        "end_ellipsis alpha stop_words lorem brace few_sentences line_punct short_lines "
        "fw_dup_chars newlines"
    )


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("  The cat sat down.[12] ", "The cat sat down."),
        ("The cat sat[edit] down[citation needed]!", "The cat sat down!"),
        ("The cat sat down", None),
        ("The cat sat down...", None),
        ("Sat down.", None),
        ("Please enable JavaScript to see it.", None),
        ("We ask for the use of cookies here.", None),
        ("x" * 1001 + " sat down here.", None),
        ("x" * 1000 + " sat down.", "x" * 1000 + " sat down."),
        ('He said "sit down"', 'He said "sit down"'),
    ],
)
def test_c4_lines(line, kept):
    assert c4.kept_line(line) == kept


def test_c4_counts_sentences_after_its_line_rules():
    text = (
        'One is here. Two is (really!) here? "Three is here."\nno end mark here. at all\nYes. No.'
    )
    assert c4.clean(text) == 'One is here. Two is (really!) here? "Three is here."'
    assert c4.count_sentences(text) == 4
    assert doc_stats(text)["h_sentences"] == 4


def test_mc4_paragraphs():
    long = "x" * 200
    assert c4.has_long_paragraphs("\n".join([long, "a", long, long]))
    assert not c4.has_long_paragraphs("\n".join([long, long, "x" * 199]))
    assert not c4.has_long_paragraphs("\n".join([long, long]))
