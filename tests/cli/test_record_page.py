"""The commands of docs/howto/record-and-replay.md, run as its reader would."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.rig.children import SPEAKER
from tests.rig.client import client_of
from tests.rig.stand import server_process
from tests.rig.wait import soon
from tests.stdio.editor import INITIALIZE, call, line

PAGE = Path(__file__).parents[2] / "docs/howto/record-and-replay.md"
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
TALK = line({"id": 0, "method": "initialize", "params": INITIALIZE}) + call(1, "echo", n=1)


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [command for block in blocks for command in block.splitlines()]


SERVING = [one for one in commands() if "--listen" in one or re.search("reverse|forward http", one)]
OVER_STDIO = [one for one in commands() if "forward stdio" in one or "--stdio" in one]
AGAINST = [one for one in commands() if "--against" in one]
OTHERS = [one for one in commands() if one not in (*SERVING, *OVER_STDIO, *AGAINST)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copy(SPEAKER, tmp_path / "my_server.py")
    return tmp_path


def run(command: str, place: Path, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", command], cwd=place, env=ENVIRONMENT, input=said, capture_output=True, timeout=60
    )


def record(place: Path) -> None:
    done = run("shadowcat forward stdio --record tapes -- python my_server.py", place, TALK)
    assert done.stdout.count(b"\n") == 2, done.stderr


def test_the_page_has_commands_of_each_kind() -> None:
    assert [len(kind) for kind in (SERVING, OVER_STDIO, AGAINST, OTHERS)] == [4, 2, 1, 4]


@pytest.mark.parametrize("command", SERVING)
async def test_what_serves(command: str, place: Path) -> None:
    if "replay" in command:
        await asyncio.to_thread(record, place)
    async with server_process() as (_, url):
        command = command.replace("http://127.0.0.1:3000/mcp", url).replace(" --listen 127.0.0.1:8080", "")
        program, kind, *rest = command.split()
        words = [kind, *rest]
        at = words.index("--") if "--" in words else len(words)
        words[at:at] = ["--listen", "127.0.0.1:0", *(["--store", "memory:"] if kind == "reverse" else [])]
        process = await asyncio.create_subprocess_exec(
            str(BIN / program), *words, cwd=place, env=ENVIRONMENT, stdout=PIPE
        )
        try:
            assert process.stdout is not None
            async with soon(60):
                found = re.search(rb"http://127\.0\.0\.1:(\d+)/", await process.stdout.readline())
            assert found
            async with client_of(int(found[1])) as client:
                await client.initialize()
            process.send_signal(signal.SIGINT)
            async with soon():
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
    # Nothing went wrong that a ring would be written for.
    assert len(list((place / "tapes").glob("*.tape"))) == ("--record-ring" not in command)


@pytest.mark.parametrize("command", OVER_STDIO)
def test_what_speaks_stdio(command: str, place: Path) -> None:
    if "replay" in command:
        record(place)
    done = run(command, place, TALK)
    assert (done.returncode, done.stdout.count(b'"result"')) == (0, 2), done.stderr
    assert len(list((place / "tapes").glob("*.tape"))) == 1


@pytest.mark.parametrize("command", OTHERS)
def test_what_looks_and_compares(command: str, place: Path) -> None:
    record(place)
    done = run(command, place)
    assert done.returncode == 0, done
    assert done.stdout


@pytest.mark.parametrize("command", AGAINST)
async def test_against_another_server(command: str, place: Path) -> None:
    await asyncio.to_thread(record, place)
    async with server_process() as (_, url):
        done = await asyncio.to_thread(run, command.replace("http://127.0.0.1:3000/mcp", url), place)
    assert done.returncode == 1, done.stderr
    assert re.search(rb"initialize /result/\S+: expected .*, got ", done.stdout)
    assert re.search(rb"\n2 requests, \d+ differences?\n$", done.stdout)
