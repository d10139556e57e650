"""The count proxy: the specification's figures, sums to one, and laws on the development corpus."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.errors import RecipeError
from longctx.mixture.chance import held_out
from longctx.mixture.count_proxy import CountProxy, WordIds, count_proxy
from longctx.mixture.evaluate import score
from longctx.mixture.laws import fit_law, predict
from longctx.mixture.optimise import solve
from longctx.mixture.regmix import sample_mixtures

I64 = npt.NDArray[np.int64]


def ids(*values: int) -> I64:
    return np.array(values, dtype=np.int64)


FIRST, SECOND, TARGET = [ids(0, 1, 0, 1, 2)], [ids(2, 3, 2, 3, 0)], [ids(0, 1, 2, 3)]
HALVES = np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("shares", "beta", "expected"),
    [((0.5, 0.5), 1, 0.485430), ((0.5, 0.5), 10, 1.097021), ((1, 0), 1, 1.864548)],
)
def test_losses_of_the_specification(
    shares: tuple[float, float], beta: float, expected: float
) -> None:
    proxy = count_proxy([FIRST, SECOND], [TARGET], 4, 0.1, beta)
    assert proxy.losses(np.array(shares), 10)[0] == pytest.approx(expected, abs=1e-6)
    # D is the tokens of all sources unless it is given.
    assert proxy.losses(np.array(shares))[0] == proxy.losses(np.array(shares), 10)[0]


@given(st.floats(0, 1), st.integers(0, 3), st.floats(1, 100))
def test_probabilities_sum_to_one_after_seen_and_unseen_words(
    share: float, first: int, size: float
) -> None:
    targets = [[ids(first, x)] for x in range(5)]
    sources = [FIRST, SECOND]  # the word 4 is in none
    proxy = count_proxy(sources, targets, 5)
    losses = proxy.losses(np.array([share, 1 - share]), size)
    assert np.exp(-losses).sum() == pytest.approx(1)
    assert np.exp(
        -count_proxy(sources, [[ids(4, x)] for x in range(5)], 5).losses(HALVES, size)
    ).sum() == pytest.approx(1)


@given(st.floats(0.05, 0.95), st.integers(1, 4))
def test_a_source_may_be_split_in_proportion(share: float, parts: int) -> None:
    whole = count_proxy([FIRST * (parts + 1), SECOND], [TARGET], 4)
    split = count_proxy([FIRST, FIRST * parts, SECOND], [TARGET], 4)
    own = share * np.array([1, parts]) / (parts + 1)
    assert split.losses(np.array([*own, 1 - share]), 30) == pytest.approx(
        whole.losses(np.array([share, 1 - share]), 30)
    )


def test_bigrams_do_not_cross_documents() -> None:
    proxy = count_proxy([[ids(0, 1), ids(2, 3)]], [[ids(1, 2)]], 4)
    # The bigram (1, 2) never stands in a document, so only the counts of single words are left.
    assert proxy.losses(np.ones(1))[0] == pytest.approx(-np.log((1 + 0.1) / (4 + 0.4)))


def test_a_target_without_two_words_is_refused() -> None:
    with pytest.raises(RecipeError, match="target 1 has no two words in a row"):
        count_proxy([FIRST], [TARGET, [ids(1)]], 4)


def test_word_ids_are_those_of_lower_case_words() -> None:
    number = WordIds(1000)
    assert number("The reef, the REEF").tolist() == number("the reef , the reef").tolist()
    assert number("").tolist() == []


SOURCES = (
    *("novels-en", "code-django", "cppdocs-en", "kernel-docs", "stacks-latex"),
    *("irc-ubuntu", "meetings-qmsum"),
)


def dev_proxy(folder: Path) -> CountProxy:
    """The sources of the development corpus, a tenth of each held out."""
    number = WordIds()
    trained: dict[str, list[I64]] = defaultdict(list)
    measured: dict[str, list[I64]] = defaultdict(list)
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file, columns=["id", "text", "source"])
        held = held_out(17, table["id"].to_pylist(), 0.1)
        for text, source, out in zip(
            table["text"].to_pylist(), table["source"].to_pylist(), held, strict=True
        ):
            if source in SOURCES:
                (measured if out else trained)[source].append(number(text))
    return count_proxy([trained[s] for s in SOURCES], [measured[s] for s in SOURCES])


def test_laws_find_the_optimum_of_the_development_corpus(shared_data: Path) -> None:
    proxy = dev_proxy(shared_data / "corpus" / "dev")
    natural = proxy.tokens / proxy.tokens.sum()
    X = sample_mixtures(natural, 40, 17, min_share=0.02)
    tests = sample_mixtures(natural, 100, 117, min_share=0.02)
    Y, measured = (np.array([proxy.losses(r) for r in rows]) for rows in (X, tests))
    # Losses spread over more than a nat.
    laws = [fit_law(X, Y[:, j], 0.05) for j in range(len(SOURCES))]
    for j, law in enumerate(laws):
        found = score(predict(law, tests), measured[:, j])
        assert found.r2 >= 0.93, SOURCES[j]
        assert found.spearman is not None
        assert found.spearman >= 0.97, SOURCES[j]
    best = proxy.optimum()
    law_best = solve(laws, lam=0).shares
    of_law, of_best, of_natural = (proxy.losses(r).mean() for r in (law_best, best, natural))
    assert of_best <= of_law < of_best + 0.005
    assert of_law < of_natural
