"""Tables of questions for PAM QA: records checked field by field, and what steps keep of them.

A record has `id`, `question`, `answers` (a list, or one text), `golds` and, unless the job names a
language, `lang`. A gold is an object with `text` and with `doc_id` or `title`, or the id of a
document of the corpus (as a text, or as an object with `doc_id` alone). Whatever is not of this
form is an error that names its field, before anything is asked. Whether a question can become a row
(has a gold with an answer) is the business of `pamqa_rows.load`, which rejects and counts.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from longctx.errors import RecipeError
from longctx.registry import did_you_mean
from longctx.synth.pamqa_negatives import Doc, Question
from longctx.synth.prompt import LANGUAGES

FIELDS = ("id", "question", "answers", "golds")
_REMEDY = "correct the table; `longctx ops synth.pam_qa` says what a row of it holds"


class Gold(NamedTuple):
    """A gold of a table; without `text` it is the document of the corpus with this id."""

    doc_id: str
    title: str = ""
    text: str | None = None


class Asked(NamedTuple):
    """A question of a table; `golds` are where the answers stand."""

    id: str
    question: str
    answers: list[str]
    golds: list[Gold]
    lang: str
    source: str

    def plain(self) -> dict[str, Any]:
        """Plain JSON values, for `asked_of`."""
        return {**self._asdict(), "golds": [gold._asdict() for gold in self.golds]}


def asked_of(plain: Mapping[str, Any]) -> Asked:
    """Inverse of `Asked.plain`."""
    return Asked(**{**plain, "golds": [Gold(**gold) for gold in plain["golds"]]})


def with_golds(asked: Asked, documents: Mapping[str, Doc]) -> Question:
    """The question with its golds; those that neither table nor corpus has a text of are left out.

    A gold of the table that is a document of the corpus, too, has the cluster of that.
    """
    golds = []
    for gold in asked.golds:
        known = documents.get(gold.doc_id)
        if gold.text is not None:
            cluster = known.cluster_id if known else None
            golds.append(Doc(gold.doc_id, gold.title, gold.text, cluster))
        elif known is not None:
            golds.append(known)
    return Question(asked.id, asked.question, asked.answers, golds, asked.lang, asked.source)


def read_asked(
    records: Iterable[tuple[str, Mapping[str, Any]]], source: str, default_lang: str | None
) -> list[Asked]:
    """The questions of records, each given with its place; RecipeError for what is none.

    `source` is that of records that name none.
    """
    found: dict[str, Asked] = {}
    for place, record in records:
        asked = _asked(record, place, source, default_lang)
        if asked.id in found:
            raise _wrong(place, "id", f"{asked.id!r} is the id of an earlier row, too")
        found[asked.id] = asked
    return list(found.values())


def _asked(record: Mapping[str, Any], place: str, source: str, default_lang: str | None) -> Asked:
    for name in FIELDS:
        if record.get(name) is None:
            have = ", ".join(sorted(record)[:12])
            close = did_you_mean(name, record)
            raise _wrong(place, name, f"there is none; the row has {have}{close}")
    lang = record.get("lang") or default_lang
    if lang not in LANGUAGES:
        told = "there is none" if lang is None else f"{lang!r} is not"
        raise _wrong(
            place,
            "lang",
            f"{told} one of {', '.join(LANGUAGES)}" if lang else told,
            "give each row its `lang`, or set default_language",
        )
    row_id = _id(record["id"], place, "id")
    return Asked(
        id=row_id,
        question=_text(record["question"], place, "question"),
        answers=_answers(record["answers"], place),
        golds=_golds(record["golds"], place, row_id),
        lang=str(lang),
        source=str(record.get("source") or source),
    )


def _answers(value: Any, place: str) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise _wrong(place, "answers", f"a list of texts is expected, found {_kind(value)}")
    return [_whole(one) for one in listed]


def _golds(value: Any, place: str, row_id: str) -> list[Gold]:
    if not isinstance(value, list):
        raise _wrong(place, "golds", f"a list is expected, found {_kind(value)}")
    # A gold without an id of its own has one that no document has, so it shuts out none.
    return [_gold(one, place, f"golds[{i}]", f"{row_id}#{i}") for i, one in enumerate(value)]


def _gold(value: Any, place: str, field: str, own_id: str) -> Gold:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return Gold(_id(value, place, field))
    if not isinstance(value, Mapping):
        raise _wrong(place, field, f"an object or an id is expected, found {_kind(value)}")
    title, text = value.get("title"), value.get("text")
    title = "" if title is None else _text(title, place, f"{field}.title", may_be_empty=True)
    if text is not None:
        text = _text(text, place, f"{field}.text")
    if value.get("doc_id") is not None:
        return Gold(_id(value["doc_id"], place, f"{field}.doc_id"), title, text)
    if text is None:
        raise _wrong(place, field, "there is neither a `text` nor the `doc_id` of a document")
    return Gold(own_id, title, text)


def _id(value: Any, place: str, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise _wrong(place, field, f"a text or a whole number is expected, found {_kind(value)}")
    return _whole(str(value))


def _text(value: Any, place: str, field: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise _wrong(place, field, f"a text is expected, found {_kind(value)}")
    return _whole(value)


def _whole(text: str) -> str:
    """JSON may escape half of a surrogate pair, which is no character."""
    return text.encode("utf-8", "replace").decode()


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "an empty one" if not value.strip() else "a text"
    return {list: "a list", dict: "an object", bool: "true or false"}.get(
        type(value), type(value).__name__
    )


def _wrong(place: str, field: str, found: str, remedy: str = _REMEDY) -> RecipeError:
    return RecipeError(f"field `{field}` of a question: {found}", where=place, remedy=remedy)
