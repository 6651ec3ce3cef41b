"""Who is slow stops who is fast, holds up nobody else, and costs no memory; whatever stdin and stdout are."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.children import SPEAKER
from tests.rig.wait import soon, until
from tests.stdio.editor import call, editor, forwarded, forwarding, line

MIB = 1024 * 1024


def memory_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def is_idle(pid: int) -> None:
    """Has not used a hundredth of a second for a while."""
    last, same = -1, 0
    async with soon():
        while same < 20:
            await asyncio.sleep(0.01)
            now = cpu_of(pid)
            last, same = now, same + 1 if now == last else 0


async def test_a_client_that_does_not_read() -> None:
    async with forwarded() as client:
        await client.initialize()
        before = memory_of(client.process.pid)
        transport = client.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        transport.pause_reading()
        await client.send(call(1, "flood", count=3_000, size=30_000))
        await is_idle(client.process.pid)
        assert memory_of(client.process.pid) - before < 8 * MIB
        transport.resume_reading()
        for number in range(3_000):
            assert (await client.message())["params"]["data"].startswith(f"{number} ")
        assert (await client.message())["id"] == 1


async def test_a_command_that_does_not_read(tmp_path: Path) -> None:
    code = "import sys\nopen(sys.argv[1]).read()\nfor line in sys.stdin: sys.stdout.write(line); sys.stdout.flush()"
    fifo = tmp_path / "go on"
    os.mkfifo(fifo)
    async with editor(*forwarding(sys.executable, "-c", code, str(fifo))) as client:
        sent = line({"method": "a", "params": {"x": "y" * 1_000}})
        client.stdin.write(sent * 20_000)
        await is_idle(client.process.pid)
        assert memory_of(client.process.pid) < 60 * MIB
        # A message the other way is not held up; there is none here, so: the command is let go on.
        await asyncio.to_thread(fifo.write_text, "")
        for _ in range(20_000):
            assert await client.line() == sent
        assert await client.end() == (0, b"", b"")


async def test_a_stderr_that_nobody_reads_holds_up_nobody() -> None:
    reads, writes = os.pipe()
    try:
        async with asyncio.timeout(60):
            process = await asyncio.create_subprocess_exec(
                *forwarding(sys.executable, SPEAKER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=writes,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(call(1, "stderr", text="x" * 1023 + "\n", times=8 * 1024) + call(2, "pid"))
            assert json.loads(await process.stdout.readline())["id"] == 1
            assert json.loads(await process.stdout.readline())["id"] == 2
            assert memory_of(process.pid) < 60 * MIB
            process.stdin.close()
            assert await process.wait() == 0
    finally:
        os.close(reads)
        os.close(writes)


async def test_a_stderr_that_is_read_slowly_gets_all_of_it() -> None:
    async with forwarded() as client:
        transport = client.process._transport.get_pipe_transport(2)  # type: ignore[attr-defined]
        transport.pause_reading()
        await client.send(call(1, "stderr", text="x" * 1023 + "\n", times=2 * 1024))
        await until(lambda: memory_of(client.process.pid))
        transport.resume_reading()
        assert (await client.message())["id"] == 1
        _, _, err = await client.end()
        assert len(err) == 2 * MIB


@pytest.mark.parametrize("stdout", ["file", "pipe"])
def test_files_as_stdin_and_stdout(stdout: str, tmp_path: Path) -> None:
    asked, answered = tmp_path / "asked", tmp_path / "answered"
    asked.write_bytes(b"".join(call(number, "echo", text="x" * 1_000) for number in range(500)))
    with asked.open("rb") as source, answered.open("wb") as sink:
        run = subprocess.run(
            forwarding(sys.executable, SPEAKER),
            stdin=source,
            stdout=sink if stdout == "file" else subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=30,
        )
    got = run.stdout if stdout == "pipe" else answered.read_bytes()
    assert [json.loads(answer)["id"] for answer in got.splitlines()] == list(range(500))
    assert (run.returncode, run.stderr) == (0, b"")


def test_a_terminal_is_left_as_it_was() -> None:
    ours, theirs = pty.openpty()
    try:
        run = subprocess.run(
            forwarding(sys.executable, SPEAKER, "--banner"),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            timeout=30,
        )
        assert (run.returncode, os.get_blocking(theirs)) == (0, True)
        assert b"Welcome" in os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_closed_stdin() -> None:
    shell = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *forwarding(sys.executable, SPEAKER)], capture_output=True, timeout=30
    )
    assert shell.returncode == 0, shell.stderr
