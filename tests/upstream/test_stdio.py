"""A command as an upstream, without a proxy: what a link and an exchange give and raise."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shadowcat.core.breaker import RestartPolicy
from shadowcat.core.exchange import Answer
from shadowcat.errors import Fault, FaultKind
from shadowcat.upstream.command import Command
from shadowcat.upstream.starter import StartLimits
from shadowcat.upstream.stdio import StdioLimits, StdioLink, StdioUpstream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message
from tests.rig.children import children, is_gone, quick, runs, speaker, tool
from tests.rig.wait import soon, until

INITIALIZE = jsonrpc.request(0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})


@asynccontextmanager
async def upstream(
    *flags: str, command: Command | None = None, **options: Any
) -> AsyncIterator[StdioUpstream]:
    options.setdefault("limits", StdioLimits(channel=quick()))
    found = StdioUpstream("speaker", command or speaker(*flags), **options)
    try:
        yield found
    finally:
        async with soon():
            await found.aclose()
        assert found.processes == 0
        await until(lambda: not children())


async def opened(found: StdioUpstream) -> StdioLink:
    link, answer = await found.open(INITIALIZE)
    assert (answer.id, answer.kind) == (0, Kind.RESULT)
    await link.send(jsonrpc.notification("notifications/initialized"))
    return link


def call(name: str, id: Any = 1, /, **arguments: Any) -> Message:
    return jsonrpc.request(id, "tools/call", tool(name, **arguments))


def said(message: Message) -> Any:
    return json.loads(message.result()["content"][0]["text"])


async def whole(asking: Any) -> Message:
    async with soon():
        answer: Answer = await asking
    assert answer.whole is not None
    return answer.whole


async def refused(asking: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        async with soon():
            await asking
    return caught.value


async def batches(answer: Answer) -> list[Message]:
    assert answer.stream is not None
    async with soon():
        return [message async for batch in answer.stream for message in batch]


# Legacy.


async def test_an_answer_that_comes_first_is_whole() -> None:
    async with upstream() as found:
        link = await opened(found)
        answer = await whole(link.exchange(call("echo", 5, x=1)))
        assert (answer.id, said(answer)) == (5, {"x": 1})
        heard = said(await whole(link.exchange(call("heard_so_far", 6))))
        assert [message.get("method") for message in heard][:2] == ["initialize", "notifications/initialized"]


async def test_what_comes_before_the_answer_makes_it_a_stream() -> None:
    async with upstream() as found:
        link = await opened(found)
        request = jsonrpc.request(5, "tools/call", tool("count", token="t", to=3))
        *steps, last = await batches(await link.exchange(request))
        assert [step.params() for step in steps] == [{"progressToken": "t", "progress": n} for n in (1, 2, 3)]
        assert (last.id, last.kind) == (5, Kind.RESULT)


async def test_each_session_has_a_process() -> None:
    async with upstream() as found:
        one, two = await opened(found), await opened(found)
        pids = [said(await whole(link.exchange(call("pid")))) for link in (one, two)]
        assert len(set(pids)) == found.processes == 2
        await one.end()
        await is_gone(pids[0])
        assert runs(pids[1])
        fault = await refused(one.exchange(call("pid")))
        assert fault.kind is FaultKind.UPSTREAM_SESSION_LOST


async def test_spares_are_ready_before_they_are_asked_for() -> None:
    async with upstream(spares=2) as found:
        await opened(found)
        await until(lambda: found.processes == 3)
        await opened(found)
        await until(lambda: found.processes == 4)


@pytest.mark.parametrize("is_known", [False, True], ids=["unnoticed", "noticed"])
async def test_a_spare_that_died_is_not_handed_out(is_known: bool) -> None:
    async with upstream(spares=1) as found:
        link = await opened(found)
        await until(lambda: found.processes == 2)
        [spare] = children() - {said(await whole(link.exchange(call("pid"))))}
        _kill(spare)
        if is_known:
            await until(lambda: found.counters.crashed == 1)
        link = await opened(found)
        assert said(await whole(link.exchange(call("echo", x=1)))) == {"x": 1}


def _kill(pid: int) -> None:
    """Until it is dead, and without a turn of the loop, in which that would be heard of."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def test_kinds_of_sessions_that_share_are_bounded_and_make_room() -> None:
    def asking(kind: int) -> Message:
        params = {"protocolVersion": "2025-11-25", "capabilities": {"experimental": {str(kind): {}}}}
        return jsonrpc.request(0, "initialize", params)

    async with upstream(shared=True, limits=StdioLimits(shared_processes=3, channel=quick())) as found:
        links = [(await found.open(asking(kind)))[0] for kind in range(3)]
        again, _ = await found.open(asking(1))
        assert found.counters.started == 3
        fault = await refused(found.open(asking(3)))
        assert (fault.kind, fault.reason) == (FaultKind.OVER_CAPACITY, "too_many_processes")
        await links[1].end()
        assert (await refused(found.open(asking(3)))).reason == "too_many_processes"
        # The last of its kind, and only that makes room.
        await again.end()
        await found.open(asking(3))
        assert found.counters.started == 4
        for link in (links[0], links[2]):
            assert said(await whole(link.exchange(call("pid"))))


async def test_a_link_to_an_earlier_life_is_lost() -> None:
    async with upstream() as found:
        link = found.attach(None, "2025-11-25")
        for use in (link.exchange(call("pid")), link.send(call("pid")), link.listen()):
            assert (await refused(use)).kind is FaultKind.UPSTREAM_SESSION_LOST
        await link.end()


async def test_a_crash_is_told_at_once_and_then_the_link_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    async with upstream() as found:
        link = await opened(found)
        waiting = asyncio.create_task(link.exchange(call("hold", 1, key="k")))
        listening = await link.listen()
        assert listening is not None
        # The one that waits is at the server by then.
        await whole(link.exchange(call("pid", 4)))
        loop = asyncio.get_running_loop()
        before = loop.time()
        fault = await refused(link.exchange(call("die", 2, text="the disk is full\n")))
        assert (fault.kind, fault.reason, fault.sent) == (FaultKind.OUTCOME_UNKNOWN, "command_ended", True)
        assert (await refused(waiting)).kind is FaultKind.OUTCOME_UNKNOWN
        assert loop.time() - before < 1.0
        with pytest.raises(StopAsyncIteration):
            await anext(listening)
        assert (await refused(link.exchange(call("pid", 3)))).kind is FaultKind.UPSTREAM_SESSION_LOST
        await until(lambda: "last on stderr: the disk is full" in caplog.text)
        assert "exit code 3" in caplog.text
        assert await opened(found)


async def test_cancelling_reaches_the_server_under_its_own_id() -> None:
    async with upstream() as found:
        link = await opened(found)
        waiting = asyncio.create_task(link.exchange(call("hold", 7, key="k")))
        await whole(link.exchange(call("pid", 8)))
        await link.send(jsonrpc.notification("notifications/cancelled", {"requestId": 7, "reason": "r"}))
        await link.send(jsonrpc.notification("notifications/cancelled", {"requestId": 99}))
        waiting.cancel()
        await asyncio.wait([waiting])
        heard = said(await whole(link.exchange(call("heard_so_far", 9))))
        held = next(message for message in heard if message.get("params", {}).get("name") == "hold")
        cancelled = [message["params"] for message in heard if message["method"] == "notifications/cancelled"]
        assert cancelled == [{"requestId": held["id"], "reason": "r"}]


async def test_a_silent_call_has_a_deadline_and_is_cancelled() -> None:
    async with upstream() as found:
        link = await opened(found)
        # Not before: a start may take as long as it likes.
        [channel] = found._channels
        patient, channel._limits = channel._limits, quick(call_s=0.1)
        fault = await refused(link.exchange(call("hold", 7, key="k")))
        assert (fault.kind, fault.reason, fault.sent) == (FaultKind.DEADLINE, "head", True)
        channel._limits = patient
        heard = said(await whole(link.exchange(call("heard_so_far", 9))))
        assert heard[-2]["method"] == "notifications/cancelled"


async def test_a_call_whose_server_waits_for_the_client_is_not_silent() -> None:
    async with upstream() as found:
        link = await opened(found)
        asking = (await link.exchange(call("ask", 7, id="q"))).stream
        assert asking is not None
        async with soon():
            [question] = await anext(asking)
            assert question.id == "q"
            [channel] = found._channels
            patient, channel._limits = channel._limits, quick(call_s=0.1)
            fault = await refused(link.exchange(call("hold", 8, key="k")))
            assert fault.reason == "head"
            channel._limits = patient
            await link.send(jsonrpc.result("q", {"roots": []}))
            [answer] = await anext(asking)
        assert (answer.id, said(answer)) == (7, {"result": {"roots": []}})


# Starts that fail.


@pytest.mark.parametrize(
    ("flags", "kind", "reason", "told"),
    [
        (["--exits"], FaultKind.UPSTREAM_UNAVAILABLE, "command_ended", "exit code 7"),
        (["--mute"], FaultKind.UPSTREAM_UNAVAILABLE, "command_did_not_answer", "within 0 s"),
        (["--nonsense"], FaultKind.UPSTREAM_INVALID, "upstream_protocol_version", "invalid"),
    ],
)
async def test_a_start_that_fails(flags: list[str], kind: FaultKind, reason: str, told: str) -> None:
    async with upstream(*flags, limits=StdioLimits(channel=quick(), initialize_s=0.4)) as found:
        fault = await refused(found.open(INITIALIZE))
        assert (fault.kind, fault.reason) == (kind, reason)
        assert told in fault.message
        await until(lambda: found.processes == 0)


async def test_the_last_words_are_for_the_log_and_not_for_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "shadowcat.upstream")
    async with upstream("--exits") as found:
        fault = await refused(found.open(INITIALIZE))
        await until(lambda: found.processes == 0)
        # Whoever opens says it, once.
        assert [record.getMessage() for record in caplog.records if "ended" in record.getMessage()] == []
        cause = "last on stderr: cannot read \\x1b[31mmy\\r settings | with a second line"
        assert str(fault.__cause__) == cause
        assert "settings" not in json.dumps(fault.error())


async def test_a_command_that_does_not_exist() -> None:
    async with upstream(command=Command(("no-such-program",))) as found:
        for use in (found.open(INITIALIZE), found.exchange(call("pid"), ())):
            fault = await refused(use)
            assert (fault.kind, fault.reason) == (FaultKind.UPSTREAM_UNAVAILABLE, "command_not_started")
            assert "no-such-program" not in json.dumps(fault.error())


async def test_a_refusal_is_an_answer_and_keeps_no_process() -> None:
    async with upstream("--refuses") as found:
        _, answer = await found.open(INITIALIZE)
        assert answer.error()["message"] == "not you"
        await until(lambda: found.processes == 0)


async def test_an_opening_that_is_given_up_keeps_no_process() -> None:
    async with upstream("--mute") as found:
        opening = asyncio.create_task(found.open(INITIALIZE))
        await until(lambda: found.processes)
        opening.cancel()
        await asyncio.wait([opening])
        await until(lambda: found.processes == 0)


async def test_too_many_processes() -> None:
    async with upstream(limits=StdioLimits(processes=1, channel=quick())) as found:
        link = await opened(found)
        fault = await refused(found.open(INITIALIZE))
        assert (fault.kind, fault.reason) == (FaultKind.OVER_CAPACITY, "too_many_processes")
        await link.end()
        await until(lambda: found.processes == 0)
        await opened(found)


async def test_a_crash_loop_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    start = StartLimits(restart=RestartPolicy(first_s=0.001, cap_s=0.001, failures=5))
    async with upstream("--exits", limits=StdioLimits(channel=quick(), start=start)) as found:
        faults = [await refused(found.open(INITIALIZE)) for _ in range(20)]
        assert found.counters.started == 5
        assert [fault.reason for fault in faults] == ["command_ended"] * 5 + ["command_keeps_failing"] * 15
        assert not any(fault.sent for fault in faults)
        assert caplog.text.count("left alone for a while") == 1


async def test_many_at_once_do_not_start_what_does_not_work() -> None:
    start = StartLimits(restart=RestartPolicy(first_s=0.001, cap_s=0.001, failures=5))
    async with upstream("--exits", limits=StdioLimits(channel=quick(), start=start)) as found:
        await asyncio.gather(*(refused(found.open(INITIALIZE)) for _ in range(50)))
        assert found.counters.started == 5


# What a child says that it should not.


@pytest.mark.case("LL04")
async def test_lines_that_are_no_messages_are_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with upstream("--banner") as found:
        link = await opened(found)
        noise = 'half a {"json\n\n[]\nnull\n\x1b[31m{}\n{"jsonrpc":"2.0"}\n'
        answer = await whole(link.exchange(call("say_raw", raw=noise)))
        assert answer.result()["content"][0]["text"] == "said"
        assert found.counters.garbage_lines == 6
        await whole(link.exchange(call("stderr", text="by the way\n")))
        await until(lambda: "by the way" in caplog.text)
    assert "Welcome to my server!" in caplog.text
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize(
    "garbage",
    [
        '{"jsonrpc":"2.0","id":ID,"result":{"n":NaN}}',
        '{"jsonrpc":"2.0","id":ID,"result":1,"result":2}',
        '{"jsonrpc":"2.0","id":ID,"result":{"method":"x"},"result":2}',
        '{"jsonrpc":"2.0","id":ID,"result":"' + "x" * 17_000_000 + '"}',
        '{"result":"' + "x" * 17_000_000 + '","jsonrpc":"2.0","id":ID}',
    ],
    ids=["nan", "twice", "method-inside", "long", "long-id-last"],
)
async def test_a_broken_answer_ends_its_call_and_nothing_else(garbage: str) -> None:
    async with upstream() as found:
        link = await opened(found)
        fault = await refused(link.exchange(call("garble", raw=garbage)))
        assert (fault.kind, fault.sent) == (FaultKind.UPSTREAM_INVALID, True)
        assert said(await whole(link.exchange(call("echo", 2, x=1)))) == {"x": 1}


async def test_messages_of_ten_megabytes_pass() -> None:
    async with upstream() as found:
        link = await opened(found)
        answer = await whole(link.exchange(call("echo", 2, x="y" * 10_000_000)))
        assert len(answer.raw) > 10_000_000


# Nobody in particular.


async def test_what_is_said_to_nobody_waits_for_a_listener() -> None:
    async with upstream() as found:
        link = await opened(found)
        news = '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n'
        waiting = asyncio.create_task(link.exchange(call("hold", 1, key="k")))
        # Once this is answered the other is under way too: with one call alone the news would be taken for its own.
        await whole(link.exchange(call("pid", 3)))
        await whole(link.exchange(call("say_raw", 2, raw=news)))
        stream = await link.listen()
        assert stream is not None
        async with soon():
            assert [message.method for message in await anext(stream)] == ["notifications/tools/list_changed"]
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_what_waits_for_a_session_goes_with_it() -> None:
    async with upstream() as found:
        link = await opened(found)
        unread = link._party.standalone  # type: ignore[union-attr]
        news = '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n'
        waiting = asyncio.create_task(link.exchange(call("hold", 1, key="k")))
        # Once this is answered the other is under way too: with one call alone the news would be taken for its own.
        await whole(link.exchange(call("pid", 3)))
        await whole(link.exchange(call("say_raw", 2, raw=news)))
        assert len(unread) == 1
        await link.end()
        assert len(unread) == 0
        with pytest.raises(Fault):
            await waiting


async def test_a_ping_is_answered_from_here() -> None:
    async with upstream() as found:
        link = await opened(found)
        answer = await whole(link.exchange(call("ask", method="ping")))
        assert said(answer) == {"result": {}}


async def test_a_flood_that_nobody_reads_is_bounded_and_answers_come_through() -> None:
    async with upstream(limits=StdioLimits(channel=quick(stall_s=0.1))) as found:
        link = await opened(found)
        slow = await link.exchange(jsonrpc.request(1, "tools/call", tool("count", token="t", to=10_000)))
        assert slow.stream is not None
        # Somebody else on the same child, while the first does not read.
        assert said(await whole(link.exchange(call("echo", 2, x=1)))) == {"x": 1}
        left = await batches(slow)
        assert left[-1].is_response
        assert len(left) < 5_000
        assert found.counters.stalls == 1
        assert found.counters.dropped_messages == 10_001 - len(left)
        # The latest are kept.
        assert left[-2].params()["progress"] == 10_000


async def test_a_flood_that_is_read_loses_nothing() -> None:
    async with upstream() as found:
        link = await opened(found)
        got = await batches(await link.exchange(call("flood", 1, count=5_000, size=1_000)))
        assert [int(message.params()["data"].split()[0]) for message in got[:-1]] == list(range(5_000))
        assert found.counters.dropped_messages == 0
