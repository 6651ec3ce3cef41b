"""What passes in the frame of its read, and what is left for the task that follows the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shadowcat.core.correlate import InFlight
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.passing import Passing
from shadowcat.proxy.streams import Stream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from tests.rig.stand import stand

LOG = jsonrpc.notification("notifications/message", {"n": 1})


def progress(token: str) -> Message:
    return jsonrpc.notification("notifications/progress", {"progressToken": token, "progress": 1})


@pytest.fixture
async def core() -> AsyncIterator[SessionCore]:
    async with stand() as rig:
        await rig.client.initialize()
        yield rig.session().core


def passing_of(core: SessionCore, id: int, token: str) -> Passing:
    request = jsonrpc.request(id, "tools/call", {"_meta": {"progressToken": token}})
    entry: InFlight[Stream]
    entry, _ = core.correlator.begin(request)
    return Passing(core, core.book.new(id), request, entry)


async def test_notifications_and_its_own_progress_pass(core: SessionCore) -> None:
    passing = passing_of(core, 1, "mine")
    assert passing.take([LOG, progress("mine"), LOG], b"c") is None
    assert passing.stream.log.last_seq == 3
    assert passing.stream.kept().cursor == b"c"


@pytest.mark.parametrize(
    "message",
    [
        jsonrpc.result(1, {}),
        jsonrpc.request("ask", "elicitation/create"),
        jsonrpc.notification("notifications/cancelled", {"requestId": "ask"}),
        progress("nobody's"),
        progress("another's"),
    ],
)
async def test_the_rest_is_left_with_what_follows_it(core: SessionCore, message: Message) -> None:
    """The progress of another request, too: its answer may have been read, and wait for its task."""
    passing_of(core, 2, "another's")
    passing = passing_of(core, 1, "mine")
    assert passing.take([LOG, message, LOG], b"c") == [message, LOG]
    assert passing.stream.log.last_seq == 1
    # Asked for the rest from there, the upstream would leave out what was not handed on.
    assert passing.stream.kept().cursor is None


async def test_nothing_is_done_twice(core: SessionCore) -> None:
    passing = passing_of(core, 1, "mine")
    rest = passing.take([LOG, progress("nobody's")], b"c")
    assert rest is not None
    assert passing.take(rest, b"c") == rest
    assert passing.stream.log.last_seq == 1


async def test_who_follows_is_told_of_a_log_that_is_full(core: SessionCore) -> None:
    passing = passing_of(core, 1, "mine")
    large = jsonrpc.notification("notifications/message", {"data": "x" * (1 << 20)})
    while (rest := passing.take([large], None)) is None:
        assert passing.stream.log.last_seq < 100
    assert rest == []
    assert passing.stream.log.must_wait
