"""The likelihood scores with a real model, small and briefly: what is planted is found."""

import numpy as np
import pytest

from longctx.score.causal_lm import CausalLM, load_causal_lm
from longctx.score.likelihood import columns, contrasts, key_tokens, split_gain
from longctx.score.plan import Windows
from tests.score.models import needs_smollm2

pytestmark = needs_smollm2()


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    return load_causal_lm()


def topic(*names: str) -> str:
    """Chapters of Python's own manual, which every Python brings along."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in names or sorted(topics))


def test_key_tokens_find_a_copy_from_4_000_tokens_before(lm: CausalLM) -> None:
    """70 tokens are repeated 4,080 tokens later; only the long context holds them."""
    ids = lm.encode([topic()[:40_000]])[0][:4_240].copy()
    at, back, size = 4_160, 4_080, 70
    ids[at : at + size] = ids[at - back : at - back + size]
    # The short context begins behind what was copied: 128 tokens before the last 140.
    windows = Windows(4_096, 128, 3_972)
    (found,) = contrasts(lm, [ids], windows)
    assert found.n_far == 140
    keys = np.flatnonzero(key_tokens(found.long, found.short)) + 1
    copied = (keys >= at) & (keys < at + size)
    assert copied.sum() >= 5
    assert (~copied).sum() <= 2
    gain = (found.short - found.long)[at:][: size - 1]
    assert gain.mean() > 0.5


def test_unrelated_halves_score_lower_than_one_subject(lm: CausalLM) -> None:
    n = 320
    one, other = (i[40 : 40 + n] for i in lm.encode([topic("assignment"), topic("debugger")]))
    mixed = [np.concatenate([a[: n // 2], b[n // 2 :]]) for a, b in ((other, one), (one, other))]
    found = contrasts(lm, [one, other, *mixed], Windows(512, 48, 48), split=True)
    real, torn = [columns(f) for f in found[:2]], [columns(f) for f in found[2:]]
    for name in ("lf_score", "dnll_mean", "ppl_ratio"):
        assert sum(r[name] for r in real) > 1.2 * sum(r[name] for r in torn)  # type: ignore[misc]
    gains = [split_gain(f) or 0 for f in found]
    assert gains[0] > gains[2] + 0.1
    assert gains[1] > gains[3] + 0.1
