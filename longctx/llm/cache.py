"""What was answered once is kept, so that no run pays for it again.

Stored is the raw text before any parsing: a better parser costs nothing. Never stored are errors,
empty texts, messages of clients that were taken for texts, and (unless asked for) answers that were
cut off or filtered: the next run asks for those again. Where a text may end with its budget
(`GenRequest.may_be_cut`), one that does is stored. Entries are found by the key of their request
alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from longctx.llm.types import GenError, GenResult, Usage

FILTERED = GenError("content_filter", None, "the server filtered the text")
_KEPT_IF_ASKED = frozenset({"length", "content_filter"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored answer. `created` in Unix seconds; `logical` is the key without max_tokens."""

    key: str
    logical: str
    model: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    estimated: bool
    model_reported: str | None
    prefill: str | None
    created: float

    def result(self, request_id: str, key: str) -> GenResult:
        """The answer as a result of a request with this key."""
        return GenResult(
            request_id=request_id,
            key=key,
            text=self.text,
            finish_reason=self.finish_reason,  # type: ignore[arg-type]
            usage=Usage(
                self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.estimated
            ),
            model_reported=self.model_reported,
            from_cache=True,
            prefill=self.prefill,
            error=FILTERED if self.finish_reason == "content_filter" else None,
        )


def entry_of(result: GenResult, logical: str, model: str, created: float) -> Entry:
    """What is stored of a result."""
    return Entry(
        key=result.key,
        logical=logical,
        model=model,
        text=result.text,
        finish_reason=result.finish_reason,
        prompt_tokens=result.usage.prompt,
        completion_tokens=result.usage.completion,
        cached_tokens=result.usage.cached,
        estimated=result.usage.estimated,
        model_reported=result.model_reported,
        prefill=result.prefill,
        created=created,
    )


def is_storable(result: GenResult, store_truncated: bool, may_be_cut: bool = False) -> bool:
    """Whether a result may be stored, as far as it does not depend on what the text says."""
    if not result.text.strip() or result.finish_reason == "error":
        return False
    if may_be_cut and result.finish_reason == "length":
        return True
    if result.finish_reason in _KEPT_IF_ASKED:
        return store_truncated
    return result.error is None


class Cache(Protocol):
    """A store of answers. Its methods block, and may be called from several threads.

    They raise LLMJobError("cache_io") where the store cannot be read or written.
    """

    @property
    def unflushed(self) -> int:
        """Entries that were put and would be lost with the process."""
        ...

    def get(self, keys: Sequence[str]) -> dict[str, Entry]:
        """The stored entries among some keys."""
        ...

    def get_finished(self, logical: Sequence[str]) -> dict[str, Entry]:
        """By logical key, entries that ended by themselves (`finish_reason` stop)."""
        ...

    def put(self, entries: Sequence[Entry]) -> dict[str, Entry]:
        """Store entries; returns, by key, those that somebody had stored before and that count."""
        ...

    def tick(self) -> None:
        """Flush if that is due by the clock; called about once a second."""
        ...

    def flush(self) -> None:
        """Make everything that was put survive the process."""
        ...

    def close(self) -> None: ...


class NullCache:
    """Keeps nothing: for benchmarks."""

    unflushed = 0

    def get(self, keys: Sequence[str]) -> dict[str, Entry]:
        return {}

    def get_finished(self, logical: Sequence[str]) -> dict[str, Entry]:
        return {}

    def put(self, entries: Sequence[Entry]) -> dict[str, Entry]:
        return {}

    def tick(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def distinct(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Entries by key; of several with one key the first."""
    found: dict[str, Entry] = {}
    for entry in entries:
        found.setdefault(entry.key, entry)
    return found
