"""What `shadowcat demo` prints works when it is pasted, for clients of both eras; and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import urllib.request
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.demo.programs import Demo, demo
from tests.e2e.python_client import LEGACY, MODERN, application
from tests.e2e.test_inspector import inspector
from tests.rig.wait import soon, until

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

FREE = ("--listen", "127.0.0.1:0")


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Demo]:
    async with demo(tmp_path_factory.mktemp("demo"), *FREE) as found:
        yield found


async def test_the_printed_curl_is_answered(running: Demo) -> None:
    needs.curl()
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", running.pasted("curl"), stdout=PIPE, stderr=PIPE
    )
    async with soon():
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["result"]["content"] == [{"type": "text", "text": "Hello, you!"}]


async def test_who_looks_after_it_is_answered(running: Demo) -> None:
    found = re.search(r"admin page on (http://127\.0\.0\.1:\d+)/", running.printed)
    assert found
    answer = await asyncio.to_thread(urllib.request.urlopen, f"{found[1]}/ready", timeout=20)
    with answer:
        assert answer.status == 200


async def test_the_editors_configuration_names_the_proxy(running: Demo) -> None:
    servers = json.loads(running.pasted("{"))["mcpServers"]
    assert servers == {"shadowcat-demo": {"type": "http", "url": running.url}}


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_printed_inspector_command(running: Demo, tmp_path: Path, era: str) -> None:
    assert running.pasted("npx").split()[2:] == [
        "@modelcontextprotocol/inspector", "--transport", "http", "--server-url", running.url,
    ]  # fmt: skip
    asked = ("--method", "tools/call", "--tool-name", "greet", "--tool-arg", "name=Ada")
    code, shown, complained = await inspector(running.url, tmp_path, "--protocol-era", era, *asked)
    assert (code, complained) == (0, None)
    assert "Hello, Ada!" in json.dumps(shown)


@pytest.mark.parametrize("version", [*LEGACY, MODERN])
async def test_the_official_client(running: Demo, version: str) -> None:
    async with application(running.url, version) as app:
        assert await app.says("greet", name="Ada") == "Hello, Ada!"
        assert await app.says("count", to=3, pause_ms=1) == "Counted to 3."
        assert app.steps == [1, 2, 3]
        assert "Paris" in await app.says("think", question="Which city?")
        if version != "2025-03-26":
            # Elicitation is younger.
            assert await app.says("ask") == "You are Ada."
        assert (await app.call("fail")).is_error
        assert await app.says("sleep", seconds=0) == "Slept for 0 s."
        assert len((await app.client.list_tools()).tools) == 7
        assert len((await app.client.list_prompts()).prompts) == 1
        await resources(app)
        assert app.faults == []


async def resources(app: Any) -> None:
    if not app.is_modern:
        async with soon():
            await app.listens.wait()
        await app.subscribe("demo://note")
    await app.says("note", text=f"by {app.version}")
    if not app.is_modern:
        await app.changed.until(lambda: app.changes)
        assert app.changes[0]["method"] == "notifications/resources/updated"
    read = await app.client.read_resource("demo://note")
    assert read.contents[0].text == f"by {app.version}"


async def test_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    async with demo(tmp_path, *FREE) as running:
        [made] = os.listdir(tmp_path)
        assert made.startswith("shadowcat-demo-")
        code, said = await running.interrupt()
        assert (code, said) == (0, "stopping\n")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)
    assert os.listdir(tmp_path) == []


def _takes(sock: socket.socket, port: int) -> bool:
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen()
    except OSError:
        return False
    return True


async def test_a_taken_port_is_said_and_another_one_used(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Another test that has it now may be over before the demo looks.
        await until(lambda: _takes(taken, 8080))
        async with demo(tmp_path) as running:
            assert running.printed.startswith(
                "port 8080 is taken: using a free one (choose one with --listen)\nserving "
            )
            assert running.port != 8080


async def test_a_state_directory_stays(tmp_path: Path) -> None:
    state = tmp_path / "kept"
    async with demo(tmp_path, *FREE, "--state", str(state)) as running:
        async with application(running.url, "2025-11-25") as app:
            assert await app.says("greet") == "Hello, world!"
        await running.interrupt()
    assert (state / "proxy.db").exists()
