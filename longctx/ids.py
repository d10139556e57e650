"""Stable identities and the random numbers derived from them.

Everything that must not depend on workers, parts or row order starts here: document ids, their
64-bit keys, hashes of bytes, and per-document generators. No counters, no clock, no global state.
"""

import hashlib

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def doc_id_for(file_uri: str, row: int) -> str:
    """Id of a row that brought none: 32 hex digits of SHA-256 of its position.

    Derived from the position, not the content, so byte-identical copies keep different ids.
    """
    return hashlib.sha256(f"{file_uri}\n{row}".encode()).hexdigest()[:32]


def doc_key(doc_id: str) -> int:
    """64-bit key of a document: the first 8 bytes (big-endian) of SHA-256 of its UTF-8 id."""
    return int.from_bytes(hashlib.sha256(doc_id.encode()).digest()[:8], "big")


def doc_keys(doc_ids: list[str]) -> U64:
    """Keys of many documents, uint64 of shape (len(doc_ids),)."""
    return np.fromiter((doc_key(i) for i in doc_ids), dtype=np.uint64, count=len(doc_ids))


def h64(data: bytes) -> int:
    """BLAKE2b with digest size 8, read as a little-endian uint64."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def h128(data: bytes) -> str:
    """BLAKE2b with digest size 16, as 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def mix64(x: U64) -> U64:
    """The splitmix64 finaliser, element by element (wraps modulo 2^64)."""
    x = np.asarray(x, dtype=np.uint64)
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def priorities(keys: U64, seed: int) -> U64:
    """Seeded pseudo-random priority of each document: every "random" choice takes the smallest."""
    return mix64(np.asarray(keys, dtype=np.uint64) ^ np.uint64(seed))


def rng_for(seed: int, system: str, doc_id: str) -> np.random.Generator:
    """Generator of one document in one system, independent of the order of documents."""
    digest = hashlib.sha256(f"{seed}|{system}|{doc_id}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big")))
