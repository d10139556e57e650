"""Rows of the released LongMIT data in the columns of ours (MIMG, arXiv 2409.01893).

A released row has `all_docs` (documents with `content`, the clues among them), `clue_docs`, `type`,
`language`, `question`, `answer` and `hop`. This list is of secondary descriptions, unverified: so
clues may be documents, texts or ids, types be spelt as in the released code ("intra_doc") or not,
languages named or abbreviated. Turns are rendered anew in our layout; the answer is the response as
it stands, because the release has the reasoning inside it.

What we changed: the released pipeline puts one document into a row twice where two of its questions
are linked, and attaches all clues of a chain whatever `hop` says. A repeated document stays once,
where it stood first; clues are kept as they are. Both are counted. Linear in the row. Lost: what
the release does not say, which is null or empty: chain, scores, path, the length aimed at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from longctx.ids import h128
from longctx.synth.items import language_of
from longctx.synth.longmit import SYSTEM
from longctx.synth.longmit_calls import PROMPT_VERSION
from longctx.synth.longmit_rows import Scores, parse_passages, render_passages, render_prompt
from longctx.synth.rows import Made, Reject, Row, envelope
from longctx.synth.tokens import TokenCounter

SOURCE = "LongMIT-128K"
_TYPES = frozenset({"single", "intra", "inter"})
_LANGUAGES = {"english": "en", "chinese": "zh"}
_MADE_ID = "released-"


def read_released(row: Mapping[str, Any]) -> Row | Reject:
    """What a released row says, in columns of ours; nothing is rendered and no token counted.

    `docs` each once, `clue_docs` their ids in the order of the release, `clue_pos` 0-based. Ids are
    those of the release, or made from the texts. Rejects: `schema` for a field that is absent or
    unreadable, `inconsistent` where a clue is none of the documents.
    """
    try:
        texts = _by_id(row["all_docs"])
        kind = str(row["type"]).partition("_")[0].casefold()
        said = str(row["language"]).casefold()
        lang = language_of(_LANGUAGES.get(said, said), None)
        question, answer = (_text(row[name]) for name in ("question", "answer"))
        hop = int(row["hop"])
        clues = [_clue(one, texts) for one in row["clue_docs"]]
    except (KeyError, TypeError, ValueError) as error:
        return Reject("schema", f"{type(error).__name__}: {error}")
    if lang not in ("en", "zh", "ko") or kind not in _TYPES or hop < 1 or not texts:
        found = f"language {lang}, type {kind}, hop {hop}, {len(texts)} documents"
        return Reject("schema", found)
    known = [clue for clue in dict.fromkeys(clues) if clue is not None]
    if not known or None in clues:
        return Reject("inconsistent", f"{clues.count(None)} of {len(clues)} clues are no documents")
    order = list(texts)
    return {
        "lang": lang,
        "hop": hop,
        "type": kind,
        "question": question,
        "answer": answer,
        "clue_docs": known,
        "docs": [
            {"doc_id": doc_id, "text": text, "role": "clue" if doc_id in known else "random"}
            for doc_id, text in texts.items()
        ],
        "clue_pos": [order.index(clue) for clue in known],
    }


def released_row(
    row: Mapping[str, Any], row_id: str, counter: TokenCounter, source: str = SOURCE
) -> Made | Reject:
    """A whole row in the schema of ours, and what was found in it, by name.

    `repeated_docs`: documents that were there more than once; `clues_unlike_hop`: 1 where there are
    other than `hop` clues of an inter-document question, or more than one of another. Rejects are
    those of `read_released`, and `inconsistent` where the passages do not parse back.
    """
    read = read_released(row)
    if isinstance(read, Reject):
        return read
    lang, hop, texts = read["lang"], read["hop"], [doc["text"] for doc in read["docs"]]
    passages = render_passages(texts, lang)
    if parse_passages(passages, lang) != texts:
        return Reject("inconsistent", "a document holds the heading of a passage")
    shared = envelope(
        id=f"{SYSTEM}-{row_id}",
        system=SYSTEM,
        lang=lang,
        messages=[
            {"role": "user", "content": render_prompt(texts, read["question"], hop, lang)},
            {"role": "assistant", "content": read["answer"]},
        ],
        context=passages,
        instruction=read["question"],
        counter=counter,
        source=source,
        seed=0,
        prompt_version=PROMPT_VERSION,
    )
    unsaid: Row = {
        "reasoning": "",
        "chain": [],
        "scores": Scores(None, None, None)._asdict(),
        "token_limit": None,
        "path_id": "",
    }
    expected = hop if read["type"] == "inter" else 1
    counts = {
        "repeated_docs": len(row["all_docs"]) - len(texts),
        "clues_unlike_hop": int(len(read["clue_docs"]) != expected),
    }
    return Made({**shared, **read, **unsaid}, {k: n for k, n in counts.items() if n})


def _by_id(docs: Sequence[Any]) -> dict[str, str]:
    """The texts of documents by id, in their order; one that is repeated where it stood first."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for doc in docs:
        text = _content(doc)
        doc_id = _id(doc) or _made_id(text)
        if text not in seen and doc_id not in found:
            found[doc_id] = text
            seen.add(text)
    return found


def _content(doc: Any) -> str:
    return _text(doc if isinstance(doc, str) else doc["content"])


def _id(doc: Any) -> str | None:
    named = None if isinstance(doc, str) else doc.get("id")
    return None if named is None else str(named)


def _made_id(text: str) -> str:
    return _MADE_ID + h128(text.encode("utf-8", "replace"))


def _clue(clue: Any, texts: Mapping[str, str]) -> str | None:
    """The id of the document that a clue is: by its id, else by its text; None for none."""
    named = clue if isinstance(clue, str) else _id(clue)
    if named in texts:
        return named
    text = _content(clue)
    return next((doc_id for doc_id, own in texts.items() if own == text), None)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected a text, found {type(value).__name__}")
    return value
