"""What a stage asks of a language model: wording from a file, pieces from a row, a schema.

The wording is our own and stands in `prompts/STAGE.LANG.md`. A line `# name` begins a section of a
file; the section `user` is the turn that is sent, `system` goes before it, any other is a piece of
wording that a slot may name. `{{name}}` is a slot: it takes the value of that name, or else the
section. Values are put in once and never searched for slots, so a document may hold anything.
Whoever changes a file raises the `prompt_version` of its system: a row says with which it was made.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from longctx.llm.types import Message

LANGUAGES = ("en", "zh", "ko")
PACKAGE = "longctx.synth"
_SECTION = re.compile(r"^# (\w+)[^\S\n]*\n", re.MULTILINE)
_SLOT = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to a model: turns, the pieces they were built from, the JSON schema of a reply.

    `schema` is None where plain text is wanted. `parts` is what `check` and the rules read.
    """

    stage: str
    messages: tuple[Message, ...]
    parts: dict[str, Any]
    schema: dict[str, Any] | None = None


def prompt(
    stage: str,
    lang: str,
    parts: Mapping[str, Any],
    schema: dict[str, Any] | None = None,
    shown: Mapping[str, str] | None = None,
    *,
    package: str = PACKAGE,
) -> Prompt:
    """The prompt of a stage in a language; a slot takes from `shown`, then `parts`, then sections.

    `shown` has pieces that are written out for the model (a numbered list); `package` is whose
    wording it is. Raises ValueError for a language without wording, KeyError for a slot that
    nothing fills.
    """
    found = sections(stage, lang, package)
    values = {**found, **{k: str(v) for k, v in parts.items()}, **(shown or {})}
    turns = [role for role in ("system", "user") if role in found]
    filled = tuple({"role": role, "content": fill(found[role], values)} for role in turns)
    return Prompt(stage, filled, dict(parts), schema)


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with every slot replaced by its value; KeyError names a slot without one."""
    return _SLOT.sub(lambda slot: values[slot[1]], text)


@cache
def sections(stage: str, lang: str, package: str = PACKAGE) -> Mapping[str, str]:
    """The sections of a stage's file, blank lines around each taken away."""
    file = files(package) / "prompts" / f"{stage}.{lang}.md"
    if lang not in LANGUAGES or not file.is_file():
        raise ValueError(f"no prompt of stage {stage!r} in language {lang!r}; there is {LANGUAGES}")
    _, *pieces = _SECTION.split(file.read_text(encoding="utf-8"))
    return {name: text.strip() for name, text in zip(pieces[::2], pieces[1::2], strict=True)}


def object_schema(**properties: dict[str, Any]) -> dict[str, Any]:
    """A flat JSON schema: an object that has these properties and no others, all required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT: dict[str, Any] = {"type": "string"}
BOOL: dict[str, Any] = {"type": "boolean"}
INT: dict[str, Any] = {"type": "integer"}


def list_of(item: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of an array; its length is checked by the stage."""
    return {"type": "array", "items": item}
