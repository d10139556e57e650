"""A loaded language model that answers requests: their tokens, their batches, their replies.

All of it is used by one thread. A reply is that of its request alone, whatever it was batched with
(`decode.py`), as long as the rounding of a batch is small. That is measured when the model is
loaded: where it is not (bfloat16), the batch is cut to one, and the facts say so.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from longctx.llm.chat import Chat, TemplateError, load_chat
from longctx.llm.decode import Row, decode, rounding
from longctx.llm.sampling import Sampling
from longctx.llm.types import Answer, AttemptError, GenRequest, Usage
from longctx.location import Location
from longctx.model_folders import folder_digest

log = logging.getLogger(__name__)

_CPU_BATCH, _CUDA_BATCH = 8, 32
_CPU_TOKENS, _CUDA_TOKENS = 16_384, 262_144
_PROBE = ("One.", "Name the colours of the rainbow, one after the other, and say why.")
# Rounding at the load is measured on a few tokens; a long text may see some more.
_MARGIN, _LARGEST_ROUNDING = 4.0, 0.002
_EXTRA = frozenset({"top_k", "min_p", "repetition_penalty"})
_HUB = ("snapshots", "models--")


class LocalSettings(BaseModel):
    """Which model, where, and how much of it at once.

    Python code that comes with a model runs only with `trust_remote_code`: read that code first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Location = Field("smollm2", description="packaged, a folder, or a Hugging Face name")
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    threads: int = Field(1, ge=1, description="threads of this process")
    batch: int | None = Field(None, ge=1, description="requests at once; 8 on a CPU, 32 on CUDA")
    batch_tokens: int | None = Field(
        None, ge=1, description="padded tokens at once, prompts and completions"
    )
    trust_remote_code: bool = False


def model_id(folder: Path, dtype: str) -> str:
    """`hf:REPO@REVISION` of a snapshot from the hub, `hf:dir:DIGEST` of any other folder.

    The digest is over everything that decides a reply: configurations, the index and a sample of
    the weights, the tokenizer and its template. Another dtype than float32 stands behind it.
    """
    suffix = "" if dtype == "float32" else f":{dtype}"
    if folder.parent.name == _HUB[0] and folder.parents[1].name.startswith(_HUB[1]):
        repo = folder.parents[1].name.removeprefix(_HUB[1]).replace("--", "/")
        return f"hf:{repo}@{folder.name}{suffix}"
    found = hashlib.sha256(folder_digest(folder).encode())
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.jinja")]):
        found.update(f"\n{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    return f"hf:dir:{found.hexdigest()}{suffix}"


@dataclass
class LocalModel:
    """The loaded model; all of it is used by one thread."""

    lm: Any
    chat: Chat
    ends: frozenset[int]
    batch_size: int
    batch_tokens: int
    tolerance: float
    facts: dict[str, Any]

    def row(self, req: GenRequest, key: str, is_wanted: Callable[[], bool]) -> Row:
        """A request in tokens. Raises AttemptError where the model cannot take it."""
        try:
            prompt = self.chat.encode(req.messages)
        except TemplateError as error:
            raise AttemptError("bad_request", f"the chat template refuses this: {error}") from None
        if len(prompt) + req.max_tokens > self.lm.limit:
            raise AttemptError(
                "context_overflow",
                f"{len(prompt)} tokens of the prompt and {req.max_tokens} of the completion are "
                f"more than the {self.lm.limit} of the model",
            )
        if not prompt or req.max_tokens < 1:
            raise AttemptError("bad_request", "an empty prompt, or no token to be written")
        # Without a seed the key decides: the same request, the same reply.
        seed = int(key[:16], 16) if req.seed is None else req.seed
        text_of = partial(self.chat.decode, after=prompt[-1])
        stop = tuple(s for s in req.stop or () if s)
        return Row(prompt, req.max_tokens, _sampling(req), seed, stop, text_of, is_wanted)

    def batch(self, rows: Sequence[Row]) -> list[int]:
        """Places of the rows to be decoded next: those of about the length of the first."""
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt), i))
        batches: list[list[int]] = []
        for i in order:
            # The order is ascending, so the newcomer's prompt is the width of all.
            size = len(rows[i].prompt) + max(
                rows[j].max_tokens for j in [i, *(batches[-1] if batches else [])]
            )
            fits = batches and (len(batches[-1]) + 1) * size <= self.batch_tokens
            if fits and len(batches[-1]) < self.batch_size:
                batches[-1].append(i)
            else:
                batches.append([i])
        return next((b for b in batches if 0 in b), [])

    def decode(self, rows: Sequence[Row]) -> list[Answer | Exception | None]:
        """Answers, or what went wrong; None for a row that nobody wants any more."""
        import torch

        if not rows:
            return []
        try:
            decode(self.lm, rows, self.ends, self.tolerance if len(rows) > 1 else 0.0)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(rows) == 1:
                said = f"the device runs out of memory with {len(rows[0].prompt)} tokens"
                return [AttemptError("bad_request", said)]
            self.batch_size = self.facts["batch"] = len(rows) // 2
            fresh = [row.again() for row in rows]
            half = len(fresh) // 2
            return [*self.decode(fresh[:half]), *self.decode(fresh[half:])]
        except Exception as error:  # of one of them: the others are as good alone
            if len(rows) == 1:
                return [error]
            return [self.decode([row.again()])[0] for row in rows]
        return [self._answer(row) for row in rows]

    def _answer(self, row: Row) -> Answer | Exception | None:
        if row.unsafe:
            self.facts["decoded_alone"] += 1
            (found,) = self.decode([row.again()])
            return found
        if row.finish_reason is None:
            return None
        written = [i for i in row.ids if i not in self.ends]
        text = row.text_of(written)
        ends = [at for stop in row.stop if (at := text.find(stop)) >= 0]
        if ends:
            text = text[: min(ends)]
        elif row.finish_reason == "length":
            text = text.removesuffix("\ufffd")  # a character that was cut in the middle
        usage = Usage(len(row.prompt), len(row.ids))
        if not text.strip():
            return AttemptError("empty", "the model wrote nothing", usage=usage)
        return Answer(
            text=text,
            finish_reason=row.finish_reason,
            usage=usage,
            model_reported=self.facts["model"],
        )


def _sampling(req: GenRequest) -> Sampling:
    extra = dict(req.extra or {})
    if unknown := sorted(extra.keys() - _EXTRA):
        raise AttemptError(
            "bad_request",
            f"the local backend knows no {', '.join(unknown)}, only {', '.join(sorted(_EXTRA))}",
        )
    try:
        return Sampling(
            temperature=float(req.temperature),
            top_p=float(req.top_p),
            top_k=max(0, int(extra.get("top_k", 0))),
            min_p=float(extra.get("min_p", 0.0)),
            repetition_penalty=float(extra.get("repetition_penalty", 1.0)),
        )
    except (TypeError, ValueError) as error:
        raise AttemptError("bad_request", f"a parameter of sampling: {error}") from None


def load(settings: LocalSettings, folder: Path, facts: dict[str, Any]) -> LocalModel:
    """Load a model and measure its rounding; what is found out goes to `facts`.

    Raises RunError where it cannot be loaded.
    """
    from longctx.score.causal_lm import load_causal_lm

    lm = load_causal_lm(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        trust_remote_code=settings.trust_remote_code,
    )
    chat = load_chat(folder, lm.bos)
    cuda = lm.device.type == "cuda"
    batch = settings.batch or (_CUDA_BATCH if cuda else _CPU_BATCH)
    found = 0.0
    if batch > 1:
        found = rounding(lm, [chat.encode([{"role": "user", "content": p}]) for p in _PROBE])
        if not found <= _LARGEST_ROUNDING:
            log.warning(
                "%s in %s answers otherwise when it reads several requests at once (logits differ "
                "by %.2g): it reads one at a time",
                *(settings.model, settings.dtype, found),
            )
            batch = 1
    facts |= {"device": str(lm.device), "batch": batch, "rounding": found, "decoded_alone": 0}
    return LocalModel(
        *(lm, chat, _ends(lm, chat), batch),
        settings.batch_tokens or (_CUDA_TOKENS if cuda else _CPU_TOKENS),
        _MARGIN * found,
        facts,
    )


def _ends(lm: Any, chat: Chat) -> frozenset[int]:
    """Every id that ends a text, as the model's configurations and its tokenizer name them."""
    named = [lm.model.config.get_text_config().eos_token_id, chat.tokenizer.eos_token_id]
    if (generation := getattr(lm.model, "generation_config", None)) is not None:
        named.append(generation.eos_token_id)
    listed = [i for one in named for i in (one if isinstance(one, list | tuple) else [one])]
    return frozenset(int(i) for i in listed if i is not None)
