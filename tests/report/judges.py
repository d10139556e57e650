"""A language model for tests of the yardstick that copies what it has seen, and windows for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from longctx.score.causal_lm import I32, Segment, TokenScores
from longctx.text.tokenize import Tokenizer, load_tokenizer
from tests.compare.packed import Documents
from tests.score.stubs import CopyLM

WORDS = 5_000


@dataclass
class Judge:
    """Reads one token a word; `read` counts the excerpts that it was asked for."""

    name: str = "judge"
    bos: int | None = None
    limit: int = 4_096
    read: int = 0
    tokenizer: Tokenizer = field(default_factory=lambda: load_tokenizer("embedded"))
    words: dict[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, str]:
        return {"weights": self.name, "dtype": "float32"}

    @property
    def vocabulary(self) -> int:
        return WORDS

    def encode(self, texts: Sequence[str]) -> list[I32]:
        return [
            np.array([self.words.setdefault(w, len(self.words)) for w in t.split()], np.int32)
            for t in texts
        ]

    def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
        self.read += len(segments) > 1
        return CopyLM(WORDS).scores(segments)


def couples(count: int, size: int) -> Documents:
    """Documents `a-00`, `b-00`, ... of random words; b says in another order what a says."""
    found = {}
    for number in range(count):
        g = np.random.default_rng(number)
        words = [f"w{i}" for i in g.integers(1, WORDS, size)]
        spans = [words[i : i + 20] for i in range(0, size, 20)]
        found[f"a-{number:02d}"] = " ".join(words)
        turned = g.permutation(len(spans)).tolist()
        found[f"b-{number:02d}"] = " ".join(w for i in turned for w in spans[i])
    return found


def coupled(documents: Documents, shift: int = 0) -> list[list[str]]:
    """Windows of one a and one b each: of the same couple, or of couples `shift` apart."""
    number = len(documents) // 2
    return [[f"a-{i:02d}", f"b-{(i + shift) % number:02d}"] for i in range(number)]
