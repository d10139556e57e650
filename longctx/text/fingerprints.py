"""Hashes of what determines the ids of a tokenizer."""

import hashlib


def digest(data: bytes, *rest: object) -> str:
    """32 hex digits over a file and whatever else decides what comes of it."""
    return hashlib.sha256(data + repr(rest).encode()).hexdigest()[:32]
