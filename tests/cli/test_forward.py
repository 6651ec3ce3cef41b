"""`shadowcat forward http`: what it refuses, and that the commands of its page do what the page says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from shadowcat.cli import main
from tests.rig.children import SPEAKER, is_gone, text, tool
from tests.rig.client import client_of
from tests.rig.wait import soon

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "docs/howto/team-server.md", ROOT / "README.md")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give either --upstream or, after --, a command"),
        (["--upstream", "http://a/mcp", "--", "cat"], "give either --upstream or, after --, a command"),
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


def examples() -> list[str]:
    found = (line for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
             for line in block.splitlines())  # fmt: skip
    return sorted({line.removeprefix(".venv/bin/") for line in found if "forward http" in line})


@pytest.mark.parametrize("line", examples())
async def test_an_example_of_the_pages(line: str, tmp_path: Path) -> None:
    shutil.copy(SPEAKER, tmp_path / "my_server.py")
    words = shlex.split(line)
    assert words[:3] == ["shadowcat", "forward", "http"]
    words = [word for word in words[3:] if word not in ("--listen", "127.0.0.1:8080")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "forward", "http", "--listen", "127.0.0.1:0", *words,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with soon():
            announced = re.match(rb"serving http://127\.0\.0\.1:(\d+)/", await process.stdout.readline())
        assert announced
        async with client_of(int(announced[1])) as client:
            await client.initialize()
            pid = int(text(await client.call(params=tool("pid"))))
        process.send_signal(signal.SIGINT)
        async with soon():
            assert await process.wait() == 0
        await is_gone(pid)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
