"""The chance of a row depends on what the row is and on nothing else."""

import hashlib

import numpy as np

from longctx.synth.draw import generator, hash_order


def test_generator_is_seeded_by_the_named_digest() -> None:
    digest = hashlib.sha256(b"7|pamqa|shuffle|row-3").digest()[:8]
    expected = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    assert (generator(7, "pamqa", "shuffle", "row-3").random(5) == expected.random(5)).all()


def test_every_part_of_the_name_counts() -> None:
    names = [(7, "a", "b", "c"), (8, "a", "b", "c"), (7, "x", "b", "c"), (7, "a", "x", "c")]
    first = {generator(*name).integers(1 << 62) for name in [*names, (7, "a", "b", "x")]}
    assert len(first) == 5


def test_hash_order_is_a_shuffle_that_more_ids_do_not_change() -> None:
    ids = [f"row-{i}" for i in range(100)]
    order = hash_order(ids, 1, "film", "type")
    assert sorted(order) == sorted(ids)
    assert order != sorted(ids)
    assert hash_order(reversed(ids), 1, "film", "type") == order
    assert [i for i in order if i in set(ids[:50])] == hash_order(ids[:50], 1, "film", "type")
    assert hash_order(ids, 2, "film", "type") != order
