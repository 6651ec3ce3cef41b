"""Plays a tape's client to a live server, and reports what the server says differently.

The tape is walked through in order. What the client said is sent; at what the server said, the same is waited for. So
whatever the client had heard before it said something on the tape, it has heard again when it says it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from shadowcat.core.ports import Upstream
from shadowcat.errors import Fault
from shadowcat.replay.options import ReplayOptions
from shadowcat.replay.recorded import RecordedSession, Recording
from shadowcat.replay.walk import SessionWalk, StatelessWalk, Walk
from shadowcat.wire.text import on_one_line

log = logging.getLogger("shadowcat.replay")


class Found(NamedTuple):
    exchanges: int
    differences: int
    uncompared: int
    """Requests whose answers could not be compared."""


class TapeClient:
    def __init__(
        self,
        recording: Recording,
        upstream: Upstream,
        options: ReplayOptions,
        tell: Callable[[str], object],
        *,
        is_command: bool = False,
    ) -> None:
        """`tell` gets a line for each difference, and for what cannot be compared.

        `is_command` says that the server is one: it is started for this, and sees no headers.
        """
        self._recording = recording
        self._upstream = upstream
        self._options = options
        self._tell = tell
        self._is_command = is_command
        self._exchanges = 0
        self._differences = 0
        self._uncompared = 0

    async def run(self) -> Found:
        """One session after the other, then what had none. Raises `Fault` for a server that cannot be reached."""
        for session in self._recording.sessions:
            if session.opening is None:
                log.warning("session %s is left out: its beginning is not on the tape", session.label)
                continue
            await self._walk(SessionWalk, session)
        if self._recording.stateless.steps:
            await self._walk(StatelessWalk, self._recording.stateless)
        return Found(self._exchanges, self._differences, self._uncompared)

    async def _walk(self, kind: type[Walk], session: RecordedSession) -> None:
        walk = kind(
            self._recording,
            session,
            self._upstream,
            self._options,
            self._differs,
            self._is_uncompared,
            is_command=self._is_command,
        )
        try:
            await walk.run()
        except Fault as fault:
            if not walk.is_heard:
                raise
            self._differs(f"session {session.label}: {fault.message}")
        finally:
            self._exchanges += walk.exchanges
            await walk.aclose()

    def _is_uncompared(self, line: str) -> None:
        self._uncompared += 1
        self._tell(on_one_line(line))

    def _differs(self, line: str) -> None:
        self._differences += 1
        self._tell(on_one_line(line))
