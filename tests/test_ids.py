"""Identities do not move: known values, no collisions by construction, no hidden state."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.ids import doc_id_for, doc_key, doc_keys, h64, h128, mix64, priorities, rng_for

steady = settings(derandomize=True, deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def test_derived_id_is_the_published_hash_of_its_position() -> None:
    expected = hashlib.sha256(b"arxiv/2024/a.jsonl\n7").hexdigest()[:32]
    assert doc_id_for("arxiv/2024/a.jsonl", 7) == expected


def test_row_and_file_cannot_be_confused() -> None:
    assert doc_id_for("a\n1", 2) != doc_id_for("a", 12)
    assert len({doc_id_for("a", row) for row in range(1000)}) == 1000


def test_key_is_the_big_endian_head_of_sha256() -> None:
    digest = hashlib.sha256("é".encode()).digest()
    assert doc_key("é") == int.from_bytes(digest[:8], "big")


@steady
@given(st.lists(TEXT, max_size=20))
def test_keys_of_many_are_the_keys_of_each(ids: list[str]) -> None:
    keys = doc_keys(ids)
    assert keys.dtype == np.uint64
    assert keys.tolist() == [doc_key(i) for i in ids]


def test_byte_hashes_have_known_values() -> None:
    assert h64(b"") == int.from_bytes(hashlib.blake2b(b"", digest_size=8).digest(), "little")
    assert h128(b"abc") == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
    assert len(h128(b"")) == 32


def test_mix64_is_the_splitmix64_finaliser() -> None:
    # The first outputs of splitmix64 with seed 0 are mix64 of multiples of its increment.
    increment = 0x9E3779B97F4A7C15
    states = np.array([increment, 2 * increment % 2**64], dtype=np.uint64)
    assert mix64(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@steady
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, unique=True), st.integers(0, 2**63 - 1))
def test_priorities_are_a_permutation_of_keys(keys: list[int], seed: int) -> None:
    found = priorities(np.array(keys, dtype=np.uint64), seed)
    assert len(set(found.tolist())) == len(keys)


def test_priorities_depend_on_the_seed() -> None:
    keys = doc_keys([f"d{i}" for i in range(50)])
    assert not np.array_equal(np.argsort(priorities(keys, 1)), np.argsort(priorities(keys, 2)))


@pytest.mark.parametrize("other", [(1, "dedup", "a"), (0, "pack", "a"), (0, "dedup", "b")])
def test_generators_depend_on_seed_system_and_document(other: tuple[int, str, str]) -> None:
    draw = rng_for(0, "dedup", "a").integers(2**62, size=4).tolist()
    assert draw == rng_for(0, "dedup", "a").integers(2**62, size=4).tolist()
    assert draw != rng_for(*other).integers(2**62, size=4).tolist()
