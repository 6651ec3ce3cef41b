"""A child: what it gets, what is heard of it, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shadowcat.errors import Fault, FaultKind
from shadowcat.upstream.command import Command
from shadowcat.upstream.process import Line, Listener, Patience, Process, Status
from shadowcat.wire.lines import OversizedLine
from tests.rig.children import QUICK, is_gone, speaker
from tests.rig.wait import soon, until


class Heard:
    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.gone = asyncio.Event()

    def take(self, lines: Sequence[Line]) -> None:
        self.lines += lines

    @property
    def listener(self) -> Listener:
        return Listener(self.take, self.gone.set)

    @property
    def messages(self) -> list[Any]:
        return [json.loads(line) for line in self.lines if isinstance(line, bytes)]


@asynccontextmanager
async def running(
    command: Command, patience: Patience = QUICK, **options: Any
) -> AsyncIterator[tuple[Process, Heard]]:
    heard = Heard()
    process = Process(command, "child", heard.listener, patience, **options)
    await process.start()
    try:
        yield process, heard
    finally:
        await process.stop()
    assert process.status() is Status.EXITED
    await is_gone(process.pid)


def script(code: str) -> Command:
    return Command((sys.executable, "-c", code))


def calls(name: str, **arguments: Any) -> bytes:
    params = {"name": name, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode() + b"\n"


async def test_what_a_child_gets(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PROXY", "canary")
    monkeypatch.setenv("LC_TIME", "C")
    command = Command(
        (*speaker().argv, "$HOME; *"), {"API_KEY": "given", "PATH": os.environ["PATH"]}, str(tmp_path)
    )
    async with running(command) as (process, heard):
        await process.write(calls("env"))
        await until(lambda: heard.lines)
        got = json.loads(heard.messages[0]["result"]["content"][0]["text"])
    assert got["argv"] == ["$HOME; *"]
    assert got["cwd"] == str(tmp_path)
    assert (got["env"]["API_KEY"], got["env"]["LC_TIME"]) == ("given", "C")
    assert "SECRET_OF_THE_PROXY" not in got["env"]


async def test_a_group_of_its_own_and_real_pipes() -> None:
    command = Command(("sh", "-c", "echo heard >/dev/stderr; echo $(ps -o pgid= -p $$) $$; cat"))
    async with running(command) as (process, heard):
        await until(lambda: heard.lines and process.stderr_tail)
        group, pid = (int(word) for word in heard.lines[0].split())  # type: ignore[union-attr]
        assert group == pid == process.pid
        assert process.stderr_tail == "heard"
        assert process.status() is Status.RUNNING
        assert process.is_healthy()


@pytest.mark.parametrize(
    "command",
    [Command(("no-such-program",)), Command(("cat",), cwd="/no/such/place"), Command(("c\0at",))],
    ids=["program", "directory", "name"],
)
async def test_a_command_that_cannot_be_started(command: Command) -> None:
    open_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Fault) as caught:
        await Process(command, "child", Heard().listener).start()
    assert (caught.value.kind, caught.value.reason) == (FaultKind.UPSTREAM_UNAVAILABLE, "command_not_started")
    assert not caught.value.sent
    assert len(os.listdir("/proc/self/fd")) == open_files


async def test_its_last_words_come_before_its_end() -> None:
    async with running(script("print('one'); print('no newline', end='')")) as (process, heard):
        async with soon():
            await heard.gone.wait()
        assert heard.lines == [b"one", b"no newline"]
        assert await process.exits_within(5)
        assert process.ending() == "exit code 0"
        with pytest.raises(Fault, match="ended"):
            await process.write(b"too late\n")


async def test_a_child_that_closes_its_output_is_over() -> None:
    async with running(script("import os,time; os.close(1); time.sleep(3600)")) as (process, heard):
        async with soon():
            await heard.gone.wait()
        assert process.is_over
        assert process.status() is Status.RUNNING
        assert not process.is_healthy()


async def test_a_child_whose_grandchild_holds_its_output_is_over() -> None:
    async with running(Command(("sh", "-c", "sleep 3600 & exit 4"))) as (process, heard):
        async with soon():
            await heard.gone.wait()
        assert process.ending() == "exit code 4"


async def test_lines_that_are_too_long_cost_only_themselves() -> None:
    code = "print('a'); print('b' * 5000); print('c', flush=True); input()"
    async with running(script(code), max_line_bytes=1000) as (_, heard):
        await until(lambda: len(heard.lines) == 3)
        assert heard.lines[0::2] == [b"a", b"c"]
        assert isinstance(heard.lines[1], OversizedLine)
        assert heard.lines[1].size == 5000


async def test_stderr_is_read_whatever_comes_and_cannot_forge_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "shadowcat.child")
    async with running(speaker()) as (process, heard):
        await process.write(calls("stderr", text="\x1b[2Jred\r2026 ERROR forged\u2028\u202e\x00\n"))
        await process.write(calls("stderr", text="x" * 100 + "\n", times=50_000))
        await process.write(calls("stderr", text="y" * 100_000 + "\n"))
        await until(lambda: len(heard.lines) == 3)
        await until(lambda: "y" in process.stderr_tail)
        await process.write(calls("stderr", text="╭───╮\n│ in a box │\n╰───╯\n"))
        await until(lambda: process.stderr_tail.endswith(" | in a box"))
        assert len(process.stderr_tail) < 20_000
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"child[{process.pid}]: \\x1b[2Jred\\r2026 ERROR forged\\u2028\\u202e\\x00"
    assert len(said) < 1_000
    assert any("are left out" in line for line in said)
    assert not any(ord(letter) < 32 for line in said for letter in line)


async def test_a_child_that_does_not_read_hangs_nobody() -> None:
    async with running(speaker()) as (process, heard):
        await process.write(calls("deaf"))
        await until(lambda: heard.lines)
        line = b"x" * 100_000 + b"\n"

        async def fill() -> None:
            for _ in range(100):
                await process.write(line)

        with pytest.raises(Fault, match="does not read") as caught:
            await fill()
        assert (caught.value.reason, caught.value.sent) == ("command_does_not_read", False)
        assert not process.is_healthy()
        # Others wait for their turn, and no longer than that one did.
        faults = await asyncio.gather(*(process.write(line) for _ in range(20)), return_exceptions=True)
        assert {fault.reason for fault in faults if isinstance(fault, Fault)} == {"command_does_not_read"}


async def test_stop_is_gentle_first() -> None:
    at_its_leisure = Patience(3600, 3600)
    async with running(script("import sys; sys.stdin.read(); print('bye')"), at_its_leisure) as (process, _):
        async with soon():
            await process.stop()
        assert process.ending() == "exit code 0"


@pytest.mark.parametrize(
    ("flags", "ending"),
    [(["--stays"], "killed by SIGTERM"), (["--stays", "--ignores-term"], "killed by SIGKILL")],
    ids=["term", "kill"],
)
async def test_stop_gets_rougher(flags: list[str], ending: str) -> None:
    async with running(speaker("--banner", *flags)) as (process, heard):
        await until(lambda: heard.lines)
        await process.stop()
        assert process.ending() == ending


async def test_stop_can_be_hurried() -> None:
    async with running(speaker("--banner", "--stays"), Patience(3600, 3600)) as (process, heard):
        await until(lambda: heard.lines)
        patient = asyncio.create_task(process.stop())
        await asyncio.sleep(0)
        async with soon():
            await process.stop(QUICK)
            await patient


@pytest.mark.parametrize("by", ["stop", "crash"])
async def test_grandchildren_go_too(by: str) -> None:
    async with running(speaker("--grandchild")) as (process, heard):
        await until(lambda: process.stderr_tail)
        grandchild = int(process.stderr_tail.split()[1])
        if by == "crash":
            await process.write(calls("die"))
            async with soon():
                await heard.gone.wait()
        await process.stop()
        await is_gone(grandchild)


async def test_a_start_that_is_given_up_leaves_nothing() -> None:
    for turns in range(6):
        process = Process(speaker(), "child", Heard().listener)
        starting = asyncio.create_task(process.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            if process.pid:
                await is_gone(process.pid)
        else:
            await process.stop(QUICK)


async def test_a_child_does_not_outlive_us(tmp_path: Any) -> None:
    code = (
        "import asyncio\n"
        "from shadowcat.upstream.process import Listener, Process\n"
        "from shadowcat.upstream.command import Command\n"
        "async def main():\n"
        "    nothing = Listener(lambda lines: None, lambda: None)\n"
        "    process = Process(Command(('sleep', '3600')), 'c', nothing)\n"
        "    await process.start()\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        async with soon():
            pid = int(await parent.stdout.readline())
    finally:
        parent.kill()
        await parent.communicate()
    await is_gone(pid)
