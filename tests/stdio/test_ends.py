"""How it ends: by the editor, by a signal, by the command itself; and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys

import pytest

from tests.rig.children import SPEAKER, is_gone, runs
from tests.rig.wait import soon
from tests.stdio.editor import call, editor, forwarded, forwarding, line

READY = "import signal, sys, time\n{}\nprint('ready', file=sys.stderr, flush=True)\n"
WAITS = READY + "time.sleep(3600)"


async def test_the_end_of_stdin_ends_the_command_after_its_answers() -> None:
    async with forwarded() as client:
        pid = await client.child()
        await client.send(call(1, "count", to=3), call(2, "echo"))
        code, out, err = await client.end()
        assert (code, err) == (0, b"")
        assert out.count(b'"id": 2') == 1
        await is_gone(pid)


async def test_what_is_still_running_when_stdin_ends_gets_its_answer() -> None:
    code = (
        'import sys, time\nsys.stdin.read(); time.sleep(0.4)\nprint(\'{"jsonrpc":"2.0","id":1,"result":1}\')'
    )
    async with editor(*forwarding(sys.executable, "-c", code)) as client:
        await client.send(line({"id": 1, "method": "a"}))
        assert await client.end() == (0, b'{"jsonrpc":"2.0","id":1,"result":1}\n', b"")


@pytest.mark.parametrize(
    ("how", "code"), [("sys.exit(5)", 5), ("os.kill(os.getpid(), 9)", 137), ("os.kill(os.getpid(), 15)", 143)]
)
async def test_exit_codes(how: str, code: int) -> None:
    script = f"import os, sys\nsys.stdin.readline()\n{how}"
    async with editor(*forwarding(sys.executable, "-c", script)) as client:
        await client.send(line({"method": "a"}))
        await client.send(line({"id": 1, "method": "b"}))
        answer = await client.message()
        assert answer["error"]["code"] in (-31004, -31005)
        found, _, err = await client.ended()
    assert found == code
    assert b"before it answered anything" in err


async def test_a_command_that_dies_with_calls_under_way() -> None:
    async with forwarded() as client:
        await client.initialize()
        await client.send(call("a", "hold", key="a"), call(7, "die", code=3, text="cannot\ngo on"))
        answers = [await client.message() for _ in range(2)]
        assert [(answer["id"], answer["error"]["code"]) for answer in answers] == [("a", -31004), (7, -31004)]
        assert answers[0]["error"]["data"] == {"reason": "command_ended"}
        code, out, err = await client.ended()
    assert (code, out) == (3, b"")
    last = err.splitlines()[-1].decode()
    assert re.fullmatch(
        r"shadowcat: ERROR: python\S* ended \(exit code 3\) with 2 requests unanswered\. "
        r"Its last words: cannot \| go on",
        last,
    )


async def test_a_call_that_was_cancelled_is_not_waited_for() -> None:
    async with forwarded() as client:
        await client.send(call(1, "hold", key="a"), call(2, "hold", key="b"))
        cancelled = line({"method": "notifications/cancelled", "params": {"requestId": 1}})
        await client.send(cancelled, call(3, "die", code=3))
        assert [(await client.message())["id"] for _ in range(2)] == [2, 3]
        assert (await client.ended())[:2] == (3, b"")


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_command_that_ends_at_once(is_slow: bool) -> None:
    async with editor(*forwarding(sys.executable, SPEAKER, "--exits")) as client:
        if is_slow:
            # It has ended before the client says a word, and the client is answered all the same.
            async with soon():
                await client.stderr.readuntil(b"second line\n")
        answer = await client.initialize()
        assert answer["error"]["code"] in (-31004, -31005)
        assert "ended (exit code 7); " in answer["error"]["message"]
        assert "Its last words: cannot read" in answer["error"]["message"]
        code, out, err = await client.ended()
    assert (code, out) == (7, b"")
    assert b"Is it an MCP server that speaks stdio? Its last words: cannot read" in err


@pytest.mark.parametrize("command", ["no-such-program", "/etc/passwd", "/"])
async def test_a_command_that_cannot_be_started(command: str) -> None:
    async with editor(*forwarding(command)) as client:
        answer = await client.initialize()
        assert answer["error"]["code"] == -31005
        assert answer["error"]["data"] == {"reason": "command_not_started"}
        code, out, err = await client.ended()
    assert (code, out) == (127, b"")
    assert len(err.splitlines()) == 1
    assert b" cannot be started: " in err


async def test_a_client_that_says_nothing_is_not_waited_for_long() -> None:
    async with editor(*forwarding("no-such-program")) as client:
        assert (await client.ended())[0] == 127


async def test_what_is_no_server_at_all() -> None:
    async with editor(*forwarding("echo", "usage: echo [OPTIONS]")) as client:
        assert (await client.initialize())["error"]["code"] in (-31004, -31005)
        code, out, err = await client.ended()
    assert (code, out) == (0, b"")
    dropped, ended = err.decode().splitlines()
    assert dropped.endswith("usage: echo [OPTIONS]")
    assert "echo ended (exit code 0) before it answered anything" in ended


@pytest.mark.parametrize(
    ("number", "handler", "code"),
    [
        (signal.SIGTERM, "", 143),
        (signal.SIGINT, "", 130),
        (signal.SIGHUP, "", 129),
        (signal.SIGTERM, "signal.signal(15, lambda *_: sys.exit(4))", 4),
        (signal.SIGINT, "signal.signal(2, lambda *_: sys.exit(0))", 0),
    ],
)
async def test_a_signal_reaches_the_command(number: signal.Signals, handler: str, code: int) -> None:
    if number is signal.SIGINT and not handler:
        # Without a traceback.
        handler = "signal.signal(2, signal.SIG_DFL)"
    async with editor(*forwarding(sys.executable, "-c", WAITS.format(handler))) as client:
        async with soon():
            await client.stderr.readuntil(b"ready\n")
        client.process.send_signal(number)
        found, out, err = await client.ended()
    assert (found, out, err) == (code, b"", b"")


async def test_a_second_signal_ends_what_ignores_the_first() -> None:
    code = WAITS.format("signal.signal(15, lambda *_: print('heard', file=sys.stderr, flush=True))")
    async with editor(*forwarding(sys.executable, "-c", code)) as client:
        async with soon():
            await client.stderr.readuntil(b"ready\n")
        client.process.terminate()
        async with soon():
            await client.stderr.readuntil(b"heard\n")
        client.process.terminate()
        assert (await client.ended())[0] == 137


async def test_nothing_is_left_of_a_command_that_ignores_everything() -> None:
    async with forwarded("--stays", "--ignores-term", "--grandchild") as client:
        async with soon():
            grandchild = int((await client.stderr.readuntil(b"\n")).split()[1])
        pid = await client.child()
        started = asyncio.get_running_loop().time()
        code, _, _ = await client.end()
        assert asyncio.get_running_loop().time() - started < 14
    assert code == 137
    assert not runs(pid)
    assert not runs(grandchild)


async def test_the_command_dies_with_us() -> None:
    async with forwarded() as client:
        pid = await client.child()
        os.kill(client.process.pid, signal.SIGKILL)
        await is_gone(pid)


async def test_a_client_that_stops_reading_for_good_ends_it() -> None:
    reads, writes = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *forwarding(sys.executable, SPEAKER), stdin=asyncio.subprocess.PIPE, stdout=writes
        )
    finally:
        os.close(writes)
        os.close(reads)
    assert process.stdin is not None
    async with soon():
        assert await process.wait() == 0
    process.stdin.close()


async def test_each_message_is_a_line_at_level_debug() -> None:
    async with forwarded(ours=("--log-level", "debug")) as client:
        await client.initialize()
        await client.call(1, "pid")
        _, _, err = await client.end()
    [asked, answered] = [said for said in err.splitlines() if b" exchange 1 on upstream " in said]
    assert b", to server: <request 'tools/call' id=1 " in asked
    assert b", to client: <result '' id=1 " in answered
