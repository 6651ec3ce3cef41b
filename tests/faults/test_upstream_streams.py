"""What goes wrong between proxy and server stays there: the client's stream goes on, or says what became of a call."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.faults.caller import Caller, Tally, caller, callers, seeded
from tests.faults.child import NumbersChild, ProxyChild, proxy_before, tuned_proxy_before
from tests.faults.numbers import CAPABILITIES, CallPlan
from tests.faults.wire import Direction, Plan, wire_to
from tests.rig.wait import soon
from tests.size import sized

pytestmark = pytest.mark.timeout(sized(120, 1200))


async def _outcome(client: Caller, plan: CallPlan, within_s: float = 60.0) -> Tally:
    tally = Tally(plan.label, plan.size)
    await client.gather(await client.call(plan), tally, within_s=within_s)
    return tally


async def test_a_stream_that_the_server_resets_is_resumed_from_its_last_event(
    counting: NumbersChild,
) -> None:
    async with tuned_proxy_before(counting.url) as proxy, callers(proxy.port, sized(4, 20)) as clients:
        plans = [
            CallPlan(
                label=f"call-{index}", count=sized(40, 500), size=100, reset_every=9, tear=index % 2 == 0
            )
            for index in range(len(clients))
        ]
        tallies = await asyncio.gather(
            *(_outcome(client, plan, 600.0) for client, plan in zip(clients, plans, strict=True))
        )
        for plan, tally in zip(plans, tallies, strict=True):
            tally.check_result(plan)
        told = await counting.control("tell")
        resumes = sum(plan.count // 9 for plan in plans)
        assert told["counts"]["GET"] == resumes
        assert all(cursor for cursor in told["last_event_ids"])
        found = await proxy.statistics()
        assert (found["reconnects"], found["given_up"], found["opened"]) == (resumes, 0, len(clients))
        # The counters are of the server's connections; the client did not have to come back.
        assert found["client_resumes"] == 0


async def test_a_way_to_the_server_that_breaks_at_random_bytes_loses_nothing(counting: NumbersChild) -> None:
    draws = seeded("way to the server")
    async with wire_to(counting.port) as wire, proxy_before(wire.url) as proxy, caller(proxy.port) as client:

        def plan() -> Plan:
            return Plan(
                down=Direction(reset_at=draws.randrange(2_000, 12_000), slice_bytes=draws.randrange(30, 900))
            )

        call = CallPlan(label="call", count=sized(200, 4_000), size=100, hold_after=2)
        tally = Tally(call.label, call.size)
        hearing = await client.begun(await client.call(call))
        await client.follow(hearing, tally, lambda: tally.number == 2)
        wire.plan = plan
        wire.each(lambda plan: setattr(plan.down, "reset_at", plan.down.forwarded + 4_000))
        await counting.control("release", label=call.label)
        await client.gather(hearing, tally, within_s=600.0)
        call_resumes = await counting.counted("GET")
        assert call_resumes > 2
        tally.check_result(call)


async def test_both_ways_may_break_at_once(counting: NumbersChild) -> None:
    async with (
        wire_to(counting.port) as behind,
        proxy_before(behind.url) as proxy,
        wire_to(proxy.port) as before,
        caller(before.port) as client,
    ):
        call = CallPlan(label="call", count=sized(300, 3_000), pause_s=0.005)
        tally = Tally(call.label)
        hearing = await client.begun(await client.call(call))
        for number in range(50, call.count, 100):
            await client.follow(hearing, tally, lambda number=number: tally.number >= number)
            behind.reset_all()
            before.reset_all()
            hearing = await client.begun(await client.listen_again(tally))
        await client.gather(hearing, tally)
        tally.check_result(call)


async def test_an_outage_of_the_server_passes_unnoticed(counting: NumbersChild) -> None:
    """New connections are refused for a while, too."""
    async with wire_to(counting.port) as wire, proxy_before(wire.url) as proxy, caller(proxy.port) as client:
        call = CallPlan(label="call", count=100, hold_after=50)
        tally = Tally(call.label)
        hearing = await client.begun(await client.call(call))
        await client.follow(hearing, tally, lambda: tally.number == 50)
        await wire.refuse()
        wire.reset_all()
        # Time that passes is the fault itself.
        await asyncio.sleep(sized(1.0, 5.0))
        await wire.accept()
        await counting.control("release", label=call.label)
        await client.follow(hearing, tally)
        tally.check_result(call)


async def test_the_standalone_stream_is_resumed_too(counting: NumbersChild) -> None:
    async with wire_to(counting.port) as wire, proxy_before(wire.url) as proxy, caller(proxy.port) as client:
        tally = Tally(f"standalone {(await counting.control('tell'))['sessions'][0]}")
        hearing = await client.begun(await client.listen())
        await counting.says(lambda told: told["listening"] == 1)
        for number in range(10, sized(40, 400), 10):
            await counting.control("emit", count=5)
            await client.follow(hearing, tally, lambda number=number: tally.number == number - 5)
            # What is said while nobody listens is asked for afterwards.
            wire.reset_all()
            await counting.control("emit", count=5)
            await client.follow(hearing, tally, lambda number=number: tally.number == number)


async def test_an_event_that_the_server_repeats_is_dropped(counting: NumbersChild) -> None:
    async with tuned_proxy_before(counting.url) as proxy, caller(proxy.port) as client:
        plan = CallPlan(label="call", count=sized(40, 400), reset_every=9, replay_last=True)
        tally = await _outcome(client, plan, 600.0)
        tally.check_result(plan)
        found = await proxy.statistics()
        assert found["duplicates"] == found["reconnects"] > 0


@pytest.mark.parametrize("heard", [0, 1, 5])
async def test_a_cut_stream_without_ids_ends_with_an_unknown_outcome(
    proxy: ProxyChild, counting: NumbersChild, heard: int
) -> None:
    async with caller(proxy.port) as client:
        plan = CallPlan(label="call", count=10, ids=False, hold_after=heard)
        tally = Tally(plan.label)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.number == heard and tally.primings == 1)
        at = time.monotonic()
        await counting.control("reset")
        await client.follow(hearing, tally)
        assert time.monotonic() - at < 5.0
        assert tally.response["error"]["code"] == -31004
        assert tally.number == heard
        assert (await client.ask("ping"))["result"] == {}


async def test_a_call_whose_server_dies_before_it_answers_has_an_unknown_outcome(
    proxy: ProxyChild, counting: NumbersChild
) -> None:
    async with caller(proxy.port) as client:
        plan = CallPlan(label="call", count=1, answers_json=True, hold_after=0)
        hearing = await client.call(plan)
        await counting.says(lambda told: plan.label in told["ready"])
        at = time.monotonic()
        await counting.control("reset")
        answer = await client.answered(hearing)
        assert time.monotonic() - at < 5.0
        assert (hearing.status, answer["error"]["code"]) == (200, -31004)
        assert await counting.counted("tools/call") == 1


async def test_fifty_callers_of_a_restarted_server_open_one_session(counting: NumbersChild) -> None:
    # Else the same session is not recovered twice within a second.
    tuned = {"session": {"recovery_gap_s": 0.0}}
    async with tuned_proxy_before(counting.url, **tuned) as proxy, caller(proxy.port) as client:
        assert await counting.counted("initialize") == 1
        for round in range(sized(2, 20)):
            await counting.control("forget")
            at = time.monotonic()
            answers = await asyncio.gather(*(client.ask("tools/list") for _ in range(50)))
            took_s = time.monotonic() - at
            assert all("result" in answer for answer in answers), answers
            assert await counting.counted("initialize") == round + 2
            # The bar is 1 s for the next call.
            assert took_s < 5.0
        assert (await counting.control("tell"))["counts"]["notifications/initialized"] == sized(3, 21)


async def test_a_call_under_way_on_a_restarted_server_ends_and_the_next_goes_on(
    proxy: ProxyChild, counting: NumbersChild
) -> None:
    async with caller(proxy.port) as client:
        plan = CallPlan(label="call", count=10, hold_after=5)
        tally = Tally(plan.label)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.number == 5)
        await counting.control("forget")
        await counting.control("reset")
        at = time.monotonic()
        again = CallPlan(label="again", count=3)
        (await _outcome(client, again)).check_result(again)
        await client.follow(hearing, tally)
        assert time.monotonic() - at < 5.0
        assert "error" in tally.response
        assert "outcome is unknown" in tally.response["error"]["message"]


async def test_a_server_that_came_back_as_less_ends_the_session(
    proxy: ProxyChild, counting: NumbersChild
) -> None:
    async with caller(proxy.port) as client:
        fewer = {name: held for name, held in CAPABILITIES.items() if name != "resources"}
        await counting.control("capabilities", capabilities=fewer)
        await counting.control("forget")
        for _ in range(2):
            hearing = await client.post(client.request("tools/list"))
            async with soon():
                await hearing.head()
            assert hearing.status == 404


# Servers that do not answer.


async def test_a_server_that_never_answers_meets_a_deadline(counting: NumbersChild) -> None:
    async with tuned_proxy_before(counting.url, call={"head_s": 1.0}) as proxy, caller(proxy.port) as client:
        baseline = await proxy.statistics()
        plan = CallPlan(label="call", count=1, never=True)
        answers = await asyncio.gather(*(client.call(plan) for _ in range(20)))
        for hearing in answers:
            answer = await client.answered(hearing)
            assert (hearing.status, answer["error"]["code"]) == (200, -31007)
        assert (await client.ask("ping"))["result"] == {}
        await proxy.says(lambda told: told["tasks"] <= baseline["tasks"])


async def _hangs(client: Caller, wire: Any, how: str) -> Tally:
    plan = CallPlan(label="call", count=10, hold_after=5)
    tally = Tally(plan.label)
    hearing = await client.begun(await client.call(plan))
    await client.follow(hearing, tally, lambda: tally.number == 5)
    wire.black_hole() if how == "black hole" else wire.half_open()
    await client.gather(hearing, tally)
    return tally


@pytest.mark.parametrize("how", ["black hole", "half-open"])
async def test_a_stream_that_goes_silent_is_resumed_on_a_new_connection(
    counting: NumbersChild, how: str
) -> None:
    """The server releases the call only when it is asked again, so the silent connection did not bring the rest."""
    async with (
        wire_to(counting.port) as wire,
        tuned_proxy_before(wire.url, call={"gap_s": 1.0}) as proxy,
        caller(proxy.port) as client,
    ):
        following = asyncio.ensure_future(_hangs(client, wire, how))
        await counting.says(lambda told: told["counts"].get("GET", 0) >= 1)
        await counting.control("release", label="call")
        async with soon():
            tally = await following
        tally.check_result(CallPlan(label="call", count=10))


async def test_a_resumed_stream_that_goes_silent_again_is_noticed_too(counting: NumbersChild) -> None:
    async with (
        wire_to(counting.port) as wire,
        tuned_proxy_before(wire.url, call={"gap_s": 0.5}) as proxy,
        caller(proxy.port) as client,
    ):
        plan = CallPlan(label="call", count=10, hold_after=5)
        tally = Tally(plan.label)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.number == 5)
        for resumes in range(1, sized(3, 6)):
            wire.black_hole()
            await counting.says(lambda told, resumes=resumes: told["counts"].get("GET", 0) >= resumes)
        await counting.control("release", label="call")
        await client.gather(hearing, tally)
        tally.check_result(plan)


async def test_a_server_that_vanished_is_noticed_although_nothing_was_to_be_said(
    counting: NumbersChild,
) -> None:
    options = sized({"upstream_vanished_s": 2.0}, {})
    async with tuned_proxy_before(counting.url, **options) as proxy, caller(proxy.port) as client:
        tally = Tally(f"standalone {(await counting.control('tell'))['sessions'][0]}")
        hearing = await client.begun(await client.listen())
        await counting.says(lambda told: told["listening"] == 1)
        await counting.control("emit", count=2)
        await client.follow(hearing, tally, lambda: tally.number == 2)
        await counting.control("vanish")
        await counting.says(lambda told: told["counts"]["GET"] == 2, within_s=90.0)
        await counting.control("emit", count=2)
        await client.follow(hearing, tally, lambda: tally.number == 4)


async def test_a_frozen_server_holds_up_nobody_elses_end(counting: NumbersChild) -> None:
    async with tuned_proxy_before(counting.url) as proxy:
        async with callers(proxy.port, 2) as (client, other):
            baseline = await proxy.statistics()
            plan = CallPlan(label="call", count=10, hold_after=5)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda: tally.number == 5)
            waiting = await client.post(client.request("tools/list"))
            counting.stop()
            hanging = await client.post(client.request("tools/list"))
            at = time.monotonic()
            status = await client.end()
            assert status == 200
            assert time.monotonic() - at < 15.0
            assert (await other.ask("ping"))["result"] == {}
            waiting.reset()
            hanging.reset()
            await proxy.says(lambda told: told["sessions"] == 1 and told["tasks"] <= baseline["tasks"])
            assert (await other.ask("ping"))["result"] == {}
        at = time.monotonic()
        assert await proxy.end() == 0
        assert time.monotonic() - at < 15.0
        counting.go_on()


async def test_a_proxy_with_calls_to_a_frozen_server_ends_in_time(counting: NumbersChild) -> None:
    drain_s = sized(1.0, 10.0)
    async with tuned_proxy_before(counting.url, drain_s=drain_s) as proxy, callers(proxy.port, 10) as clients:
        for index, client in enumerate(clients):
            plan = CallPlan(label=f"call-{index}", count=10, hold_after=5)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.number == 5)
        counting.stop()
        at = time.monotonic()
        assert await proxy.end() == 0
        # The bar is 5 s beyond what is given to what runs.
        assert time.monotonic() - at < drain_s + 8.0
        counting.go_on()


async def test_a_server_that_sends_a_byte_at_a_time_holds_nobody_up(counting: NumbersChild) -> None:
    async with tuned_proxy_before(counting.url) as proxy, callers(proxy.port, 2) as (slow, quick):
        plan = CallPlan(label="slow", count=3, drip_bytes_per_s=sized(400.0, 20.0))
        tally = Tally(plan.label)
        hearing = await slow.begun(await slow.call(plan))
        following = asyncio.ensure_future(slow.gather(hearing, tally, within_s=120.0))
        for index in range(20):
            fast = CallPlan(label=f"fast-{index}", count=50)
            (await _outcome(quick, fast)).check_result(fast)
        assert not following.done()
        await following
        tally.check_result(plan)


async def test_garbage_ends_its_own_call_only(proxy: ProxyChild) -> None:
    async with callers(proxy.port, 2) as (bad, good):
        plan = CallPlan(label="good", count=200, pause_s=0.002)
        tally = Tally(plan.label)
        following = asyncio.ensure_future(good.gather(await good.call(plan), tally))
        for index in range(10):
            found = await _outcome(bad, CallPlan(label=f"bad-{index}", count=9, garbage_after=5))
            assert found.response["error"]["code"] == -31003
        await following
        tally.check_result(plan)


# Polling.


async def test_a_server_that_closes_politely_is_polled_unnoticed(counting: NumbersChild) -> None:
    async with tuned_proxy_before(counting.url) as proxy, caller(proxy.port) as client:
        plan = CallPlan(
            label="call", count=sized(12, 120), primed=True, close_every=4, retry_ms=500, pause_s=0.01
        )
        tally = await _outcome(client, plan, 300.0)
        tally.check_result(plan)
        assert (tally.primings, tally.retry) == (1, 3_000)
        found = await proxy.statistics()
        assert found["reconnects"] == plan.count // 4
        assert (found["client_resumes"], found["given_up"]) == (0, 0)


async def test_the_server_decides_how_soon_it_is_polled(proxy: ProxyChild, counting: NumbersChild) -> None:
    async with caller(proxy.port) as client:
        plan = CallPlan(label="call", count=sized(1, 5), primed=True, close_every=1, retry_ms=1_500)
        at = time.monotonic()
        tally = await _outcome(client, plan)
        tally.check_result(plan)
        assert time.monotonic() - at >= plan.count * 1.5


async def test_a_server_may_be_polled_in_vain_for_as_long_as_it_asks(counting: NumbersChild) -> None:
    """More often than a broken stream would be asked for: each polite close is the server's wish, not a failure."""
    async with tuned_proxy_before(counting.url) as proxy, caller(proxy.port) as client:
        plan = CallPlan(label="call", count=5, close_every=5, retry_ms=500, silent_polls=sized(10, 40))
        at = time.monotonic()
        tally = await _outcome(client, plan)
        tally.check_result(plan)
        found = await proxy.statistics()
        assert found["reconnects"] == plan.silent_polls + 1
        # At the pace that was asked for.
        assert time.monotonic() - at < 2 * 0.5 * (plan.silent_polls + 1) + 5


# A server without streams.


async def test_a_long_call_is_upgraded_to_a_stream_that_can_be_resumed(counting: NumbersChild) -> None:
    async with (
        proxy_before(counting.url, more=("--upgrade-after", "0.2")) as proxy,
        caller(proxy.port) as client,
    ):
        for index in range(sized(3, 20)):
            plan = CallPlan(label=f"call-{index}", count=0, answers_json=True, hold_after=0)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.primings == 1)
            hearing.reset()
            await counting.control("release", label=plan.label)
            await client.gather(await client.listen(tally.last_id), tally)
            tally.check_result(plan)
        hearing = await client.post(client.request("tools/list"))
        assert "result" in await client.answered(hearing)
        assert hearing.headers["content-type"] == "application/json"


async def test_older_clients_are_not_upgraded(counting: NumbersChild) -> None:
    async with (
        proxy_before(counting.url, more=("--upgrade-after", "0.1")) as proxy,
        caller(proxy.port, "2025-06-18") as client,
        caller(proxy.port) as newer,
    ):
        plan = CallPlan(label="call", count=0, answers_json=True, hold_after=0)
        hearing = await client.call(plan)
        await counting.says(lambda told: plan.label in told["ready"])
        # As long as it takes: a newer client's call that began later is given its stream meanwhile.
        later = CallPlan(label="later", count=0, answers_json=True, hold_after=0)
        (await newer.begun(await newer.call(later))).close()
        for held in (plan, later):
            await counting.control("release", label=held.label)
        assert "result" in await client.answered(hearing)
        assert hearing.headers["content-type"] == "application/json"
