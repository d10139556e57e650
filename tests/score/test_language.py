"""Languages of windows and documents: who is asked, what is said, and when nothing is."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.embed.stages import Embed
from longctx.engine.op import Setting
from longctx.engine.summary import Stats
from longctx.score.language import (
    _PROSE,
    Languages,
    languages,
    packaged_model,
    prose_of,
    windows_of,
)
from longctx.score.stages_language import ScoreLanguage
from tests.regexes import backtracking

SETTING = Setting(seed=1, tokenizer="", stage="01-x", run_dir="", output="")
TEXTS = {
    "en": "The harbour was quiet that evening, and nobody had seen the lamp on the wall go out.",
    "de": "Der Hafen war an diesem Abend still, und niemand hatte gesehen, wie die Lampe erlosch.",
    "fr": "Le port était calme ce soir-là, et personne n'avait vu la lampe du mur s'éteindre.",
    "es": "El puerto estaba tranquilo aquella noche y nadie había visto apagarse la lámpara.",
    "ru": "В тот вечер в гавани было тихо, и никто не видел, как погасла лампа на стене.",
    "ar": "كان الميناء هادئا في تلك الليلة ولم ير أحد المصباح على الجدار وهو ينطفئ.",
    "hi": "उस शाम बंदरगाह शांत था और किसी ने दीवार पर लगे दीपक को बुझते हुए नहीं देखा।",
    "th": "เย็นวันนั้นท่าเรือเงียบสงบและไม่มีใครเห็นตะเกียงบนกำแพงดับลง",
    "ko": "그날 저녁 항구는 조용했고 벽에 걸린 등불이 꺼지는 것을 아무도 보지 못했다.",
    "ja": "その夜の港は静かで、壁のランプが消えるのを見た人は誰もいませんでした。",
    "zh": "那天晚上港口很安静，没有人看见墙上的灯熄灭了，大家都以为它还亮着。",
}
CODE = """
def collect(self, paths, *, limit=None):
    found = {}
    for path in paths:
        if path.suffix not in self._known or path in found:
            continue
        found[path] = self._open(path).read(limit)
    return sorted(found.items(), key=lambda item: item[0])

class Reader(Base):
    def __init__(self, root):
        super().__init__(root=root)
        self._known = frozenset({".txt", ".md"})
"""


def found(text: str, window_chars: int = 2000, min_confidence: float = 0.5) -> Languages:
    return languages(text, packaged_model(), window_chars, min_confidence)


@pytest.mark.parametrize("name", TEXTS)
def test_a_sentence_has_its_language(name: str) -> None:
    told = found(TEXTS[name])
    assert (told.language, told.status, told.mixed_share) == (name, "ok", 0)
    assert told.confidence is not None
    assert 0.5 < told.confidence <= 1


@given(
    st.lists(
        st.sampled_from([*TEXTS.values(), CODE, "\0", "ÀÉÎ", "ABC DEF", "e\u0301"]), max_size=4
    ).map("\n".join)
    | st.text(max_size=60)
)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_labels_and_probabilities_are_those_of_the_package(text: str) -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    package = _kept("package", lambda: LanguageIdentifier.from_model_file(MODEL_FILE, True))
    label, sure = packaged_model().classify(text)
    theirs = dict(package.rank(text))
    # Their sums are in float32, so two labels may be as good as equal.
    assert sure == pytest.approx(theirs[label], abs=0.01)
    assert theirs[label] == pytest.approx(max(theirs.values()), abs=0.01)


_MADE: dict[str, Any] = {}


def _kept(name: str, make: Any) -> Any:
    return _MADE[name] if name in _MADE else _MADE.setdefault(name, make())


def test_what_was_read_before_changes_nothing() -> None:
    model = packaged_model()
    first = model.classify(TEXTS["en"])
    model.classify(TEXTS["ko"] * 50)
    assert model.classify(TEXTS["en"]) == first


@given(st.integers(0, 5000), st.integers(1, 700))
@settings(derandomize=True, deadline=None)
def test_windows_tile_the_text_and_the_last_is_no_stub(length: int, size: int) -> None:
    windows = windows_of(length, size)
    assert [w[0] for w in windows[1:]] == [w[1] for w in windows[:-1]]
    assert sum(end - start for start, end in windows) == length
    assert all(end - start == size for start, end in windows[:-1])
    if len(windows) > 1:
        last = windows[-1][1] - windows[-1][0]
        assert size / 2 <= last < size * 3 / 2


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", "empty"),
        (" \n\t\u3000 ", "empty"),
        ("\0" * 40, "no_letters"),
        ("3.14159 2.71828 -- 42 / 7 == 6" * 9, "no_letters"),
        ("ok, thanks", "too_short"),
        (CODE, "no_prose"),
        ("| a_b | c.d(e) |\n" * 40, "no_prose"),
        ("x" * 200_000, "no_prose"),
        ("qzx wvk jjq zzt " * 40, "uncertain"),
    ],
)
def test_no_language_where_there_is_none(text: str, status: str) -> None:
    told = found(text)
    assert (told.language, told.confidence, told.mixed_share) == (None, None, None)
    assert told.status == status


def test_a_language_without_two_letters_is_told_as_such() -> None:
    venetian = "Sto comun el se cata ntela provinsa de Belun e el ga na popolasion de do mila " * 3
    assert found(venetian, min_confidence=0).status == "other"


def test_a_document_in_two_languages_is_seen_as_one() -> None:
    english, korean = (TEXTS[name] * 40 for name in ("en", "ko"))
    text = english[:3000] + korean[:1000]
    told = found(text, window_chars=1000)
    assert [w.language for w in told.windows] == ["en", "en", "en", "ko"]
    assert (told.language, told.mixed_share) == ("en", 0.25)
    assert told.confidence is not None
    assert told.confidence < 0.76
    assert found(english[:3000]).mixed_share == 0


def test_equal_shares_are_decided_by_name() -> None:
    korean, chinese = (TEXTS[name] * 40 for name in ("ko", "zh"))
    for text in (korean[:1000] + chinese[:1000], chinese[:1000] + korean[:1000]):
        told = found(text, window_chars=1000)
        assert (told.language, told.mixed_share) == ("ko", 0.5)


def test_code_with_a_page_of_prose_has_no_language_and_prose_with_code_has_its() -> None:
    prose = TEXTS["en"] * 40
    code = CODE * 20
    told = found(code[:4000] + prose[:1000], window_chars=1000)
    assert (told.language, told.status) == (None, "no_prose")
    assert told.windows[-1].language == "en"
    told = found(code[:1000] + prose[:3000], window_chars=1000)
    assert (told.language, told.mixed_share) == ("en", 0)


def test_prose_is_plain_words_in_a_row_and_all_that_is_beyond_ascii() -> None:
    assert prose_of(f"call f(x) {TEXTS['en']}") == TEXTS["en"]
    assert prose_of("self.x = 1  # 주석입니다 and more") == "주석입니다"
    assert prose_of("see `os.path` for $x^2$ here") == "see `os.path` for $x^2$ here"
    assert prose_of("a b c") == ""


def test_prose_is_found_in_one_pass() -> None:
    assert backtracking(_PROSE) == []


def scored(texts: list[str], known: list[str | None] | None = None, **fields: Any) -> pa.Table:
    op = ScoreLanguage(op="score.language", **fields)
    table = pa.table(
        {
            "text": pa.array(texts, pa.large_string()),
            "language": pa.array(known or [None] * len(texts), pa.string()),
        }
    )
    found, stats = Stats.detach(op.batch(table.select(list(op.reads_columns())), SETTING))
    assert tuple(found.column_names) == op.writes_columns()
    assert sum(stats.get("languages", {}).values()) == len(texts)
    return found


def test_columns_are_there_for_every_text_and_for_none() -> None:
    rows = scored([TEXTS["ja"], "", CODE]).to_pylist()
    assert [r["lang"] for r in rows] == ["ja", None, None]
    assert [r["lang_status"] for r in rows] == ["ok", "empty", "no_prose"]
    assert [len(r["lang_windows"]) for r in rows] == [1, 0, 1]
    assert rows[0]["lang_windows"][0]["end_char"] == len(TEXTS["ja"])
    assert scored([]).num_rows == 0
    assert scored([]).schema == scored(["x"]).schema


def test_only_missing_languages_are_filled() -> None:
    texts = [TEXTS["ko"], TEXTS["ko"], TEXTS["en"], CODE]
    known = [None, "zh-Hant", "", None]
    assert "language" not in scored(texts, known).column_names
    filled = scored(texts, known, fill_language=True).column("language").to_pylist()
    assert filled == ["ko", "zh-Hant", "en", None]
    assert Embed(op="embed").knows(filled) == [False, False, True, True]


def test_real_texts_have_the_language_of_their_source(shared_data: Path) -> None:
    """5 documents of each source; code must not be English, whatever its comments are."""
    right: dict[str, list[bool]] = {}
    for file in sorted((shared_data / "corpus" / "dev").glob("*.parquet")):
        table = pq.read_table(file, columns=["source", "language", "text"])
        for row in table.to_pylist():
            name = row["source"]
            if len(row["text"]) < 3000 or len(right.setdefault(name, [])) >= 5:
                continue
            expected = None if row["language"] == "code" else row["language"][:2]
            right[name].append(found(row["text"][:10_000]).language == expected)
    assert len(right) >= 10
    wrong = {name: told for name, told in right.items() if sum(told) < 4 * len(told) / 5}
    assert wrong == {}
