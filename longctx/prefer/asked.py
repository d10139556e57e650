"""What a prompt of preference data asks: from a file of prompts, or from a question of a model.

A row of a file has `id` (or `idx`), the question (`query`, `prompt` or `question`), and either the
`doc_id` of a document of the corpus, a `context` of its own, or neither where the question stands
alone; beside these `gold` (a right answer), `target_length` (words) and `lang`. Linear in the file.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from longctx.errors import RecipeError
from longctx.llm.types import Message
from longctx.prefer.pairs import ContextRef
from longctx.synth.items import Item

QUESTION = "question"
_IDS, _QUERIES = ("id", "idx"), ("query", "prompt", "question")
_REMEDY = (
    "write one object a line: id, query, and doc_id or context; gold, target_length and lang are "
    "optional"
)


class Asked(NamedTuple):
    """A prompt: the question, what stands before it, and what is known of its answer.

    `doc_id` names the document that the context is; a prompt of a file may bring its own context
    instead, or have none.
    """

    query: str
    context: str = ""
    doc_id: str | None = None
    gold: str | None = None
    target_length: int | None = None

    @property
    def ref(self) -> ContextRef | None:
        """Where the context is to be found; None where it is no document of the corpus."""
        return None if self.doc_id is None else ContextRef(self.doc_id, 0, len(self.context))

    @property
    def whole(self) -> str:
        """The context, a blank line and the question."""
        return f"{self.context}\n\n{self.query}" if self.context else self.query

    def messages(self) -> list[Message]:
        """The turn of the user as a row keeps it: without a context that `ref` names."""
        return [{"role": "user", "content": self.whole if self.ref is None else self.query}]


def asked_of(item: Item, *, alone: bool = False) -> Asked:
    """The prompt of an item; where nothing was asked, its text is the question (`alone`)."""
    said = item.replies.get(QUESTION)
    if said is None:
        if not alone:
            raise ValueError(f"nothing was asked about {item.id!r}")
        return Asked(item.text.strip())
    own = said.get("context")
    return Asked(
        query=said["question"].strip(),
        context=item.text if own is None else own,
        # A question of the model is about the document that it is named after.
        doc_id=said.get("doc_id", item.id) if own is None and item.text else None,
        gold=said.get("gold"),
        target_length=said.get("target_length"),
    )


def parse_prompts(records: Iterable[tuple[str, Any]], where: str) -> dict[str, dict[str, Any]]:
    """Prompts by id, from records of the file `where`, each with its place in it.

    Raises RecipeError for a record that is no prompt, for an id that is there twice, and for a file
    without a prompt.
    """
    found: dict[str, dict[str, Any]] = {}
    for place, record in records:
        prompt = _prompt(record, place)
        if prompt["id"] in found:
            raise RecipeError(
                f"the id {prompt['id']!r} is there twice",
                where=place,
                remedy="give every prompt an id of its own",
            )
        found[prompt["id"]] = prompt
    if not found:
        raise RecipeError("the file has no prompt", where=where, remedy=_REMEDY)
    return found


def _prompt(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise RecipeError("this is no object", where=where, remedy=_REMEDY)
    id_, query = (_first(record, names, where) for names in (_IDS, _QUERIES))
    for name in ("doc_id", "context", "gold", "lang"):
        if not isinstance(record.get(name), str | None):
            raise RecipeError(f"`{name}` is no text", where=where, remedy=_REMEDY)
    if record.get("doc_id") is not None and record.get("context") is not None:
        said = "both `doc_id` and `context` are given"
        raise RecipeError(said, where=where, remedy="keep one of them")
    length = record.get("target_length")
    if length is not None and (not isinstance(length, int) or length < 1):
        raise RecipeError("`target_length` is no number above 0", where=where, remedy=_REMEDY)
    kept = ("doc_id", "context", "gold", "lang", "target_length")
    return {"id": id_, QUESTION: query} | {n: v for n in kept if (v := record.get(n)) is not None}


def _first(record: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    value = next((record[n] for n in names if record.get(n) is not None), None)
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip():
        wanted = " or ".join(f"`{n}`" for n in names)
        raise RecipeError(f"there is no {wanted} with a text", where=where, remedy=_REMEDY)
    return text


def parse_answers(records: Iterable[tuple[str, Any]]) -> dict[str, dict[int, str]]:
    """Ready answers by prompt and number, from records {idx: "<id>-<k>", answer}.

    Ids may hold hyphens: the last one parts. Raises RecipeError for a record that is none.
    """
    found: dict[str, dict[int, str]] = {}
    for place, record in records:
        known = record if isinstance(record, Mapping) else {}
        head, _, number = str(known.get("idx", "")).rpartition("-")
        answer = known.get("answer")
        if not head or not number.isdecimal() or not isinstance(answer, str):
            raise RecipeError(
                "this is no ready answer",
                where=place,
                remedy='write {"idx": "PROMPT-0", "answer": "..."} a line, where PROMPT is the id',
            )
        if int(number) in found.setdefault(head, {}):
            raise RecipeError(
                f"answer {int(number)} of {head!r} is there twice",
                where=place,
                remedy="number the answers of a prompt from 0",
            )
        found[head][int(number)] = answer
    return found
