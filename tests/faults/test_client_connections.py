"""Connections between client and proxy break in every way; no event is lost, doubled, reordered, torn or foreign."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from typing import Any

import pytest

from shadowcat.core.stream import STREAM_OVERHEAD_BYTES
from tests.faults.caller import Broken, Caller, Hearing, Tally, caller, callers, seeded
from tests.faults.child import NumbersChild, ProxyChild, proxy_before, tuned_proxy_before
from tests.faults.numbers import CallPlan
from tests.faults.wire import Direction, Plan, wire_to
from tests.rig.wait import soon, until
from tests.size import SOAK, sized

pytestmark = pytest.mark.timeout(sized(120, 1200))


async def test_a_stream_cut_at_random_bytes_is_resumed_to_the_event(proxy: ProxyChild) -> None:
    draws = seeded("random bytes")
    cuts = 0
    async with caller(proxy.port) as client:
        for index in range(sized(10, 100)):
            # Long enough for ten cuts and a few more.
            plan = CallPlan(label=f"call-{index}", count=400, size=draws.randrange(200))
            tally = Tally(plan.label, plan.size)
            left = 10

            def breaks(draws: random.Random = draws) -> int | None:
                nonlocal left
                left -= 1
                return draws.randrange(250, 4_000) if left > 0 else None

            hearing = await client.call(plan, breaks_after=draws.randrange(350, 4_000))
            cuts += await client.gather(hearing, tally, breaks=breaks)
            tally.check_result(plan)
    assert cuts >= sized(90, 900)


async def test_an_event_cut_in_its_middle_comes_again_whole(proxy: ProxyChild) -> None:
    """Each byte of a priming event and of the two that follow it is a place to cut."""
    torn = 0
    async with caller(proxy.port) as client:
        for cut in range(0, 480, sized(11, 1)):
            plan = CallPlan(label=f"call-{cut}", count=3, size=40)
            tally = Tally(plan.label, plan.size)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.number == 1)
            # Heads are all as long.
            again = await client.listen(tally.last_id, breaks_after=hearing.head_bytes + cut)
            await client.begun(again)
            with pytest.raises(Broken):
                await client.follow(again, tally)
            torn += again.has_part_of_an_event
            await client.gather(await client.listen(tally.last_id), tally)
            tally.check_result(plan)
            hearing.close()
    assert torn > sized(20, 300)


async def test_connections_that_trickle_in_slices_and_break_lose_nothing(proxy: ProxyChild) -> None:
    draws = seeded("slices")

    def plan() -> Plan:
        return Plan(
            down=Direction(
                slice_bytes=draws.randrange(1, 40), reset_at=draws.randrange(600, 3_000), latency_s=0.0005
            )
        )

    async with wire_to(proxy.port) as wire, caller(wire.port) as client:
        wire.plan = plan
        for index in range(sized(3, 30)):
            call = CallPlan(label=f"call-{index}", count=60, size=20)
            tally = Tally(call.label, call.size)
            while True:
                try:
                    await client.gather(await client.call(call), tally)
                    break
                except AssertionError:
                    # The head itself did not get through, so there is no id yet: it is another call then.
                    assert tally.last_id is None
            tally.check_result(call)


async def test_a_client_behind_a_narrow_line_gets_everything_and_holds_nobody_up(proxy: ProxyChild) -> None:
    async with wire_to(proxy.port) as wire, caller(wire.port) as narrow, caller(proxy.port) as wide:
        wire.plan = lambda: Plan(down=Direction(bytes_per_s=200_000, slice_bytes=1_400))
        plan = CallPlan(label="narrow", count=200, size=sized(1_000, 10_000))
        tally = Tally(plan.label, plan.size)
        hearing = await narrow.begun(await narrow.call(plan))
        following = asyncio.ensure_future(narrow.gather(hearing, tally))
        other = CallPlan(label="wide", count=200, size=plan.size)
        tally_of_other = Tally(other.label, other.size)
        await wide.gather(await wide.call(other), tally_of_other)
        tally_of_other.check_result(other)
        assert not following.done()
        await following
        tally.check_result(plan)


async def test_a_call_whose_client_is_gone_is_not_cancelled_and_its_result_waits(
    proxy: ProxyChild, counting: NumbersChild
) -> None:
    async with caller(proxy.port) as client:
        for index in range(sized(20, 100)):
            plan = CallPlan(label=f"call-{index}", count=5, hold_after=index % 5 + 1)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.primings == 1)
            hearing.reset()
            await counting.control("release", label=plan.label)
            await client.gather(await client.listen(tally.last_id), tally)
            tally.check_result(plan)
    assert await counting.counted("tools/call") == sized(20, 100)
    assert await counting.counted("notifications/cancelled") == 0


async def test_a_result_that_was_written_but_never_read_comes_again(proxy: ProxyChild) -> None:
    async with wire_to(proxy.port) as wire, caller(wire.port) as client:
        for index in range(sized(20, 100)):
            plan = CallPlan(label=f"call-{index}", count=10, size=100)
            tally = Tally(plan.label, plan.size)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.primings == 1)
            wire.half_open()
            # The proxy's side of the stream ends: all of it was written, to somebody who hears nothing.
            first = wire.passages[-1]
            await client.gather(await client.listen(tally.last_id), tally)
            tally.check_result(plan)
            first.reset()
            hearing.reset()


async def test_the_newest_connection_of_a_stream_takes_over_from_a_half_open_one(proxy: ProxyChild) -> None:
    async with wire_to(proxy.port) as wire, caller(wire.port) as client:
        for index in range(sized(5, 50)):
            plan = CallPlan(label=f"call-{index}", count=1_000_000, pause_s=0.01)
            tally = Tally(plan.label)
            old = await client.begun(await client.call(plan))
            await client.follow(old, tally, lambda tally=tally: tally.number >= 3)
            wire.half_open()
            at = time.monotonic()
            new = await client.begun(await client.listen(tally.last_id))
            seen = tally.number
            await client.follow(new, tally, lambda tally=tally, seen=seen: tally.number > seen)
            # The bar is 0.2 s.
            assert time.monotonic() - at < 2.0
            wire.heal()
            # What was under way to the old one ends, and the end is a proper one.
            stale = Tally(plan.label, number=tally.number, last_id=tally.last_id)
            async with soon():
                while (event := await old.event()) is not None:
                    stale.others.append(event)
            await client.follow(new, tally, lambda tally=tally, seen=seen: tally.number > seen + 10)
            new.close()


async def test_the_newest_standalone_stream_takes_over(proxy: ProxyChild, counting: NumbersChild) -> None:
    async with wire_to(proxy.port) as wire, caller(wire.port) as client:
        tally = Tally(f"standalone {(await counting.control('tell'))['sessions'][0]}")
        old = await client.begun(await client.listen())
        await counting.says(lambda told: told["listening"] == 1)
        await counting.control("emit", count=3)
        await client.follow(old, tally, lambda: tally.number == 3)
        wire.half_open()
        await counting.control("emit", count=3)
        new = await client.begun(await client.listen(tally.last_id))
        await counting.control("emit", count=3)
        await client.follow(new, tally, lambda: tally.number == 9)
        wire.heal()
        await _ends(old)
        assert (await counting.control("tell"))["listening"] == 1


async def test_of_two_resumes_of_one_stream_only_the_newer_goes_on(proxy: ProxyChild) -> None:
    async with caller(proxy.port) as client:
        for index in range(sized(5, 50)):
            plan = CallPlan(label=f"call-{index}", count=1_000_000, pause_s=0.002)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.number == 2)
            hearing.reset()
            cursor = tally.last_id
            first, second = await asyncio.gather(client.listen(cursor), client.listen(cursor))
            await asyncio.gather(client.begun(first), client.begun(second))
            tallies = [
                Tally(plan.label, number=tally.number, last_id=cursor),
                Tally(plan.label, number=tally.number, last_id=cursor),
            ]
            winner = await _survivor(client, [first, second], tallies)
            live, stale = tallies[winner], tallies[1 - winner]
            hearing = (first, second)[winner]
            await client.follow(hearing, live, lambda live=live, seen=live.number: live.number > seen + 5)
            # What the loser was given, the winner was given too: the stream lives on one connection only.
            assert stale.number < live.number
            hearing.close()


async def _survivor(client: Caller, hearings: list[Hearing], tallies: list[Tally]) -> int:
    """Which of them does not end."""
    reading = [
        asyncio.ensure_future(client.follow(hearing, tally))
        for hearing, tally in zip(hearings, tallies, strict=True)
    ]
    try:
        async with soon():
            done, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        ended = done.pop()
        ended.result()
        return 1 - reading.index(ended)
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def _ends(hearing: Hearing) -> None:
    async with soon():
        while await hearing.event() is not None:
            pass


async def test_clients_that_all_lose_their_connection_at_once_are_all_back_soon(proxy: ProxyChild) -> None:
    count = sized(100, 500)
    async with wire_to(proxy.port) as wire, callers(wire.port, count) as clients:
        plans = [CallPlan(label=f"call-{index}", count=8, hold_after=4) for index in range(count)]
        tallies = [Tally(plan.label) for plan in plans]

        async def begin(client: Caller, plan: CallPlan, tally: Tally) -> None:
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda: tally.number == 2)
            hearing.close()

        async def come_back(client: Caller, tally: Tally) -> None:
            hearing = await client.begun(await client.listen_again(tally))
            await client.follow(hearing, tally, lambda: tally.number == 4)

        everyone = list(zip(clients, plans, tallies, strict=True))
        await asyncio.gather(*(begin(*one) for one in everyone))
        wire.reset_all()
        at = time.monotonic()
        async with soon(30):
            await asyncio.gather(*(come_back(client, tally) for client, _, tally in everyone))
        # The bar is 10 s for 500.
        assert time.monotonic() - at < 20.0


async def test_a_proxy_that_stood_still_loses_nothing(proxy: ProxyChild) -> None:
    async with caller(proxy.port) as client:
        plan = CallPlan(label="call", count=2_000, pause_s=0.001, size=200)
        tally = Tally(plan.label, plan.size)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.number == 50)
        proxy.stop()
        # Time that passes is the fault itself.
        await asyncio.sleep(sized(1.5, 5.0))
        hearing.reset()
        again = await client.listen(tally.last_id)
        proxy.go_on()
        await client.gather(again, tally)
        tally.check_result(plan)


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26"])
async def test_only_the_newest_legacy_clients_get_a_first_event_without_data(
    proxy: ProxyChild, version: str
) -> None:
    async with caller(proxy.port, version) as client:
        plan = CallPlan(label="call", count=3)
        tally = Tally(plan.label)
        await client.gather(await client.call(plan), tally)
        tally.check_result(plan)
        is_newest = version == "2025-11-25"
        assert tally.primings == is_newest
        assert tally.retry == (3_000 if is_newest else None)


async def test_a_client_that_has_heard_nothing_resumes_from_the_first_event(
    proxy: ProxyChild, counting: NumbersChild
) -> None:
    async with caller(proxy.port) as client:
        plan = CallPlan(label="call", count=3, hold_after=0)
        tally = Tally(plan.label)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.primings == 1)
        assert tally.number == 0
        hearing.reset()
        await counting.control("release", label=plan.label)
        await client.gather(await client.listen(tally.last_id), tally)
        tally.check_result(plan)


# Cursors.


async def _error(client: Caller, cursor: str) -> tuple[int, Any, float]:
    at = time.monotonic()
    hearing = await client.listen(cursor)
    async with soon():
        await hearing.head()
        if hearing.headers["content-type"] == "text/event-stream":
            event = await hearing.message()
            assert await hearing.message() is None
        else:
            event = json.loads(await hearing.body())
    return hearing.status, event, time.monotonic() - at


async def test_a_cursor_that_names_nothing_here_is_refused(proxy: ProxyChild) -> None:
    async with callers(proxy.port, 2) as (mine, other):
        plan = CallPlan(label="call", count=3)
        tallies = [Tally(plan.label), Tally(plan.label)]
        for client, tally in zip((mine, other), tallies, strict=True):
            await client.gather(await client.call(plan), tally)
        theirs = tallies[1].last_id
        own = tallies[0].last_id
        assert own is not None
        assert theirs is not None
        epoch, stream, _ = own.rsplit(".", 2)
        for junk in (
            theirs,
            f"{epoch}.99.1",
            f"x{epoch[1:]}.{stream}.1",
            "junk",
            "1",
            f"{own}.1",
            f"{epoch}.{stream}.-1",
            f"{epoch}.{stream}.1e1",
            f"{epoch}.{stream}." + "9" * 40,
            "../../etc/passwd",
            "*",
            "x" * 257,
        ):
            status, answer, took_s = await _error(mine, junk)
            assert status == 400, junk
            assert answer["error"]["code"] in (-31001, -32600), answer
            assert "result" not in answer
            assert took_s < 2.0


async def test_a_cursor_of_the_future_gets_an_error_for_the_call(proxy: ProxyChild) -> None:
    async with caller(proxy.port) as client:
        plan = CallPlan(label="call", count=3)
        tally = Tally(plan.label)
        await client.gather(await client.call(plan), tally)
        assert tally.last_id is not None
        future = re.sub(r"\d+$", "1000", tally.last_id)
        status, answer, took_s = await _error(client, future)
        assert (status, answer["error"]["code"]) == (200, -31001)
        assert answer["id"] == tally.response["id"]
        # The bar is 0.2 s.
        assert took_s < 2.0


async def test_a_cursor_whose_events_were_let_go_gets_an_error_for_the_call(counting: NumbersChild) -> None:
    async with (
        tuned_proxy_before(counting.url, log={"bytes": 64 * 1024}) as proxy,
        caller(proxy.port) as client,
    ):
        plan = CallPlan(label="call", count=2_000, size=500)
        tally = Tally(plan.label, plan.size)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.number == 3)
        early = tally.last_id
        assert early is not None
        await client.follow(hearing, tally)
        tally.check_result(plan)
        status, answer, took_s = await _error(client, early)
        assert (status, answer["error"]["code"], answer["id"]) == (200, -31001, tally.response["id"])
        assert took_s < 2.0
        found = await proxy.statistics()
        assert (found["gaps"], found["client_resumes"]) == (1, 1)


async def test_a_stream_that_is_too_old_gets_an_error_for_the_call(counting: NumbersChild) -> None:
    async with (
        tuned_proxy_before(counting.url, log={"age_s": 0.2}) as proxy,
        caller(proxy.port) as client,
    ):
        plan = CallPlan(label="call", count=3)
        tally = Tally(plan.label)
        await client.gather(await client.call(plan), tally)
        assert tally.last_id is not None
        await proxy.says(lambda told: told["held_bytes"] <= STREAM_OVERHEAD_BYTES)
        status, answer, _ = await _error(client, tally.last_id)
        assert (status, answer["error"]["code"], answer["id"]) == (200, -31001, tally.response["id"])


async def test_an_answer_larger_than_the_log_is_there_for_a_client_that_was_away(
    counting: NumbersChild,
) -> None:
    async with (
        tuned_proxy_before(counting.url, log={"bytes": 64 * 1024}) as proxy,
        caller(proxy.port) as client,
    ):
        plan = CallPlan(label="call", count=2, size=60_000, hold_after=0)
        tally = Tally(plan.label, plan.size)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.primings == 1)
        hearing.reset()
        await counting.control("release", label=plan.label)
        await counting.says(lambda told: told["written"][plan.label] == 3)
        await client.gather(await client.listen(tally.last_id), tally)
        tally.check_result(plan)


async def test_what_is_finished_makes_room_for_what_is_live(counting: NumbersChild) -> None:
    async with (
        tuned_proxy_before(counting.url, log={"bytes": 64 * 1024}) as proxy,
        caller(proxy.port) as client,
    ):
        old = CallPlan(label="old", count=1, size=60_000)
        tally_of_old = Tally(old.label, old.size)
        await client.gather(await client.call(old), tally_of_old)
        plan = CallPlan(label="call", count=20, size=500, pause_s=0.005)
        tally = Tally(plan.label, plan.size)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.number == 1)
        cursor = tally.last_id
        assert cursor is not None
        await client.follow(hearing, tally)
        again = Tally(plan.label, plan.size, number=1, last_id=cursor)
        await client.gather(await client.listen(cursor), again)
        again.check_result(plan)
        assert tally_of_old.last_id is not None
        status, answer, _ = await _error(client, re.sub(r"\d+$", "1", tally_of_old.last_id))
        assert (status, answer["error"]["code"]) == (200, -31001)


async def test_a_standalone_stream_that_cannot_be_resumed_starts_afresh_and_says_so(
    counting: NumbersChild,
) -> None:
    async with (
        tuned_proxy_before(counting.url, log={"bytes": 64 * 1024}) as proxy,
        caller(proxy.port) as client,
    ):
        assert "result" in await client.ask("resources/subscribe", {"uri": "count:1"})
        session = (await counting.control("tell"))["sessions"][0]
        tally = Tally(f"standalone {session}", 1_000)
        hearing = await client.begun(await client.listen())
        await counting.says(lambda told: told["listening"] == 1)
        await counting.control("emit", count=1_000, size=1_000)
        await client.follow(hearing, tally, lambda: tally.number == 3)
        early = tally.last_id
        await client.follow(hearing, tally, lambda: tally.number == 1_000)
        hearing.reset()
        afresh = await client.begun(await client.listen(early))
        told: set[str] = set()
        async with soon():
            while len(told) < 3:
                told.add((await afresh.message())["method"])
        assert told == {
            "notifications/tools/list_changed",
            "notifications/resources/list_changed",
            "notifications/resources/updated",
        }
        assert (await proxy.statistics())["gaps"] == 1


# Who is gone for good.


async def test_clients_that_vanished_without_a_word_are_reaped(counting: NumbersChild) -> None:
    """Their machines neither answer nor say goodbye. The proxy learns of it because it speaks into the silence."""
    count = sized(30, 200)
    options = {
        # Longer than it takes to open them all.
        "session": {"idle_s": sized(5.0, 30.0), "linger_s": 0.5},
        "log": {"age_s": 1.0},
        **sized({"server": {"vanished_s": 1.0}, "endpoint": {"keepalive_s": 0.2}}, {}),
    }
    async with tuned_proxy_before(counting.url, **options) as proxy:
        async with caller(proxy.port) as first:
            assert await first.end() == 200
        baseline = await proxy.says(lambda told: told["sessions"] == told["connections"] == 0)
        files = proxy.open_files
        async with callers(proxy.port, count) as clients:
            for index, client in enumerate(clients):
                hearing = await client.begun(await client.listen())
                if index % 2:
                    plan = CallPlan(label=f"call-{index}", count=3, pause_s=0.01)
                    await client.gather(await client.call(plan), Tally(plan.label))
                hearing.vanish()
            assert (await proxy.statistics())["sessions"] == count
            # The bar is 90 s.
            await proxy.says(lambda told: told["sessions"] == told["connections"] == 0, within_s=90.0)
        found = await proxy.says(lambda told: told["tasks"] == baseline["tasks"])
        assert found["held_bytes"] == 0
        assert found["sessions_expired"] == count
        if SOAK:
            # Idle connections to the server are kept for a few seconds.
            await until(lambda: proxy.open_files <= files + 5)
        assert (await counting.control("tell"))["sessions"] == []


async def test_the_upstreams_standalone_stream_opens_with_the_clients_first_and_lingers(
    counting: NumbersChild,
) -> None:
    async with (
        tuned_proxy_before(counting.url, session={"linger_s": 1.0}) as proxy,
        caller(proxy.port) as client,
    ):
        plan = CallPlan(label="call", count=3)
        await client.gather(await client.call(plan), Tally(plan.label))
        assert await counting.counted("GET") == 0
        tally = Tally(f"standalone {(await counting.control('tell'))['sessions'][0]}")
        hearing = await client.begun(await client.listen())
        await counting.says(lambda told: told["listening"] == 1)
        await counting.control("emit", count=2)
        await client.follow(hearing, tally, lambda: tally.number == 2)
        hearing.reset()
        # While it lingers nothing is lost.
        await counting.control("emit", count=2)
        hearing = await client.begun(await client.listen(tally.last_id))
        await client.follow(hearing, tally, lambda: tally.number == 4)
        assert await counting.counted("GET") == 1
        hearing.reset()
        await counting.says(lambda told: told["listening"] == 0)
        hearing = await client.begun(await client.listen(tally.last_id))
        await counting.says(lambda told: told["listening"] == 1)
        await counting.control("emit", count=2)
        await client.follow(hearing, tally, lambda: tally.number == 6)


async def test_the_command_line_reaps_idle_sessions(counting: NumbersChild) -> None:
    async with (
        proxy_before(counting.url, more=("--session-idle", "1")) as proxy,
        caller(proxy.port) as client,
    ):
        await counting.says(lambda told: told["sessions"] == [])
        hearing = await client.post(client.request("ping"))
        async with soon():
            await hearing.head()
        assert hearing.status == 404
