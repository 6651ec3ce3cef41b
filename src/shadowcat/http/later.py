"""A response that somebody's callback brings, so that nobody has to wait for it in the meantime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from shadowcat.http.message import Response


class Later(msgspec.Struct, eq=False):
    """What a handler returns that knows who will call it: no task is made for its request, and none waits.

    It is settled once: with a whole response, or with something to await for one, which then gets a task after all.
    """

    cancel: Callable[[], object] | None = None
    """Set by who makes it, for the engine to call when the server ends: then it is not settled any more."""
    deliver: Callable[[Response | Awaitable[Response]], object] | None = None
    """Set by the engine."""

    def settle(self, outcome: Response | Awaitable[Response]) -> None:
        """Not before the handler has returned: requests that wait behind this one would be answered in its frame."""
        deliver = self.deliver
        assert deliver is not None
        # Who cancels it is most often who settles it. In a circle both, and the bodies they hold, would stay until the
        # garbage collector comes by.
        self.deliver = self.cancel = None
        deliver(outcome)
