"""A subscription that is ended while somebody waits for more of it."""

from __future__ import annotations

import asyncio

import pytest

from shadowcat.proxy.subscription import Subscription
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message


class Silent:
    """Says nothing."""

    @property
    def cursor(self) -> bytes | None:
        return None

    def __aiter__(self) -> Silent:
        return self

    async def __anext__(self) -> list[Message]:
        await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None: ...


async def read(subscription: Subscription) -> list[Message]:
    return [message async for batch in subscription for message in batch]


async def being_read() -> tuple[Subscription, asyncio.Task[list[Message]]]:
    subscription = Subscription(jsonrpc.request(1, "subscriptions/listen", {}), Silent(), lambda _: None)
    reading = asyncio.create_task(read(subscription))
    await asyncio.sleep(0)
    return subscription, reading


async def test_who_waits_gets_its_end() -> None:
    subscription, reading = await being_read()
    subscription.end()
    subscription.end()
    [end] = await reading
    assert end.id == 1
    assert reading.cancelling() == 0


async def test_who_is_cancelled_besides_is_cancelled() -> None:
    subscription, reading = await being_read()
    subscription.end()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
