"""A proxy with a store that runs short of files, is told another time, or sleeps while another takes its sessions."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests import needs
from tests.faults.caller import Broken, Caller, Event, Hearing, Tally, callers
from tests.faults.child import NumbersChild, ProxyChild
from tests.faults.customers import insist
from tests.faults.numbers import TOOLS, CallPlan
from tests.faults.restarts import kept_proxy_before
from tests.rig.wait import soon
from tests.size import sized

pytestmark = pytest.mark.timeout(sized(120, 600))

MOST_FILES = 256
RECOVERY_S = 5.0
HOURS_S = 2 * 3600
IDLE_S = 12.0


async def _held(client: Caller) -> tuple[CallPlan, Tally]:
    """A call that stands in its middle, heard up to there, and left."""
    plan = CallPlan(label=client.session_id, count=20, hold_after=10)
    tally = Tally(plan.label)
    hearing = await client.begun(await client.call(plan))
    await client.follow(hearing, tally, lambda: tally.number == 10)
    hearing.reset()
    return plan, tally


async def _to_its_end(client: Caller, plan: CallPlan, tally: Tally, counting: NumbersChild) -> None:
    await counting.control("release", label=plan.label)
    await client.gather(await insist(lambda: client.listen(tally.last_id)), tally)
    tally.check_result(plan)


# 33: the clock jumps.


async def test_a_clock_that_jumps_expires_nothing(counting: NumbersChild, store: str, tmp_path: Path) -> None:
    """Ahead under a running proxy, and back while there is none."""
    clock = tmp_path / "faketime"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(needs.libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with (
        kept_proxy_before(counting.url, store, environment=environment, session={"idle_s": IDLE_S}) as proxy,
        callers(proxy.port, 4) as (_, *clients),
    ):
        held = [await _held(client) for client in clients]
        await proxy.written()
        clock.write_text(f"+{HOURS_S}")
        # One is idle for so long by any clock: then the others were looked at, too.
        told = await proxy.child.says(
            lambda told: told["sessions_expired"] > 0 and told["sessions"] <= len(clients)
        )
        assert (told["sessions_expired"], told["sessions"]) == (1, len(clients))
        await _to_its_end(clients[0], *held[0], counting)
        await proxy.kill()
        clock.write_text(f"-{HOURS_S}")
        await proxy.start()
        await _to_its_end(clients[1], *held[1], counting)
        assert _hours_off(proxy.child) == -2
        await proxy.kill()
        clock.write_text("+0")
        await proxy.start()
        await _to_its_end(clients[2], *held[2], counting)
        assert _hours_off(proxy.child) == 0


def _hours_off(proxy: ProxyChild) -> int:
    """By what it says that the time is."""
    said = time.mktime(time.strptime(proxy.errors()[:19], "%Y-%m-%d %H:%M:%S"))
    return round((said - time.time()) / 3600)


# 34: no file can be opened.


@asynccontextmanager
async def _no_files_left(proxy: ProxyChild) -> AsyncIterator[None]:
    """Connections hold them all."""
    pid = proxy.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (MOST_FILES, before[1]))
    hogs: list[socket.socket] = []
    try:
        async with soon():
            # Not all of them are let in, and those are turned away at once.
            while len(hogs) < MOST_FILES or proxy.open_files < MOST_FILES - 1:
                hogs.append(socket.create_connection(("127.0.0.1", proxy.port)))
                await asyncio.sleep(0)
        yield
    finally:
        for hog in hogs:
            hog.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_a_proxy_without_files_says_so_and_recovers(counting: NumbersChild, sqlite_url: str) -> None:
    async with (
        kept_proxy_before(counting.url, sqlite_url) as proxy,
        callers(proxy.port, 2) as (client, other),
        Caller(proxy.port) as late,
    ):
        plan, tally = await _held(client)
        await proxy.written()
        early = [await _connected(proxy.port) for _ in range(4)]
        async with _no_files_left(proxy.child):
            # Each needs a connection to the server of its own, and there are not so many.
            said = await asyncio.gather(*(_ask(other, number, *ends) for number, ends in enumerate(early)))
            assert b" 503 " in b"".join(said) or b"-31005" in b"".join(said), said
        began = time.monotonic()
        await _to_its_end(client, plan, tally, counting)
        assert (await insist(lambda: other.ask("tools/list")))["result"] == TOOLS
        await insist(late.initialize)
        assert time.monotonic() - began <= RECOVERY_S
        for _, writer in early:
            writer.transport.abort()
        await proxy.written()
        await proxy.restart()
        assert (await late.ask("tools/list"))["result"] == TOOLS


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def _ask(
    client: Caller, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    """What there is of an answer at first."""
    plan = CallPlan(label=f"early-{number}", count=2, hold_after=1)
    params = {"name": "count", "arguments": msgspec.to_builtins(plan)}
    body = json.dumps(client.request("tools/call", params))
    writer.write(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\n"
        f"Content-Type: application/json\r\nMcp-Session-Id: {client.session_id}\r\n"
        f"MCP-Protocol-Version: {client.version}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    async with soon():
        head = await reader.readuntil(b"\r\n\r\n")
        return head + await reader.read(10_000)


# 36: the owner sleeps, and wakes when the session is another's.


async def test_an_owner_that_wakes_too_late_is_fenced_off(counting: NumbersChild, store: str) -> None:
    async with (
        kept_proxy_before(counting.url, store) as first,
        kept_proxy_before(counting.url, store) as second,
        callers(first.port, 5) as clients,
    ):
        upstream_ids = (await counting.control("tell"))["sessions"]
        standalone = [Tally(f"standalone {upstream_id}") for upstream_id in upstream_ids]
        asleep = [await client.begun(await client.listen()) for client in clients]
        await counting.control("emit", count=2)
        for client, tally, hearing in zip(clients, standalone, asleep, strict=True):
            await client.follow(hearing, tally, lambda tally=tally: tally.number == 2)
        calls = [await _held(client) for client in clients]
        await first.written()
        first.child.stop()

        for client in clients:
            client.port = second.port
        await counting.control("emit", count=2)
        for client, tally, call in zip(clients, standalone, calls, strict=True):
            await _to_its_end(client, *call, counting)
            awake = await client.begun(await client.listen(tally.last_id))
            await client.follow(awake, tally, lambda tally=tally: tally.number == 4)

        first.child.go_on()
        told = await first.child.says(lambda told: told["sessions"] == 0)
        assert told["sessions_lost"] == len(clients)
        async with soon():
            for hearing in asleep:
                await _heard_to_its_end(hearing)

        # What it had to say was written once, by the one that took over.
        await second.written()
        await second.restart()
        await counting.control("emit", count=1)
        for client, tally, (plan, call) in zip(clients, standalone, calls, strict=True):
            epoch, _ = str(tally.last_id).split(".", 1)
            again = Tally(tally.label, number=1, last_id=f"{epoch}.0.1")
            hearing = await client.begun(await client.listen(again.last_id))
            await client.follow(hearing, again, lambda again=again: again.number == 5)
            again = Tally(plan.label, number=1, last_id=f"{str(call.last_id).rpartition('.')[0]}.1")
            await client.gather(await client.listen(again.last_id), again)
            again.check_result(plan)
        for never in ("DELETE", "notifications/cancelled"):
            assert await counting.counted(never) == 0


# Two that know nothing of each other have one store: whoever had the session finds out as it writes.


@asynccontextmanager
async def _taken_over(
    counting: NumbersChild, store: str
) -> AsyncIterator[tuple[ProxyChild, ProxyChild, Caller]]:
    """A session of the first proxy's that the second has, and the first does not know of that."""
    async with (
        kept_proxy_before(counting.url, store) as first,
        kept_proxy_before(counting.url, store) as second,
        callers(first.port, 1) as (client,),
    ):
        await first.written()
        client.port = second.port
        assert (await client.ask("tools/list"))["result"] == TOOLS
        await second.written()
        client.port = first.port
        yield first.child, second.child, client


@pytest.mark.parametrize("ids", [True, False])
async def test_calls_in_a_session_that_another_took_are_told_so(
    counting: NumbersChild, store: str, ids: bool
) -> None:
    async with _taken_over(counting, store) as (first, second, client):
        whole = await client.call(CallPlan(label="whole", count=1, hold_after=0, answers_json=True))
        await counting.says(lambda told: "whole" in told["ready"])
        streamed = await client.call(CallPlan(label="streamed", count=2, hold_after=1, ids=ids))
        for hearing in (streamed, whole):
            error = (await client.answered(hearing))["error"]
            assert (error["code"], error["data"]["reason"]) == (-31004, "session_taken_over")
        told = await first.says(lambda told: told["sessions"] == 0)
        assert told["sessions_lost"] == 1
        client.port = second.port
        assert (await client.ask("tools/list"))["result"] == TOOLS
        assert await counting.counted("notifications/cancelled") == 0


async def test_who_alternates_between_two_proxies_is_always_answered(
    counting: NumbersChild, store: str
) -> None:
    async with _taken_over(counting, store) as (first, second, client):
        for number in range(8):
            client.port = (first, second)[number % 2].port
            answer = await client.answered(await client.call(CallPlan(label=str(number), count=1)))
            assert answer is not None, f"call {number} was met with silence"
            assert "result" in answer or answer["error"]["code"] == -31004


async def test_ids_of_a_stream_that_another_does_not_know_are_nobodys(
    counting: NumbersChild, store: str
) -> None:
    async with _taken_over(counting, store) as (_, second, client):
        hearing = await client.call(CallPlan(label="lost", count=1))
        await client.begun(hearing)
        async with soon():
            events = [event async for event in _events(hearing)]
        assert events
        client.port = second.port
        # Of the second there is a stream of that number by now.
        await client.answered(await client.call(CallPlan(label="another", count=1)))
        for event in events:
            assert event.id is not None
            again = await client.listen(event.id)
            await client.answered(again)
            assert again.status == 400


async def _events(hearing: Hearing) -> AsyncIterator[Event]:
    while (event := await hearing.event()) is not None:
        yield event


async def _heard_to_its_end(hearing: Hearing) -> None:
    try:
        while await hearing.event() is not None:
            pass
    except Broken:
        pass
