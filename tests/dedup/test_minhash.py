from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasketch import MinHash, MinHashLSH
from datasketch.lsh import _optimal_param
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.dedup.components import connected_components
from longctx.dedup.kernel import SLICE
from longctx.dedup.minhash import (
    agreement,
    band_keys,
    leader_edges,
    lsh_params,
    lsh_prob,
    permutations,
    signature,
    signatures,
)
from longctx.dedup.shingles import shingles
from longctx.ids import h64
from longctx.text.normalise import dedup_tokens

ON_THE_MAT = "the cat sat on the mat"
ON_A_MAT = "the cat sat on a mat"
SPEC_A = [
    69461069, 165325559, 2160431177, 270159026, 2459752184, 175336168, 1636043742, 1655398631,
]  # fmt: skip
NEARDUP = Path(__file__).parents[2].parent / "shared" / "data" / "corpus" / "neardup"


def bigrams(text: str) -> list[bytes]:
    return [f"{a} {b}".encode() for a, b in pairwise(text.split())]


def ready(base: int) -> int:
    return base


def test_signature_of_the_specification():
    assert signature(shingles(ON_THE_MAT.split(), 2), 8).tolist() == SPEC_A
    assert signatures([ON_THE_MAT], num_perm=8, ngram=2)[0][0].tolist() == SPEC_A


def test_datasketch_is_the_release_whose_scheme_we_follow():
    sketch = MinHash(num_perm=8, seed=1, scheme="affine32")
    sketch.update_batch(bigrams(ON_THE_MAT))
    assert sketch.hashvalues[:3].tolist() == [397240912, 371336909, 1268034771]


@pytest.mark.parametrize(
    ("num_perm", "estimate"), [(128, 0.484375), (256, 0.41796875), (512, 0.439453125)]
)
def test_estimates_of_the_specification(num_perm: int, estimate: float):
    sketches = [MinHash(num_perm=num_perm, seed=1, scheme="affine32") for _ in range(2)]
    for sketch, text in zip(sketches, (ON_THE_MAT, ON_A_MAT), strict=True):
        sketch.update_batch(bigrams(text))
    assert agreement(*(s.hashvalues for s in sketches)) == np.float32(estimate)


@given(
    st.lists(st.sampled_from(["a", "b", "ç", "東", "9", "long-er"]), max_size=40), st.integers(1, 9)
)
@settings(deadline=None)
def test_kernel_reference_and_datasketch_agree(tokens: list[str], seed: int):
    text = " ".join(tokens)
    values = shingles(dedup_tokens(text), 3)
    sketch = MinHash(num_perm=24, seed=seed, scheme="affine32", hashfunc=ready)
    if values.size:
        sketch.update_batch(values.astype(np.uint32).tolist())
    signs, count = signatures([text], num_perm=24, ngram=3, seed=seed)
    assert signs[0].tolist() == sketch.hashvalues.tolist() == signature(values, 24, seed).tolist()
    assert count[0] == min(len(dedup_tokens(text)), max(1, len(dedup_tokens(text)) - 2))


def test_slices_repeats_and_order_do_not_matter():
    words = [
        f"w{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(9000)
    ]
    text = " ".join(words)
    for ngram in (1, 5):
        expected = signature(shingles(dedup_tokens(text), ngram), 16)
        assert (signatures([text], num_perm=16, ngram=ngram)[0][0] == expected).all()
    backwards = " ".join(words[::-1])
    both = signatures([text, f"{backwards} {backwards}"], num_perm=16, ngram=1)[0]
    assert (both[0] == both[1]).all()


@pytest.mark.parametrize("n_tokens", [SLICE - 2, SLICE - 1, SLICE, SLICE + 1, SLICE + 3, 2 * SLICE])
def test_slice_borders(n_tokens: int):
    text = " ".join(
        chr(0x3B1 + i % 17) * (1 + i // 17 % 5) + chr(97 + i % 26) for i in range(n_tokens)
    )
    signs, count = signatures([text], num_perm=16)
    assert count[0] == n_tokens - 4
    assert (signs[0] == signature(shingles(dedup_tokens(text), 5), 16)).all()


def test_empty_and_unsafe_texts_keep_their_places():
    texts = ["", "Plain one", " ,. ", "ΟΔΟΣ one", "\u1100\u1161 one", "last"]
    signs, count = signatures(pa.array([None, *texts], pa.large_string()), num_perm=8, ngram=2)
    assert count.tolist() == [0, 0, 1, 0, 1, 1, 1]
    assert (signs[[0, 1, 3]] == 0xFFFFFFFF).all()
    for row, text in zip(signs[1:], texts, strict=True):
        assert (row == signature(shingles(dedup_tokens(text), 2), 8)).all()


def test_profile_code_keeps_punctuation():
    texts = ["f(x) = 1", "f[x] = 2"]
    assert (np.diff(signatures(texts, num_perm=8)[0], axis=0) == 0).all()
    assert (
        np.diff(signatures(texts, num_perm=8, profile="code")[0].astype(int), axis=0) != 0
    ).all()


def test_an_impossible_shingle_length_is_refused():
    with pytest.raises(ValueError, match="ngram"):
        signatures(["a"], ngram=0)


@pytest.mark.parametrize("scope", ["", "CC-MAIN-2024", "é" * 80])
def test_band_keys_hash_scope_band_and_values(scope: str):
    sig = np.random.default_rng(0).integers(0, 2**32, (3, 12), dtype=np.uint32)
    keys = band_keys(sig, 2, 5, scope)
    for i in range(3):
        for band in range(2):
            values = sig[i, band * 5 : band * 5 + 5].astype("<u4").tobytes()
            message = scope.encode() + b"\0" + band.to_bytes(4, "little") + values
            assert keys[i, band] == h64(message)
    with pytest.raises(ValueError, match="3 bands of 5"):
        band_keys(sig, 3, 5)


def test_lsh_prob_is_the_curve_of_the_specification():
    assert lsh_prob([0.5, 0.6, 0.7, 0.8, 0.9], 14, 8) == pytest.approx(
        [0.0533, 0.2111, 0.5645, 0.9235, 0.9996], abs=5e-5
    )
    assert lsh_prob(0.8, 9, 13) == pytest.approx(0.3988, abs=5e-5)


@pytest.mark.parametrize(
    ("threshold", "num_perm", "shape"),
    [
        (0.5, 128, (25, 5)), (0.7, 128, (14, 9)), (0.8, 128, (9, 13)),
        (0.9, 128, (5, 25)), (0.7, 256, (25, 10)), (0.8, 256, (17, 15)),
    ],
)  # fmt: skip
def test_lsh_params_of_the_specification(threshold: float, num_perm: int, shape: tuple[int, int]):
    assert lsh_params(threshold, num_perm) == shape


def test_lsh_params_equal_datasketch_with_unequal_weights():
    assert lsh_params(0.6, 64, 0.2, 0.8) == _optimal_param(0.6, 64, 0.2, 0.8)


def test_candidates_equal_datasketch_lsh():
    rng = np.random.default_rng(3)
    sig = rng.integers(0, 4, (120, 16), dtype=np.uint32)
    index = MinHashLSH(num_perm=16, params=(4, 4))
    a_b = permutations(16)
    sketches = [MinHash(hashvalues=s, permutations=a_b, scheme="affine32") for s in sig]
    for i, sketch in enumerate(sketches):
        index.insert(i, sketch)
    expected = {(i, j) for i, s in enumerate(sketches) for j in index.query(s) if i < j}
    keys = band_keys(sig, 4, 4)
    equal = (keys[:, None] == keys[None]).any(axis=2)
    assert {(i, j) for i, j in np.argwhere(equal).tolist() if i < j} == expected
    assert len(expected) > 50


def planted(jaccard: float, n_pairs: int, size: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Signatures (112) of pairs of sets of which exactly this share of the union is common."""
    rng = np.random.default_rng(int(jaccard * 100))
    shared = round(jaccard * size)
    own = (size - shared) // 2
    left, right = [], []
    for _ in range(n_pairs):
        pool = rng.integers(0, 2**64, size, dtype=np.uint64)
        left.append(signature(pool[: shared + own], 112))
        right.append(signature(np.delete(pool, slice(shared, shared + own)), 112))
    return np.stack(left), np.stack(right)


@pytest.mark.parametrize("jaccard", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_planted_pairs_are_found_as_often_as_the_curve_says(jaccard: float):
    n_pairs = 600
    left, right = planted(jaccard, n_pairs)
    sig = np.concatenate([left, right])
    doc = np.tile(np.arange(n_pairs, dtype=np.uint64), 2) + np.repeat(
        np.uint64([0, 10**6]), n_pairs
    )
    keys = band_keys(sig, 14, 8)
    args = keys.ravel(), np.repeat(doc, 14), np.repeat(sig, 14, axis=0)
    share = agreement(left, right)
    sigma = 3 * np.sqrt(0.25 / n_pairs)
    assert abs(share.mean() - jaccard) < 3 * np.sqrt(jaccard * (1 - jaccard) / 112 / n_pairs)
    star_u, star_v, _, _ = leader_edges(*args, verify="none")
    found = np.unique(star_u)
    assert (star_v - star_u == 10**6).all()
    assert abs(found.size / n_pairs - lsh_prob(jaccard, 14, 8)) < sigma
    u, _, sim, crowded = leader_edges(*args, threshold=0.7)
    assert set(u.tolist()) == set(found[share[found.astype(int)] >= 0.7].tolist())
    assert (sim >= np.float32(0.7)).all()
    assert crowded == 0


def test_leaders_are_tried_in_order_and_their_number_is_bounded():
    base = np.zeros((7, 10), dtype=np.uint32)
    base[:, 4:] = np.arange(7)[:, None]
    sig = base[[0, 1, 2, 0, 1, 2, 3]]
    bucket = np.ones(7, dtype=np.uint64)
    doc = np.array([10, 20, 30, 40, 50, 60, 70], dtype=np.uint64)
    shuffle = np.random.default_rng(0).permutation(7)
    rows = bucket[shuffle], doc[shuffle], sig[shuffle]
    u, v, sim, crowded = leader_edges(*rows, max_leaders=2)
    assert sorted(zip(u.tolist(), v.tolist(), strict=True)) == [(10, 40), (20, 50)]
    assert sim.tolist() == [1.0, 1.0]
    assert crowded == 3
    u, v, sim, _ = leader_edges(*rows, verify="none")
    assert set(u.tolist()) == {10}
    assert sorted(v.tolist()) == [20, 30, 40, 50, 60, 70]
    assert sorted(set(sim.tolist())) == [pytest.approx(0.4), 1.0]


def test_buckets_do_not_mix_and_single_ones_are_silent():
    sig = np.zeros((4, 4), dtype=np.uint32)
    u, v, _, _ = leader_edges(np.uint64([1, 2, 2, 3]), np.uint64([5, 6, 7, 8]), sig)
    assert (u.tolist(), v.tolist()) == ([6], [7])
    empty = leader_edges(np.uint64([]), np.uint64([]), sig[:0])
    assert empty[0].size == 0


def test_a_document_twice_in_a_bucket_is_no_edge():
    sig = np.zeros((2, 4), dtype=np.uint32)
    assert leader_edges(np.uint64([1, 1]), np.uint64([5, 5]), sig)[0].size == 0


def test_recall_and_precision_on_labelled_near_duplicates():
    if not NEARDUP.exists():
        pytest.skip(f"labelled near-duplicates not found at {NEARDUP}")
    docs = pq.read_table(NEARDUP / "docs.parquet", columns=["id", "text", "cluster"])
    pairs = pq.read_table(NEARDUP / "pairs.parquet").to_pydict()
    row_of = {doc_id: i for i, doc_id in enumerate(docs["id"].to_pylist())}
    sig, _ = signatures(docs["text"].combine_chunks())
    doc = np.arange(len(sig), dtype=np.uint64)
    keys = band_keys(sig, 14, 8)
    u, v, _, _ = leader_edges(keys.ravel(), np.repeat(doc, 14), np.repeat(sig, 14, axis=0))
    label = doc.copy()
    nodes, roots = connected_components(u, v)
    label[nodes.astype(int)] = roots
    joined = [
        label[row_of[a]] == label[row_of[b]]
        for a, b, j in zip(pairs["id_a"], pairs["id_b"], pairs["jaccard"], strict=True)
        if j >= 0.85
    ]
    cluster = docs["cluster"].to_pylist()
    wrong = sum(cluster[int(a)] != cluster[int(b)] for a, b in zip(u, v, strict=True))
    assert len(joined) > 300
    assert np.mean(joined) > 0.95
    assert wrong == 0
