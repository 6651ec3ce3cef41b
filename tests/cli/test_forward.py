"""`shadowcat forward http`: what it refuses, and that the commands of its page do what the page says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from shadowcat.cli import main
from tests.rig.children import SPEAKER, is_gone, text, tool
from tests.rig.client import ACCEPT, JSON, client_of, rpc
from tests.rig.server import mcp_server
from tests.rig.wait import soon

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "docs/howto/team-server.md", ROOT / "README.md")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--allow-target", "a/b"], "is not HOST or HOST:PORT"),
        (["--allow-target", "a:0"], "is not HOST or HOST:PORT"),
        (["--allow-target", "a", "--", "cat"], "for clients that name the server"),
        (["--allow-target", "a", "--upstream", "http://a/mcp"], "for clients that name the server"),
        (["--shared"], "are for a command"),
        (["--"], "there is no command after --"),
        (
            ["--upstream", "http://a/mcp", "--", "cat"],
            "--upstream already names the server, and 'cat' would be another one",
        ),
        (["--", __file__], "is not an executable program; put its interpreter before it, or chmod +x it"),
        (["--upstream", "http://a/mcp", "--shared"], "are for a command"),
        (["--env", "NAME", "--", "cat"], "a variable is written NAME=VALUE"),
        (["--env", "1=secret", "--", "cat"], "a variable is written NAME=VALUE"),
        (["--cwd", "/no/such/place", "--", "cat"], "does not exist"),
        (["--path", "mcp", "--", "cat"], "--path: 'mcp' is not a path that begins with a slash"),
        (["--", "no-such-program"], "there is no program 'no-such-program'"),
        (["--", "./no-such-program"], "there is no program './no-such-program'"),
        (["--env", "PATH=/", "--", "cat"], "there is no program 'cat'"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], told: str) -> None:
    run = CliRunner().invoke(main, ["forward", "http", *arguments])
    assert (run.exit_code, run.output.splitlines()[-1].startswith("Error: ")) == (2, True), run.output
    assert told in run.output
    assert "secret" not in run.output


def examples(*pages: Path) -> list[str]:
    found = (line for page in pages for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
             for line in block.splitlines())  # fmt: skip
    return sorted({line.removeprefix(".venv/bin/") for line in found if "forward http" in line})


COMMANDS = [line for line in examples(*PAGES) if " -- " in line]
FORWARDS = [line for line in examples(*PAGES, ROOT / "docs/howto/forward-proxy.md") if " -- " not in line]


@asynccontextmanager
async def running(line: str, cwd: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The command, and what it says first; it ends well when it is told to."""
    words = shlex.split(line)
    assert words[:3] == ["shadowcat", "forward", "http"]
    words = [word for word in words[3:] if word not in ("--listen", "127.0.0.1:8080")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "forward", "http", "--listen", "127.0.0.1:0", *words,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with soon():
            said = (await process.stdout.readline()).decode()
        yield process, said
        process.send_signal(signal.SIGINT)
        async with soon():
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("line", COMMANDS)
async def test_an_example_of_the_pages(line: str, tmp_path: Path) -> None:
    shutil.copy(SPEAKER, tmp_path / "my_server.py")
    async with running(line, tmp_path) as (_, said):
        announced = re.match(r"serving http://127\.0\.0\.1:(\d+)/", said)
        assert announced
        async with client_of(int(announced[1])) as client:
            await client.initialize()
            pid = int(text(await client.call(params=tool("pid"))))
    await is_gone(pid)


@pytest.mark.parametrize("line", FORWARDS)
async def test_an_example_of_a_forward_proxy(line: str, tmp_path: Path) -> None:
    async with mcp_server() as server, running(line, tmp_path) as (_, said):
        announced = re.match(r"serving http_proxy=http://127\.0\.0\.1:(\d+) ", said)
        assert announced
        async with client_of(int(announced[1]), server.url) as client:
            fields = [ACCEPT, JSON, ("Host", server.url.split("/")[2])]
            params = {"protocolVersion": "2025-11-25", "capabilities": {}}
            reply = await client.post(rpc("initialize", params, 1), plain=fields)
            assert "result" in await reply.json()
