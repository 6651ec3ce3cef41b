"""docs/howto/operate.md, followed word by word, and what else a command line can say of the listener."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import needs
from tests.rig.client import client_of
from tests.rig.server import mcp_server
from tests.rig.wait import soon

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "operate.md").read_text("utf-8")
START, HEALTH, METRICS, LOOK, END, OPEN, WITH_TOKEN, TRACED = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
(SERVING,) = re.findall(r"```\n(serving.*?)```", PAGE, re.DOTALL)
(ENDED,) = re.findall(r"```\n(\{.*?)\n```", PAGE, re.DOTALL)
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BIN = str(Path(sys.executable).parent)


@dataclass(eq=False)
class Running:
    process: asyncio.subprocess.Process
    port: int
    admin: str
    """Its host and port."""

    def on_page(self, command: str) -> str:
        return command.replace("127.0.0.1:9901", self.admin)


@asynccontextmanager
async def started(
    command: str, upstream: str, *, log: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[Running]:
    """The page's command with the page's ports changed: others may run here."""
    command = command.replace("127.0.0.1:8080", "127.0.0.1:0").replace(":9901", ":0")
    command = command.replace("http://127.0.0.1:3000/mcp", upstream)
    # The shell becomes the last command, and a signal to it is a signal to that.
    before, _, last = command.strip().rpartition("\n")
    process = await shell(f"{before}\nexec {last}", stderr=log)
    assert process.stdout is not None
    try:
        async with soon():
            serving = (await process.stdout.readline()).decode()
            looked_after = (await process.stdout.readline()).decode()
        found = re.fullmatch(r"serving http://127\.0\.0\.1:(\d+)/mcp \(Ctrl-C stops it\)\n", serving)
        told = re.fullmatch(r"admin page on http://[\d.]+:(\d+)/\n", looked_after)
        assert found is not None, serving
        assert told is not None, looked_after
        yield Running(process, int(found[1]), f"127.0.0.1:{told[1]}")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with soon():
                await process.communicate()


async def shell(command: str, **options: object) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    return await asyncio.create_subprocess_exec(
        "sh",
        "-ec",
        command,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        **options,  # type: ignore[arg-type]
    )


async def output_of(command: str) -> str:
    process = await shell(command)
    async with soon():
        output, _ = await process.communicate()
    assert process.returncode == 0, output
    return output.decode()


async def test_a_proxy_is_looked_after() -> None:
    needs.curl()
    async with mcp_server() as server, started(START, server.url) as proxy, client_of(proxy.port) as client:
        assert SERVING.count("\n") == 2
        await client.initialize()
        handle = (client.session_id or "")[:12]
        health, ready = (await output_of(proxy.on_page(HEALTH))).splitlines()
        assert json.loads(health) == {"is_alive": True}
        assert json.loads(ready)["is_ready"]
        metrics = await output_of(proxy.on_page(METRICS))
        # What the page tells to watch is there.
        for name in re.findall(r"shadowcat_\w+", PAGE):
            # Of a histogram it names a part.
            assert f"# TYPE {name.removesuffix('_bucket')}" in metrics, name
        sessions, upstreams, feed = proxy.on_page(LOOK).strip().splitlines()
        assert json.loads(await output_of(sessions))["sessions"][0]["session"] == handle
        assert json.loads(await output_of(upstreams))["upstreams"][0]["sessions"] == 1
        watching = await shell(f"exec {feed}")
        assert watching.stdout is not None
        async with soon():
            assert await watching.stdout.readline() == b"retry: 3000\n"
            ended = await output_of(proxy.on_page(END).replace("5f2c81aa90d1", handle))
            assert ended == ENDED.replace("5f2c81aa90d1", handle) + "\n"
            while b"session.ended" not in await watching.stdout.readline():
                pass
            # The feed ends with the proxy, and so does the command that prints it.
            proxy.process.send_signal(signal.SIGTERM)
            told = (await watching.communicate())[0]
            await proxy.process.communicate()
        assert b"proxy.drains" in told
        assert (watching.returncode, proxy.process.returncode) == (0, 0)


async def test_from_another_machine() -> None:
    needs.curl()
    async with mcp_server() as server, started(OPEN, server.url) as proxy:
        ask = proxy.on_page(WITH_TOKEN)
        assert (
            json.loads(await output_of(ask.replace("$SHADOWCAT_ADMIN_TOKEN", "wrong")))["reason"]
            == "no_token"
        )
        token = re.search(rb"SHADOWCAT_ADMIN_TOKEN=([^\0]+)", _environment_of(proxy.process.pid))
        assert token is not None
        secret = token[1].decode()
        found = await output_of(f"SHADOWCAT_ADMIN_TOKEN='{secret}'; {ask}")
        assert json.loads(found)["total"] == 0


def _environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_the_program_on_the_page() -> None:
    async with mcp_server() as server:
        text = (
            PROGRAM.replace("http://127.0.0.1:3000/mcp", server.url).replace("9901", "0").replace("8080", "0")
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-W", "error", "-c", text, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with soon():
                line = (await process.stdout.readline()).decode()
            found = re.fullmatch(r"serving, and telling about it on http://127\.0\.0\.1:(\d+)\n", line)
            assert found is not None, line
            async with client_of(int(found[1])) as client:
                reply = await client.request("GET", path="/ready")
                assert (reply.status, (await reply.json())["is_ready"]) == (200, True)
        finally:
            process.send_signal(signal.SIGINT)
            async with soon():
                await process.communicate()


async def test_requests_are_traced() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with mcp_server() as server, started(TRACED, server.url) as proxy, client_of(proxy.port) as client:
        await client.initialize()
        await client.call(params={"name": "t", "_meta": {"traceparent": trace}})
        # There is an API, and no SDK that is told to do anything.
        assert server.got("tools/call")[0].json["params"]["_meta"] == {"traceparent": trace}


# What else can be said.


async def test_what_a_rule_holds_is_let_go(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "looked at"\ntool = "t"\nhold = true\n')
    command = START.replace("reverse", f"reverse --rules {rules}", 1)
    async with (
        mcp_server() as server,
        started(command, server.url) as proxy,
        client_of(proxy.port) as client,
        client_of(int(proxy.admin.rpartition(":")[2])) as operator,
    ):
        await client.initialize()
        call = asyncio.create_task(client.call())
        async with soon():
            held = []
            while not held:
                held = (await (await operator.request("GET", path="/api/held")).json())["held"]
        assert (held[0]["reason"], held[0]["method"]) == ("looked at", "tools/call")
        assert not call.done()
        path = f"/api/held/{held[0]['id']}/release"
        reply = await operator.request("POST", [("Content-Type", "application/json")], b"{}", path)
        assert reply.status == 200, await reply.body()
        assert "result" in await call


async def test_forward_has_one_without_being_asked_and_reverse_has_none() -> None:
    async with mcp_server() as server:
        forward = f"shadowcat forward http --listen 127.0.0.1:8080 --upstream {server.url}"
        async with started(forward, server.url) as one, started(forward, server.url) as other:
            assert one.admin != other.admin
        for command in (
            f"{forward} --admin off",
            f"shadowcat reverse --listen 127.0.0.1:8080 --upstream {server.url}",
        ):
            process = await shell(f"exec {command.replace(':8080', ':0')}")
            assert process.stdout is not None
            async with soon():
                assert (await process.stdout.readline()).startswith(b"serving ")
                process.send_signal(signal.SIGTERM)
                rest = (await process.communicate())[0]
            assert b"admin page" not in rest


@pytest.mark.parametrize(
    ("arguments", "token", "told"),
    [
        ("--admin 0.0.0.0:0", "", "others than this machine reach 0.0.0.0:0, so it needs a token"),
        ("--admin 127.0.0.1:0", "short", "token needs 16 characters or more"),
        ("--admin here", "", "'here' is not HOST:PORT"),
        ("--admin 192.0.2.1:9", "x" * 16, "Cannot assign requested address; choose another with --admin"),
    ],
)  # fmt: skip
async def test_what_cannot_be(arguments: str, token: str, told: str) -> None:
    given = f"SHADOWCAT_ADMIN_TOKEN={token}" if token else ""
    process = await shell(
        f"{given} exec shadowcat reverse --listen 127.0.0.1:0 --upstream http://127.0.0.1:9/mcp {arguments}",
        stderr=asyncio.subprocess.PIPE,
    )
    async with soon():
        output, errors = await process.communicate()
    last = errors.decode().splitlines()[-1]
    assert process.returncode in (1, 2)
    assert output == b""
    assert last.startswith("Error: ")
    assert told in last
    assert "short" not in last
