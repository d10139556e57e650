"""Seeds of sampled texts: a function of what is asked for, never of order or worker.

Sampled stages (temperature > 0, several samples wanted) take a seed per row and sample: with one
seed for all, ten samples are one text ten times. Judge stages send none, so that equal requests
from different rows share one entry of the cache; their re-asks with temperature > 0 take the digest
of the message list as the row. Servers that batch several requests do not return equal bytes for
equal seeds; what makes a run repeatable there is the cache.
"""

import hashlib
from collections.abc import Sequence

from longctx.llm.keys import canonical_json
from longctx.llm.types import Message

_SEPARATOR = "\x1f"  # without one, row "11" sample 0 and row "1" sample 10 would meet


def derive_seed(base_seed: int, system: str, stage: str, row_id: str, sample_index: int) -> int:
    """Seed of one sample, in [0, 2**31): the first 4 bytes (big-endian) of SHA-256, top bit off."""
    text = _SEPARATOR.join([str(base_seed), system, stage, row_id, str(sample_index)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF


def messages_digest(messages: Sequence[Message]) -> str:
    """SHA-256 (hex) of a message list: stands for the row in the seeds of a judge's re-asks."""
    listed = [{"role": m["role"], "content": m["content"]} for m in messages]
    return hashlib.sha256(canonical_json(listed).encode()).hexdigest()
