"""Waiting for a server comes to an end when all is over, also for who begins to wait only then."""

from __future__ import annotations

import asyncio

import pytest

from shadowcat.errors import Fault
from shadowcat.proxy.ending import Running
from tests.rig.wait import happens, soon


async def forever(begun: asyncio.Event) -> None:
    begun.set()
    await asyncio.Event().wait()


async def test_who_waits_is_told() -> None:
    running, begun = Running(), asyncio.Event()
    waiting = asyncio.create_task(running.until(forever(begun)))
    await happens(begun)
    running.end()
    with pytest.raises(Fault) as caught:
        async with soon():
            await waiting
    assert caught.value.reason == "proxy_stopped"


async def test_who_comes_later_does_not_begin_to_wait() -> None:
    running, begun = Running(), asyncio.Event()
    running.end()
    with pytest.raises(Fault) as caught:
        async with soon():
            await running.until(forever(begun))
    assert caught.value.reason == "proxy_stopped"
    assert not begun.is_set()
