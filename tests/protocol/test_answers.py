"""What a client answers to its server's questions is delivered, or the client is not told that it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shadowcat.clock import ManualClock
from shadowcat.proxy import answering
from tests.rig.client import Reply
from tests.rig.server import Call, Stream, holding
from tests.rig.stand import Stand, stand
from tests.rig.wait import soon, until
from tests.rig.wire import Seen

TEXT = {"content": [{"type": "text", "text": "done"}]}


class Asking:
    """A call that asks, and ends when it is told to."""

    def __init__(self, rig: Stand) -> None:
        self._rig = rig
        self._streams: list[tuple[Call, Stream]] = []
        rig.server.handlers["tools/call"] = self._handle

    async def _handle(self, call: Call) -> None:
        stream = await call.stream()
        self._streams.append((call, stream))
        await stream.request("q", "elicitation/create", {})
        await stream.over.wait()

    async def begin(self) -> tuple[Reply, Any]:
        """The reply, and the answer to what it asks."""
        reply = await self._rig.client.begin("tools/call", {"name": "t"}, 1)
        question = await reply.message()
        return reply, {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}

    async def end(self) -> None:
        (call, stream) = self._streams[0]
        await stream.send(call.response(TEXT))


@pytest.fixture
def asking(session: Stand) -> Asking:
    return Asking(session)


def given(session: Stand) -> list[Seen]:
    """The answers that reached the server."""
    return [seen for seen in session.server.requests if seen.method == "POST" and "method" not in seen.json]


def failing(times: int, how: Any) -> Any:
    """Handles answers: so many come to nothing."""
    left = times

    async def handle(call: Call) -> None:
        nonlocal left
        if left:
            left -= 1
            await how(call)
        else:
            await call.seen.respond(202)

    return handle


async def cut(call: Call) -> None:
    call.seen.cut()


async def refuse(call: Call) -> None:
    await call.seen.respond(500)


@pytest.mark.parametrize("times", [1, 3])
async def test_an_answer_is_given_again_when_the_connection_breaks(
    session: Stand, asking: Asking, times: int
) -> None:
    session.server.handlers["answer"] = failing(times, cut)
    reply, answer = await asking.begin()
    assert (await session.client.send(answer)).status == 202
    assert [seen.json["id"] for seen in given(session)] == ["q"] * (times + 1)
    await asking.end()
    assert (await reply.messages())[-1]["result"] == TEXT


async def test_one_that_the_server_refused_can_be_given_again(session: Stand, asking: Asking) -> None:
    session.server.handlers["answer"] = failing(1, refuse)
    _, answer = await asking.begin()
    assert (await session.client.send(answer)).status == 502
    # The question is open, and whoever resumes hears it again.
    assert (await session.client.send(answer)).status == 202
    assert len(given(session)) == 2
    # From then on it is answered.
    assert (await session.client.send(answer)).status == 202
    assert len(given(session)) == 2


async def test_one_that_could_not_be_given_leaves_the_question_open(
    session: Stand, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "GIVEN_UP_AFTER_S", 0.0)
    session.server.handlers["answer"] = failing(1, cut)
    reply, answer = await asking.begin()
    first = reply.seen[0].id
    assert (await session.client.send(answer)).status == 502
    again = await session.client.listen(first)
    assert (await again.message())["id"] == answer["id"]
    assert (await session.client.send(answer)).status == 202


async def test_one_that_comes_twice_is_accepted_when_the_first_has_arrived(
    session: Stand, asking: Asking
) -> None:
    released = asyncio.Event()

    async def accept(call: Call) -> None:
        await call.seen.respond(202)

    session.server.handlers["answer"] = holding(released, accept)
    _, answer = await asking.begin()
    giving = [asyncio.create_task(session.client.send(answer)) for _ in range(2)]
    await until(lambda: given(session))
    # In the store it is as open as it was: another process would still take it.
    assert [asked.client_id for asked in session.session().core.correlator.unanswered()] == [answer["id"]]
    assert not any(task.done() for task in giving)
    released.set()
    async with soon():
        assert [(await task).status for task in giving] == [202, 202]
    assert len(given(session)) == 1
    assert session.session().core.correlator.unanswered() == []


async def test_one_for_a_server_that_forgot_the_session_is_not_accepted(
    session: Stand, asking: Asking
) -> None:
    """Nobody is left who asked."""
    _, answer = await asking.begin()
    session.server.restart()

    async def lost(call: Call) -> None:
        await call.seen.respond(404)

    session.server.handlers["answer"] = lost
    assert (await session.client.send(answer)).status == 502


@pytest.mark.parametrize("how", [cut, refuse])
async def test_word_that_nobody_answered_is_given_again_too(
    how: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never hears of it waits for as long as it can."""
    monkeypatch.setattr(answering, "GIVEN_UP_AFTER_S", 0.0)
    async with stand() as rig:
        clock = rig.proxy.shared.clock = ManualClock()
        await rig.client.initialize()
        asking = Asking(rig)
        rig.server.handlers["answer"] = failing(1, how)
        reply, answer = await asking.begin()
        session = rig.session()
        clock.advance(601.0)
        await session.look_after()
        await until(lambda: len(given(rig)) == 1)
        assert (await reply.message())["method"] == "notifications/cancelled"
        await until(lambda: session.core.correlator.is_unanswered(answer["id"]))
        await session.look_after()
        await until(lambda: len(given(rig)) == 2)
        assert given(rig)[-1].json["error"]["code"] == -31007
        await until(lambda: not session.core.correlator.unanswered())
        assert rig.counters.server_requests_expired == 1
        await asking.end()
        assert [message.get("method") for message in await reply.messages()] == [None]
