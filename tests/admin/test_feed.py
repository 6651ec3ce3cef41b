"""The feed of what happens: bounded for each viewer, alive when silent, over when the listener closes."""

from __future__ import annotations

import asyncio
import re

import pytest

from shadowcat import Admin
from shadowcat.admin.feed import REMEMBERED, Feed, Viewer
from shadowcat.clock import ManualClock
from shadowcat.proxy.news import News, What
from tests.admin.kit import watched_stand
from tests.rig.client import client_of
from tests.rig.stand import stand
from tests.rig.wait import soon, until


async def test_the_life_of_a_session_is_watched() -> None:
    async with watched_stand() as (rig, operator):
        feed = await operator.ask("/api/events")
        assert (feed.status, feed.kind) == (200, "text/event-stream; charset=utf-8")
        await until(lambda: len(operator.admin._feed) == 1)
        await rig.client.initialize()
        id = rig.client.session_id or ""
        rig.server.restart()
        await rig.client.call()
        await (await operator.ask(f"/api/sessions/{id[:12]}", method="DELETE")).body()
        told = [await feed.message() for _ in range(3)]
        assert [(event["what"], event["session"], event["upstream"], event["reason"]) for event in told] == [
            ("session.opened", id[:12], "a", None),
            ("session.reopened", id[:12], "a", None),
            ("session.ended", id[:12], "a", "operator"),
        ]
        assert {event.event for event in feed.seen if event.data} == {"happening"}
        assert (await operator.metrics())["shadowcat_admin_viewers"] == 1.0
        feed.close()
        await until(lambda: len(operator.admin._feed) == 0)


async def test_it_ends_with_the_listener() -> None:
    async with stand() as rig, Admin(rig.proxy) as admin, client_of(admin.port) as client:
        feed = await client.request("GET", path="/api/events")
        await until(lambda: len(admin._feed) == 1)
        rig.proxy.shared.news.tell(What.STORE_FAILING)
        await admin.aclose()
        assert [event.json["what"] for event in await feed.rest()] == ["store.failing"]


async def test_silence_is_filled() -> None:
    async with watched_stand(admin={"heartbeat_s": 0.01}) as (_, operator):
        feed = await operator.ask("/api/events")
        async with soon():
            while ": keepalive" not in feed._text:
                feed._text += (await feed._piece()).decode()
        feed.close()


async def test_so_many_watch_and_no_more() -> None:
    async with watched_stand(admin={"viewers": 2}) as (_, operator):
        feeds = [await operator.ask("/api/events") for _ in range(2)]
        await until(lambda: len(operator.admin._feed) == 2)
        refused = await operator.ask("/api/events")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert (await refused.json())["reason"] == "too_many_viewers"
        feeds[0].close()
        await until(lambda: len(operator.admin._feed) == 1)
        again = await operator.ask("/api/events")
        assert again.status == 200
        again.close()
        feeds[1].close()


async def test_who_is_behind_loses_the_oldest_and_hears_how_many() -> None:
    viewer = Viewer(limit=2)
    for number in range(5):
        viewer.tell(b"%d" % number)
    assert await viewer.next(1.0) == b'event: dropped\ndata: {"dropped":3}\n\n34'
    viewer.tell(b"5")
    viewer.end()
    assert await viewer.next(1.0) == b"5"
    assert await viewer.next(1.0) is None


async def test_who_takes_nothing_is_cut_and_holds_up_nobody() -> None:
    options = {"stall_s": 0.2, "viewer_events": 1_000}
    async with watched_stand(admin=options) as (rig, operator):
        stuck = await operator.ask("/api/events")
        await until(lambda: len(operator.admin._feed) == 1)
        news = rig.proxy.shared.news
        async with soon():
            # Until the sockets between are full, and then for as long as it takes to be cut.
            while len(operator.admin._feed):
                for _ in range(1_000):
                    news.tell(What.UPSTREAM_TROUBLE, upstream="a" * 500)
                await asyncio.sleep(0)
        stuck.close()
        await rig.client.initialize()


async def test_who_comes_late_is_told_what_happened_before() -> None:
    news = News()
    feed = Feed(news, ManualClock(), "ab", viewers=1, events=1_000)
    for number in range(REMEMBERED + 2):
        news.tell(What.UPSTREAM_TROUBLE, upstream=f"u{number}")
    with feed.watched() as viewer:
        assert feed.is_full
        told = await viewer.next(1.0) or b""
        assert told.startswith(b"event: happening\nid: ab.3\n")
        assert told.count(b"id: ") == REMEMBERED
    feed.close()
    assert not news._listeners


@pytest.mark.parametrize(
    ("last_id", "numbers"),
    [("ab.2", [3]), ("ab.9", []), ("cd.2", [1, 2, 3]), ("ab.x", [1, 2, 3]), ("", [1, 2, 3])],
)
async def test_who_comes_back_is_told_what_it_missed(last_id: str, numbers: list[int]) -> None:
    news = News()
    feed = Feed(news, ManualClock(), "ab", viewers=1, events=1_000)
    for _ in range(3):
        news.tell(What.STORE_WORKS)
    with feed.watched(last_id) as viewer:
        news.tell(What.STORE_FAILING)
        told = await viewer.next(1.0) or b""
    assert [int(id) for id in re.findall(rb"id: ab\.([0-9]+)", told)] == [*numbers, 4]
