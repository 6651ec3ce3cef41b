"""Records the calls of one session that pass unchanged.

`Recorder.saw` would record the same in twice as many steps. Here, all that a call does not decide is known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shadowcat.core.exchange import Context
from shadowcat.plugins.recording.gathered import Gathered
from shadowcat.plugins.recording.links import Links
from shadowcat.wire.jsonrpc import RESULT, Message
from shadowcat.wire.mcp import Era

_encode = msgspec.msgpack.Encoder().encode
_OK = 200
"""The status of what has none of its own."""


class RecordedSession:
    """Implements `core.ports.SessionTap`. The tuples are `entry.Entry` and `entry.Facts`.

    They are written out twice: a function for both takes a quarter more for each entry, and calls wait for it.
    """

    __slots__ = (
        "_asked",
        "_gathered",
        "_has_room",
        "_links",
        "_now",
        "_of_errors",
        "_of_requests",
        "_of_results",
        "_twins",
    )

    def __init__(
        self,
        asking: Context,
        gathered: Gathered,
        links: Links,
        has_room: Callable[[Message, Message | None], bool],
        now: Callable[[], float],
    ) -> None:
        """`has_room` is asked about a message, and the request that it answers, where the buffer has no room."""
        self._gathered = gathered
        self._links = links
        self._asked, self._twins = links.asked, links.twins
        self._has_room = has_room
        self._now = now
        known = (asking.era is Era.LEGACY, asking.session_id, asking.upstream, _OK)
        self._of_requests = _encode((True, *known, "request"))
        self._of_results = _encode((False, *known, "result"))
        self._of_errors = _encode((False, *known, "error"))

    def asked(self, request: Message) -> None:
        gathered = self._gathered
        if len(gathered.buffer) > gathered.limit and not self._has_room(request, None):
            return
        gathered.seq = seq = gathered.seq + 1.0
        self._asked[request] = seq
        try:
            gathered.buffer += _encode(
                (
                    seq,
                    self._now(),
                    self._of_requests,
                    None,
                    request.method,
                    request.raw,
                    None,
                    seq,
                )
            )
        except Exception:
            gathered.leave_out()
            self._links.ended(request)
            raise

    def answered(self, answer: Message, request: Message) -> None:
        gathered = self._gathered
        if len(gathered.buffer) > gathered.limit and not self._has_room(answer, request):
            return
        gathered.seq = seq = gathered.seq + 1.0
        linked = self._asked.pop(request, 0.0)
        if self._twins:
            self._links.forget_twin(request)
        try:
            gathered.buffer += _encode(
                (
                    seq,
                    self._now(),
                    self._of_results if answer.kind is RESULT else self._of_errors,
                    linked,
                    "",
                    answer.raw,
                    None,
                    seq,
                )
            )
        except Exception:
            gathered.leave_out()
            raise
