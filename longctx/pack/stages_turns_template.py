"""The chat template of a run's tokenizer: found in its folder, run by transformers in a sandbox."""

from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from longctx.errors import RunError
from longctx.pack.turn_templates import TemplateLayout

# What templates that write the day are told: the day that Llama's fall back to.
_DAY = date(2024, 7, 26)
_REMEDY = (
    "take `format: chatml` or `plain`, or name the folder of a tokenizer whose template writes a "
    "conversation as it is asked for, turn by turn"
)


class ChatOf(NamedTuple):
    """A tokenizer of transformers with a chat template, and the template's text."""

    tokenizer: Any
    template: str


@lru_cache(maxsize=2)
def chat_of(spec: str, stage: str) -> ChatOf:
    """The chat template of a tokenizer's folder. Raises RunError where there is none."""
    from longctx.llm.chat import load_chat

    place = Path(spec).expanduser()
    folder = place if place.is_dir() else place.parent
    if not (folder / "tokenizer.json").is_file():
        raise RunError(
            f"the tokenizer {spec} has no folder in which a chat template could be",
            where=stage,
            remedy="give the folder of the model that will be trained as `tokenizer`, or take "
            "another `format`",
        )
    found = load_chat(folder, None).tokenizer
    template = found.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise RunError(
            f"there is no chat template in {folder}",
            where=stage,
            remedy="it stands in chat_template.jinja, or as `chat_template` in "
            "tokenizer_config.json: take the folder of a chat model, or another `format`",
        )
    return ChatOf(found, str(template))


@lru_cache(maxsize=2)
def template_layout(spec: str, stage: str) -> TemplateLayout:
    """The layout of a tokenizer's template. Raises RunError where it cannot be used."""
    from longctx.text.tokenize import load_tokenizer

    tokenizer, template = chat_of(spec, stage)

    def render(messages: list[dict[str, str]], asked: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=asked,
                strftime_now=_DAY.strftime,
            )
        )

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    special = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
    try:
        return TemplateLayout(load_tokenizer(spec), render, encode, special)
    except ValueError as error:
        raise RunError(
            f"the chat template of {spec} cannot be learnt from: {error}",
            where=stage,
            remedy=_REMEDY,
        ) from None
