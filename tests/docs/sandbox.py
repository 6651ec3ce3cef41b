"""Runs the commands of a page one after the other, as a reader would, in a directory and on ports of its own.

What serves goes on until something else takes its port or the page ends; what a page takes for granted (a server that
speaks MCP on the port it names) is there.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Sequence
from pathlib import Path

from tests import needs
from tests.rig.client import client_of
from tests.rig.nginx import free_port
from tests.rig.wait import soon
from tests.stdio.editor import INITIALIZE, line

START_S = 60.0
RUN_S = 330.0
END_S = 30.0

_ADDRESS = re.compile(r"\b(127\.0\.0\.1|0\.0\.0\.0|localhost):(\d{4,5})\b")
_SERVING = re.compile(r"^serving (http_proxy=)?http://[^/\s]+:(\d+)", re.MULTILINE)
_USUAL = {"reverse": "8080", "forward": "8080", "demo": "3000"}
"""Where commands listen that are not told."""

MY_SERVER = """
import sys
from shadowcat.cli import run
sys.argv = ["shadowcat", "demo", "--server", "stdio"]
run()
"""


class Sandbox:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports: dict[str, int] = {}
        self._serving: dict[int, Process] = {}
        self._env = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            # The port of a page is another one here, and with it would be the file that belongs to it.
            "SHADOWCAT_STORE": f"sqlite:///{directory / 'sessions.db'}",
            "PYTHONUNBUFFERED": "1",
        }
        (directory / "my_server.py").write_text(MY_SERVER)
        # What the pages call .venv is this one.
        (directory / ".venv").symlink_to(needs.ROOT / ".venv")

    async def run(self, words: Sequence[str]) -> None:
        words = list(words)
        while words and (found := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
            self._env[found[1]] = found[2]
            words.pop(0)
        words = [self._placed(word) for word in words]
        match [Path(words[0]).name, *words[1:]]:
            case ["make", "demo"]:
                await self._serve(["make", "--no-print-directory", "-C", str(needs.ROOT), "demo"])
            case ["shadowcat", "demo", *rest] if "--crash" not in rest and "stdio" not in rest:
                await self._serve(words)
            case ["shadowcat", "reverse", *_] | ["shadowcat", "forward", "http", *_]:
                await self._provide(words)
                await self._serve(self._listening(words))
            case ["shadowcat", "forward", "stdio", *_]:
                await self._provide(words)
                await self._be_an_editor(words)
            case _:
                if "shadowcat" in words[0]:
                    await self._provide(words)
                await self._run(words)

    async def close(self) -> None:
        for port in tuple(self._serving):
            await self._end(port)

    # Ports.

    def _placed(self, word: str) -> str:
        return _ADDRESS.sub(lambda found: f"127.0.0.1:{self._port(found[2])}", word)

    def _port(self, written: str) -> int:
        if written not in self._ports:
            self._ports[written] = free_port()
        return self._ports[written]

    def _listening(self, words: list[str]) -> list[str]:
        if "--listen" in words:
            return words
        name = words[1]
        at = 3 if name == "forward" else 2
        listen = ("--listen", f"127.0.0.1:{self._port(_USUAL[name])}")
        return [*words[:at], *listen, *words[at:]]

    async def _provide(self, words: Sequence[str]) -> None:
        """A server on each port that is asked for and that nobody serves."""
        if "--" in words:
            words = words[: words.index("--")]
        for word in words:
            for port in map(int, re.findall(r"https?://127\.0\.0\.1:(\d+)/", word)):
                if port not in self._serving:
                    await self._serve(
                        ["shadowcat", "demo", "--server", "http", "--listen", f"127.0.0.1:{port}"]
                    )

    # Programs.

    async def _serve(self, words: list[str]) -> None:
        if words[1] == "demo" and "--server" in words:
            words = self._listening(words)
        listen = words[words.index("--listen") + 1] if "--listen" in words else ""
        if listen and int(listen.rsplit(":", 1)[1]) in self._serving:
            await self._end(int(listen.rsplit(":", 1)[1]))
        process = await self._start(words)
        port, speaks_mcp = await self._announced(process)
        self._serving[port] = process
        if not listen:
            # The whole demo: what the page calls 8080 is where that is.
            self._ports["8080"] = port
        if speaks_mcp:
            async with client_of(port) as client:
                assert "serverInfo" in await client.initialize()

    async def _announced(self, process: Process) -> tuple[int, bool]:
        """Its port, and whether that is an endpoint of MCP itself, and not a proxy for the clients' own URLs."""
        assert process.stdout is not None
        said = ""
        async with soon(START_S):
            while (found := _SERVING.search(said)) is None:
                read = await process.stdout.readline()
                assert read, said
                said += read.decode()
        return int(found[2]), found[1] is None

    async def _end(self, port: int) -> None:
        process = self._serving.pop(port)
        _signal(process, signal.SIGINT)
        await _ended(process, within_s=END_S)
        # make says of itself that it was interrupted.
        assert process.returncode in (0, 2, -signal.SIGINT)

    async def _run(self, words: list[str]) -> None:
        process = await self._start(words)
        said = await _ended(process, within_s=RUN_S)
        assert process.returncode == 0, f"{' '.join(words)}\n{said.decode()}"
        assert b'"error"' not in said, said

    async def _be_an_editor(self, words: list[str]) -> None:
        process = await self._start(words, stdin=PIPE)
        ping = line({"id": 1, "method": "ping"})
        opening = line({"id": 0, "method": "initialize", "params": INITIALIZE})
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(opening + ping)
        said: list[bytes] = []
        try:
            # It leaves when it has its answers: a server that is still starting is ended after five seconds.
            async with soon(START_S):
                while sum(b'"result"' in one for one in said) < 2:
                    said.append(await process.stdout.readline())
                    assert said[-1], said
        finally:
            process.stdin.close()
            await _ended(process, within_s=END_S)
        assert process.returncode == 0, said

    async def _start(self, words: Sequence[str], stdin: int = asyncio.subprocess.DEVNULL) -> Process:
        return await asyncio.create_subprocess_exec(
            *words,
            cwd=self._directory,
            env=self._env,
            stdin=stdin,
            stdout=PIPE,
            stderr=STDOUT,
            # Ctrl-C goes to all that a terminal runs; here, to a group.
            start_new_session=True,
        )


def _signal(process: Process, number: int) -> None:
    if process.returncode is None:
        os.killpg(process.pid, number)


async def _ended(process: Process, written: bytes | None = None, *, within_s: float) -> bytes:
    """What it said, once it is over; one that does not end is killed, with what it started."""
    try:
        async with soon(within_s):
            said, _ = await process.communicate(written)
            return said
    finally:
        if process.returncode is None:
            _signal(process, signal.SIGKILL)
            await process.communicate()
