"""The seal that proves to a node that another node admitted a request and passed it on unchanged."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

SEAL_HEADER = b"shadowcat-peer"

MAX_SKEW_S = 120.0
"""How far the clocks of two nodes may be apart. Within it, who can listen in could repeat what he heard."""


def seal(key: bytes, wall: float, parts: Iterable[bytes]) -> bytes:
    """The value of the header: when it was sealed, and the proof that it was by somebody with the key."""
    at = b"%d" % wall
    return at + b"." + _proof(key, at, parts)


def is_sealed(key: bytes, wall: float, parts: Iterable[bytes], value: bytes) -> bool:
    at, _, proof = value.partition(b".")
    if not at.isdigit() or len(at) > 12 or abs(wall - int(at)) > MAX_SKEW_S:
        return False
    return hmac.compare_digest(proof, _proof(key, at, parts))


def _proof(key: bytes, at: bytes, parts: Iterable[bytes]) -> bytes:
    proof = hmac.new(key, at, hashlib.sha256)
    for part in parts:
        # With its length, so that no two lists of parts read the same.
        proof.update(b"%d:" % len(part))
        proof.update(part)
    return proof.hexdigest().encode("ascii")
