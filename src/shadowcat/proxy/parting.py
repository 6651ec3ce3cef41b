"""How a session leaves this process: because it is over, or to go on in another one.

Whichever it is, who waits for a call is told what became of it before the streams are closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shadowcat.aio import cancel_and_join
from shadowcat.core.correlate import InFlight
from shadowcat.core.session import Event
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.proxy.book import STANDALONE
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.ending import proxy_stopped
from shadowcat.proxy.listening import Listening
from shadowcat.proxy.streams import Stream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method

_CANCEL_S = 2.0
"""How long both ends of a session's requests are given to hear that these end with it."""
_LAST_WORDS_S, _LOOK_S = 5.0, 0.05
"""How long clients are given to hear what became of their requests; how often it is looked whether they have."""
_COMING_BACK_S = 10.0
"""After that long nobody is expected any more: clients that resume are told to do so after three seconds."""
_TAKEN_OVER = "Another process took the session over; the outcome is unknown"
_ENDED = "The session was ended while the call ran; the outcome is unknown"


class Parting:
    __slots__ = ("_core", "_listening")

    def __init__(self, core: SessionCore, listening: Listening) -> None:
        self._core = core
        self._listening = listening

    # As the process ends.

    def stop_listening(self) -> None:
        """Ends the client's standalone stream; what it did not get waits for it."""
        standalone = self._core.book.find(STANDALONE)
        if standalone is not None:
            standalone.part()

    def give_up_what_ends_here(self) -> None:
        """Ends the calls that no other process could go on with: their clients are told so while they listen."""
        for entry in self._ending_here():
            entry.fail(proxy_stopped())

    def _ending_here(self) -> list[InFlight[Stream]]:
        is_kept = self._core.shared.store is not None
        return [
            entry
            for entry in self._core.correlator.in_flight()
            if entry.stream is None or not (is_kept and entry.stream.can_go_on_elsewhere)
        ]

    @property
    def is_at_work(self) -> bool:
        """Whether something runs that no other process could go on with, or whose client has yet to hear the end of it.

        That client listens, or is on its way back: where no store has what it comes for, there is nowhere else for it.
        """
        core = self._core
        if core.book.has_answers_read or self._ending_here():
            return True
        since = core.shared.clock.monotonic() - _COMING_BACK_S
        return core.shared.store is None and core.book.has_answers_unread(since)

    # To another process.

    async def prepare(self) -> None:
        """Leaves the streams where they are, for who goes on with the session."""
        self._core.book.part()
        await self._listening.stop()

    @property
    def waits_for_its_client(self) -> bool:
        """Whether nothing runs that another process could not bring to its end, once the client answers it."""
        core = self._core
        running = [entry.stream for entry in core.correlator.in_flight()]
        return (
            core.visitors == 0
            and bool(core.correlator.unanswered())
            and all(stream is not None and stream.can_go_on_elsewhere for stream in running)
        )

    def taken_over(self) -> None:
        """Another process has it: what that one cannot bring to its end fails here, while its client listens."""
        core = self._core
        core.book.disown()
        fault = Fault(FaultKind.OUTCOME_UNKNOWN, _TAKEN_OVER, reason="session_taken_over", sent=True)
        for entry in core.correlator.in_flight():
            stream = entry.stream
            if stream is not None and stream.is_known_elsewhere and stream.can_go_on_elsewhere:
                stream.part()
                if entry.interrupt is not None:
                    entry.interrupt()
            else:
                entry.fail(fault)
        self.stop_listening()

    async def leave(self) -> None:
        """Once the clients have heard what there is to be heard, or had the time to."""
        await self._listening.stop()
        core = self._core
        await _until(lambda: not core.is_busy, _LAST_WORDS_S)
        await self.suspend()

    async def suspend(self) -> None:
        """The process goes, and the store has what another one needs: nobody is told that anything has ended."""
        await self._listening.stop()
        for entry in self._core.correlator.in_flight():
            if entry.stream is not None and entry.interrupt is not None:
                # Some servers refuse to go on with a stream elsewhere while somebody reads it here.
                entry.interrupt()
        self._core.book.close_all()
        await self._core.link.detach()

    # For good.

    async def end(self, *, tell_upstream: bool) -> None:
        """Ends what runs, for both ends of it, then the streams; and at the upstream what nobody else shares there."""
        core = self._core
        core.happened(Event.ENDED)
        await self._listening.stop()
        telling = [
            core.shared.tasks.spawn(core.notify(cancellation), "cancel")
            for entry in core.correlator.in_flight()
            if (cancellation := _called_off(entry)) is not None
        ]
        if core.is_answering:
            telling.append(
                core.shared.tasks.spawn(_until(lambda: not core.is_answering, _CANCEL_S), "last words")
            )
        if telling:
            _, hanging = await asyncio.wait(telling, timeout=_CANCEL_S)
            await cancel_and_join(hanging, grace_s=1.0)
        # Nor will the server's requests be answered: each holds the stream that it came on.
        core.correlator.lose_upstream()
        # Some of them ask the session what it is: in a circle, all of it would stay.
        core.tap, core.taps_of = core.shared.pipeline.nobody, None
        core.book.close_all()
        if tell_upstream:
            await core.link.end()


def _called_off(entry: InFlight[Stream]) -> Message | None:
    """Ends a request with its session; returns what its server is to hear of that.

    No 404: some clients begin anew on that, and send the request once more, which may have been processed.
    """
    if entry.is_stopped:
        return None
    if entry.is_considered:
        # By interceptors: the server knows nothing of it.
        entry.fail(Fault(FaultKind.SESSION_UNKNOWN))
        return None
    entry.fail(
        Fault(FaultKind.OUTCOME_UNKNOWN, _ENDED, reason="session_ended", side=Side.DOWNSTREAM, sent=True)
    )
    params = {"requestId": entry.upstream_id, "reason": "the session ended"}
    return jsonrpc.notification(Method.CANCELLED, params)


async def _until(true: Callable[[], bool], within_s: float) -> None:
    """For what tells nobody that it happened."""
    for _ in range(round(within_s / _LOOK_S)):
        if true():
            break
        await asyncio.sleep(_LOOK_S)
