"""Messages as the tokens that a model was trained to continue, and its tokens as text again.

The model's own chat template, where its folder has one; it is Jinja from the model's maker, and
transformers runs it in a sandbox. A model without one reads a plain transcript. The tokenizer is
that of the folder's `tokenizer.json` as it stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longctx.llm.openai_wire import is_continuation
from longctx.llm.types import Message


class TemplateError(ValueError):
    """The chat template refuses these messages: an unknown role, roles out of turn."""


@dataclass(frozen=True)
class Chat:
    """Encodes messages and decodes replies; made by `load_chat`."""

    tokenizer: Any
    bos: int | None
    templated: bool

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a prompt, ready to be continued by the assistant. Raises TemplateError.

        A last assistant message is left open, to be continued where it ends.
        """
        if self.templated:
            return self._ids(self._rendered(messages))
        ids = self._ids(transcript(messages))
        return ids if self.bos is None else [self.bos, *ids]

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return found

    def _rendered(self, messages: Sequence[Message]) -> str:
        goes_on = is_continuation(messages)
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{"role": m["role"], "content": m["content"]} for m in messages],
                    tokenize=False,
                    add_generation_prompt=not goes_on,
                    continue_final_message=goes_on,
                )
            )
        except Exception as error:  # templates raise what they like
            raise TemplateError(f"{type(error).__name__}: {error}") from None

    def decode(self, ids: Sequence[int], after: int) -> str:
        """The text of ids that follow the id `after`, without the marks of the chat.

        Some tokenizers drop the blank at the beginning of what they decode, hence `after`.
        """
        before, whole = self._text([after]), self._text([after, *ids])
        return whole[len(before) :] if whole.startswith(before) else self._text(ids)

    def _text(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )


def transcript(messages: Sequence[Message]) -> str:
    """Messages for a model that knows no chat: one paragraph each, the last one to be written."""
    said = [f"{m['role'].capitalize()}: {m['content']}" for m in messages]
    return "\n\n".join(said if is_continuation(messages) else [*said, "Assistant:"])


def load_chat(folder: Path, bos: int | None) -> Chat:
    """The tokenizer and template of a model folder."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return Chat(tokenizer, bos, bool(tokenizer.chat_template))
