"""A bounded place for messages: what goes when it is full, and what stays."""

from __future__ import annotations

import asyncio

import pytest

from shadowcat.errors import Fault, FaultKind
from shadowcat.upstream.inbox import Inbox
from shadowcat.wire import jsonrpc
from tests.rig.wait import soon


def news(number: int) -> jsonrpc.Message:
    return jsonrpc.notification("n", {"number": number})


async def test_what_came_together_is_read_together() -> None:
    taken: list[Inbox] = []
    inbox = Inbox(taken.append)
    inbox.put(news(1))
    inbox.put(news(2))
    assert len(await anext(inbox)) == 2
    assert taken == [inbox]
    assert len(inbox) == 0


async def test_the_oldest_news_go_and_what_is_waited_for_stays() -> None:
    inbox = Inbox(lambda _: None, max_bytes=5_000)
    inbox.put(jsonrpc.request(1, "question"))
    for number in range(20):
        inbox.put(news(number))
    inbox.put(jsonrpc.result(1, {}))
    assert inbox.is_full
    gone = inbox.shed()
    assert not inbox.is_full
    question, *left, answer = await anext(inbox)
    assert (question.method, answer.is_response) == ("question", True)
    assert [message.params()["number"] for message in left] == list(range(gone, 20))


async def test_its_end_comes_after_what_is_there() -> None:
    inbox = Inbox(lambda _: None)
    inbox.put(news(1))
    inbox.end(Fault(FaultKind.OUTCOME_UNKNOWN))
    inbox.put(news(2))
    assert len(await anext(inbox)) == 1
    with pytest.raises(Fault):
        await anext(inbox)


async def test_a_reader_that_waits_hears_of_the_end() -> None:
    inbox = Inbox(lambda _: None)
    reading = asyncio.create_task(anext(inbox))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    inbox.end()
    with pytest.raises(StopAsyncIteration):
        async with soon():
            await reading


async def test_each_who_asks_gets_a_fault_of_its_own() -> None:
    # One that is raised again and again would gather the frames of all who asked.
    inbox = Inbox(lambda _: None)
    inbox.end(Fault(FaultKind.OUTCOME_UNKNOWN, reason="given_up"))
    raised: list[Fault] = []
    for _ in range(2):
        with pytest.raises(Fault) as caught:
            await anext(inbox)
        raised.append(caught.value)
    assert [fault.reason for fault in raised] == ["given_up"] * 2
    assert raised[0] is not raised[1]


async def test_what_nobody_will_read_is_let_go_of() -> None:
    inbox = Inbox(lambda _: None)
    inbox.put(news(1))
    inbox.drop()
    assert len(inbox) == 0
    with pytest.raises(StopAsyncIteration):
        await anext(inbox)
