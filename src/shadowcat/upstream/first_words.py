"""A call's answer on an event stream with nothing else on it: how most servers answer a quick call.

Nobody has to follow such a stream. The official SDKs' servers answer every call so unless they are told otherwise: the
head at once, the answer when the tool has run, and then the end.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shadowcat.core.exchange import Answer, Rest
from shadowcat.errors import Fault
from shadowcat.http.incoming import ClientResponse
from shadowcat.upstream.interpret import SSE, media_type
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.sse import SseDecoder, only_message

PATIENCE_S = 0.01
"""How long a client's stream waits for what the server says first. A call that takes longer is worth the task that
follows its stream."""
_WAITS = 2
"""For the answer, and before it for an event without data, from which some servers let a client resume."""


def is_stream(response: ClientResponse) -> bool:
    return response.status == 200 and media_type(response.headers.get(b"content-type")) == SSE


class FirstWords(msgspec.Struct, eq=False):
    """Waits a moment for the first that is said on a stream: the answer, or something that has to be followed."""

    request: Message
    then: Callable[[Answer | Rest[Answer]], object]
    rest: Rest[Answer]
    waits: int = _WAITS
    length: int = -1
    """Of what had come when it began to wait."""

    def heard(self, response: ClientResponse) -> None:
        begun = response.so_far()
        said = None if response.fault is not None else _said(begun)
        is_more = len(begun) > self.length
        if said == [] and is_more and self.waits and not response.complete:
            self.waits -= 1
            self.length = len(begun)
            response.tell_again(self.heard, PATIENCE_S)
            return
        answer = None if said is None or len(said) != 1 else _answer(self.request, said[0])
        if answer is None:
            self.then(self.rest)
            return
        # Nothing of interest follows it.
        response.leave()
        self.then(Answer(whole=answer, came_as_stream=True))


def _said(begun: bytes) -> list[bytes] | None:
    """The messages up to here; None where one is not all here."""
    if not begun:
        return []
    only = only_message(begun)
    if only is not None:
        return [only]
    decoder = SseDecoder()
    try:
        events = decoder.feed(begun)
    except Fault:
        return None
    if decoder.has_begun:
        return None
    return [event.data for event in events if event.data and event.event == b"message"]


def _answer(request: Message, said: bytes) -> Message | None:
    try:
        return jsonrpc.answer_to(request.id, jsonrpc.parse(said))
    except Fault:
        return None
