"""Short names for sessions. Anyone who has a full id can use the session, so it is never shown."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from shadowcat.proxy.session import Session

HANDLE_CHARS = 12
"""Of 32: what is left out are 80 bits that nobody guesses."""
MIN_CHARS = 8
"""What logs show."""


def handle_of(session_id: str) -> str:
    return session_id[:HANDLE_CHARS]


def named(sessions: Iterable[Session], beginning: str) -> list[Session]:
    """Those whose ids begin like that; a whole id is as good.

    More than a handle and less than the whole is not: what is left out could be guessed a character at a time.
    """
    if len(beginning) < MIN_CHARS:
        return []
    if len(beginning) > HANDLE_CHARS:
        asked = beginning.encode()
        return [session for session in sessions if hmac.compare_digest(session.id.encode(), asked)]
    return [session for session in sessions if session.id.startswith(beginning)]
