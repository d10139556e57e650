import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.text.normalise import dedup_tokens, is_symbol, norm_dedup, norm_exact, pieces, words


def test_words_keep_inner_apostrophes_and_single_out_symbols():
    assert words("Don't stop—it’s 3.5%!") == ["Don't", "stop", "—", "it’s", "3", ".", "5", "%", "!"]
    assert words("rock 'n' roll") == ["rock", "'", "n", "'", "roll"]
    assert words(" \t\n") == []


def test_symbol_words_have_no_alphanumeric_character():
    assert is_symbol("—")
    assert is_symbol("_")
    assert not is_symbol("a'")


def test_norm_exact_composes_and_squeezes():
    assert norm_exact("Cafe\u0301  au\tlait\r\n") == "Caf\u00e9 au lait"


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("Café costs 3,50 € — in 2024!", "cafe costs 0 in 0"),
        ("1.5.3 and 1,,2 and 7.", "0 and 0 0 and 0"),
        ("x1y22z", "x0y0z"),
        ("٣٫٥ ２０", "0 0 0"),
        ("ΣΑΣ", "σας"),
        ("snake_case", "snake case"),
        ("a\u200bb\ue000c", "a b c"),
        ("", ""),
    ],
)
def test_norm_dedup_text(text: str, normalised: str):
    assert norm_dedup(text) == normalised


def test_norm_dedup_code_only_squeezes():
    assert norm_dedup("  if (X == 3.50):\n\treturn É ", "code") == "if (X == 3.50): return É"


def test_an_unknown_profile_is_named():
    with pytest.raises(ValueError, match="'prose'"):
        norm_dedup("a", "prose")  # type: ignore[arg-type]


def test_dedup_tokens_single_out_unspaced_scripts():
    assert dedup_tokens("東京2020へ") == ["東", "京", "0", "へ"]
    assert dedup_tokens("한국어 문장") == ["한국어", "문장"]
    assert dedup_tokens("ab東c") == ["ab", "東", "c"]
    assert dedup_tokens("f(東)", "code") == ["f(", "東", ")"]


@given(st.text())
def test_norm_dedup_holds_only_single_inner_spaces_and_is_idempotent(text: str):
    normalised = norm_dedup(text)
    assert normalised == " ".join(normalised.split(" "))
    assert not any(unicodedata.category(c)[0] in "PSZC" for c in normalised.replace(" ", ""))
    assert norm_dedup(normalised) == normalised


@given(st.text())
def test_tokens_joined_give_the_normalised_text_without_spaces(text: str):
    assert "".join(dedup_tokens(text)) == norm_dedup(text).replace(" ", "")


@given(st.text("ab \n\u3000'", max_size=60), st.integers(1, 9))
def test_pieces_join_to_the_text_and_cut_no_word(text: str, size: int):
    found = list(pieces(text, size))
    assert "".join(found) == text
    assert all(piece[0].isspace() and len(before) >= size for before, piece in pairwise(found))
    assert [w for piece in found for w in words(piece)] == words(text)
