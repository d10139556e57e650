"""What is shown of a text: passages, marked places, masked secrets, and what two texts share."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from longctx.report.scores.common import common_passage
from longctx.report.scores.data import Passage
from longctx.report.scores.passages import Place, around, masked, passages
from longctx.report.scores.places import place_columns, places_of
from longctx.report.scores.tokens import ends_of

SECRET = "jane.doe@post.example-mail.org"
WORDS = " ".join(f"word{i}" for i in range(2000))


def plain(passage: Passage) -> str:
    return "".join(piece.text for piece in passage.pieces)


def marked(passage: Passage) -> list[tuple[str, str]]:
    return [(piece.text, piece.label) for piece in passage.pieces if piece.label]


def test_the_beginning_and_a_piece_of_the_middle() -> None:
    first, second = passages(WORDS)
    assert (first.start, plain(first)) == (0, WORDS[:600])
    half = (len(WORDS) - 300) // 2
    assert (second.start, plain(second)) == (half, WORDS[half : half + 300])
    assert [plain(p) for p in passages("short")] == ["short"]
    assert passages("") == []


def test_places_are_shown_with_their_surroundings_and_marked() -> None:
    place = Place(7000, 7010, "here")
    found = passages(WORDS, [place])
    assert [p.start for p in found] == [0, 6900, (len(WORDS) - 300) // 2]
    assert marked(found[1]) == [(WORDS[7000:7010], "here")]
    assert len(plain(found[1])) == 210
    # Places that overlap the beginning are marked there, and no passage is shown twice.
    early = passages(WORDS, [Place(590, 640, "a"), Place(20, 25, "b")])
    assert marked(early[0]) == [(WORDS[20:25], "b"), (WORDS[590:640], "a")]
    assert early[0].start + len(plain(early[0])) == 740


@given(
    st.text("ab \n@", max_size=3000), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 500)))
)
def test_passages_are_pieces_of_the_text_in_order(text: str, spans: list[tuple[int, int]]) -> None:
    places = [Place(min(a, len(text)), min(a + n, len(text)), "x") for a, n in spans]
    last = 0
    for passage in passages(text, places):
        assert passage.start >= last
        last = passage.start + len(plain(passage))
        assert plain(passage) == text[passage.start : last]
        assert all(piece.text for piece in passage.pieces)


def test_secrets_are_masked_wherever_a_passage_cuts_them() -> None:
    for shift in range(560, 640, 3):
        text = f"{'x ' * (shift // 2)} {SECRET} and so on. {WORDS}"
        first = passages(text)[0]
        assert SECRET[:8] not in plain(first)
        assert SECRET[-8:] not in plain(first)
        if text.index(SECRET) < 600:
            assert [p.label for p in first.pieces if p.masked] == ["email"]
    assert masked(f"Ask {SECRET}, please", 100) == "Ask [email], please"
    at = WORDS.index("word900")
    text = f"{WORDS[:at]}{SECRET} {WORDS[at:]}"
    shown = around(text, Place(at, at + len(SECRET), "email"))
    assert [piece.label for piece in shown if piece.masked] == ["email"]


def schema(**columns: object) -> object:
    import pyarrow as pa

    return pa.schema([(name, pa.null()) for name in columns])


def ends(text: str) -> np.ndarray:
    """Tokens of three characters."""
    return np.minimum(np.arange(3, len(text) + 3, 3), len(text))


def test_places_come_from_what_a_stage_wrote() -> None:
    window = {"start_char": 4, "end_char": 9, "lang": "de"}
    other = {"start_char": 9, "end_char": 12, "lang": "en"}
    beside = {"lang": "en", "lang_windows": [window, other, {**other, "lang": None}]}
    assert places_of("score.language", beside, "", None) == [Place(4, 9, "de")]
    span = {"start_char": 1, "end_char": 8, "kind": "email", "masked_start": 1, "masked_end": 4}
    assert places_of("filter.pii", {"pii_spans": [span]}, "", None) == [Place(1, 4, "email")]
    match = {"start_char": 1, "end_char": 8, "set": "quiz", "row": 3, "field": "q"}
    found = places_of("filter.decontaminate", {"decon_spans": [match]}, "", None)
    assert found == [Place(1, 8, "quiz, row 3, q")]
    assert places_of("filter.decontaminate", {"decon_spans": None}, "", None) == []
    assert places_of("decide", {}, "", None) == []


def test_places_in_tokens_need_the_tokenizer() -> None:
    windows = [{"start": 0, "end": 2, "ds": 0.1}, {"start": 2, "end": 4, "ds": 0.5}]
    beside = {"la_windows": [*windows, {"start": 4, "end": 6, "ds": 0.3}]}
    text = "abcdefghijklmnopqr"
    assert places_of("score.longattn", beside, text, ends) == [
        Place(6, 12, "most distant attention, 0.5"),
        Place(0, 6, "least distant attention, 0.1"),
    ]
    assert places_of("score.longattn", beside, text, None) == []
    only = {"la_windows": windows[:1]}
    assert places_of("score.longattn", only, text, ends) == [
        Place(0, 6, "most distant attention, 0.1")
    ]


def test_key_tokens_near_each_other_are_one_place_and_the_largest_gain_comes_first() -> None:
    n = 40
    long = np.full(n - 1, 1.0)
    short = long.copy()
    short[[2, 4]] += 2.5
    short[30] += 9.0
    long[35], short[35] = 3.0, 9.0
    beside = {"nll_long": long.tolist(), "nll_short": short.tolist()}
    # Score i is of token i + 1: tokens 3 and 5 of three characters, then token 31.
    assert places_of("score.likelihood", beside, "x" * 3 * n, ends) == [
        Place(93, 96, "gain 9 nats"),
        Place(9, 18, "gain 5 nats"),
    ]


def test_places_are_read_only_where_they_are() -> None:
    assert place_columns("filter.pii", schema(pii_spans=1, pii_count=1)) == ["pii_spans"]
    assert place_columns("filter.pii", schema(pii_count=1)) == []
    assert place_columns("score.likelihood", schema(nll_long=1, lf_score=1)) == []
    # What was cut out of the text has no place in it any more.
    assert place_columns("filter.decontaminate", schema(decon_spans=1, text=1)) == []
    assert place_columns("score.prolong", schema(pl_lds=1)) == []


def test_a_tokenizer_that_is_not_here_is_not_fetched() -> None:
    assert ends_of({"model": "/no/such/folder"}) is None
    assert ends_of({"model": "${LONGCTX_NO_SUCH_VARIABLE}"}) is None
    assert ends_of({}) is None


def test_the_longest_common_passage_is_found() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in rng.integers(0, 10**6, 900)]
    a = "Alpha. " + " ".join(words[:300]) + " omega " + " ".join(words[600:])
    b = " ".join(words[400:650]) + ",\n" + " ".join(w.upper() for w in words[100:250])
    found = common_passage(a, b)
    assert found is not None
    assert found.words == 150
    assert a[slice(*found.first)] == " ".join(words[100:250])
    assert b[slice(*found.second)] == " ".join(w.upper() for w in words[100:250])
    assert common_passage(a, "nothing of it " * 40) is None
    assert common_passage(" ".join(words[:16]), " ".join(words[:15])) is None
    whole = common_passage(" ".join(words[:16]), " ".join(words[:16]))
    assert whole is not None
    assert whole.words == 16
    assert common_passage("", a) is None
