"""The named data sets on which orders are compared: `flat`, `hier`, `wiki2` and document lengths.

Recipes are drawn strictly in the order written here from one PCG64 generator in float64 and cast to
float32 at the end, so that anybody who follows the recipe holds the same numbers.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_GATHER_ROWS = 1024


def _normalised(x: F64) -> F64:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def flat(n: int, d: int = 384, seed: int = 0, sigma: float = 1.0) -> F32:
    """n // 50 equal topics without structure above them; float32[n, d], unit norm."""
    return np.concatenate(list(flat_blocks(n, n, d, seed, sigma)))


def flat_blocks(
    n: int, rows: int, d: int = 384, seed: int = 0, sigma: float = 1.0
) -> Iterator[F32]:
    """The rows of `flat` in blocks: the same numbers, in the memory of one block."""
    g = np.random.default_rng(seed)
    n_topics = max(8, n // 50)
    centre = _normalised(g.standard_normal((n_topics, d)))
    label = g.integers(0, n_topics, n)
    for at in range(0, n, rows):
        block = label[at : at + rows]
        noise = g.standard_normal((len(block), d))
        yield _normalised(centre[block] + sigma * noise / np.sqrt(d)).astype(np.float32)


def hier(n: int, d: int = 384, seed: int = 0) -> F32:
    """Topics under broader topics, of Zipf-like sizes, each with 12 directions of its own."""
    g = np.random.default_rng(seed)
    n_topics = max(8, n // 40)
    n_broad = max(4, n_topics // 20)
    broad = _normalised(g.standard_normal((n_broad, d)))
    parent = g.integers(0, n_broad, n_topics)
    centre = 0.8 * broad[parent] + 0.6 * _normalised(g.standard_normal((n_topics, d)))
    share = np.arange(1, n_topics + 1) ** -0.8
    label = g.choice(n_topics, n, p=share / share.sum())
    basis = g.standard_normal((n_topics, 12, d)) / np.sqrt(d)
    z = g.standard_normal((n, 12)) / np.sqrt(12)
    iso = g.standard_normal((n, d)) / np.sqrt(d)
    spread = g.uniform(0.5, 1.5, (n, 1))
    x = centre[label] + 0.4 * spread * iso
    for at in range(0, n, _GATHER_ROWS):  # the basis gathered at once is 0.7 GB at n = 20,000
        rows = slice(at, at + _GATHER_ROWS)
        x[rows] += 0.6 * np.einsum("ik,ikd->id", z[rows], basis[label[rows]])
    return _normalised(x).astype(np.float32)


def wiki2(corpus: Path) -> F32:
    """The 2WikiMultihopQA passages by TF-IDF and 256 factors; float32[6116, 256], unit norm.

    `corpus` is the JSON list of {title, text}. Binary words `[a-z]{3,}` that occur in at least 3
    and in less than a fifth of the passages, weighted by ln(n / df); three passages without such a
    word are left out.
    """
    passages = json.loads(corpus.read_text(encoding="utf-8"))
    texts = [f"{p['title']} {p['text']}".lower() for p in passages]
    words = [sorted(set(re.findall(r"[a-z]{3,}", text))) for text in texts]
    df = Counter(word for row in words for word in row)
    n = len(texts)
    kept = sorted(word for word, count in df.items() if 3 <= count < 0.2 * n)
    column = {word: i for i, word in enumerate(kept)}
    rows = [[column[word] for word in row if word in column] for row in words]
    weight = np.log(n / np.array([df[word] for word in kept]))
    indices = np.array([i for row in rows for i in row])
    indptr = np.cumsum([0, *map(len, rows)])
    matrix = csr_matrix((weight[indices], indices, indptr), shape=(n, len(kept)))
    u, s, _ = svds(matrix, k=256, v0=np.full(min(matrix.shape), 1.0))
    x = u * s
    return _normalised(x[np.linalg.norm(x, axis=1) >= 1e-6]).astype(np.float32)


def lengths(n: int = 20_000, seed: int = 3) -> tuple[I64, I64]:
    """Document lengths in tokens (log-normal, 40..200,000), and the next draw, permutation(n)."""
    g = np.random.default_rng(seed)
    tokens = np.clip(np.exp(g.normal(6.55, 1.15, n)), 40, 200_000).astype(np.int64)
    return tokens, g.permutation(n)
