"""What a stage will ask of a language model, told before the first call is made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelCalls:
    """Calls and tokens of one stage, `assumed` as it says; `usd` is None without a known price."""

    stage: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    assumed: str
