"""`shadowcat forward stdio --upstream`: what an editor sees of the process."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from shadowcat.cli import main
from tests.rig.server import Call, mcp_server
from tests.rig.wait import happens
from tests.stdio.editor import bridging, call, editor, line

RULES = """
[[rule]]
name = "no shell"
tool = "shell"
block = "No shell here"
"""


async def test_it_ends_with_its_client() -> None:
    async with mcp_server() as server, editor(*bridging(server.url)) as client:
        await client.initialize()
        assert (await client.call(1, "t"))["result"]["content"][0]["text"] == "fixture"
        assert await client.end() == (0, b"", b"")
        assert len(server.got("DELETE")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_it_ends_in_order_when_it_is_told_to(number: signal.Signals) -> None:
    async with mcp_server() as server, editor(*bridging(server.url)) as client:
        release = asyncio.Event()

        @server.on("tools/call")
        async def _(_: Call) -> None:
            await happens(release)

        await client.initialize()
        await client.send(call(1, "t"))
        await server.gets("tools/call")
        client.process.send_signal(number)
        assert (await client.ended())[0] == 0
        release.set()
        assert len(server.got("DELETE")) == 1


async def test_a_server_that_is_not_there_is_one_line_in_the_log() -> None:
    async with mcp_server() as server:
        url = server.url
    async with editor(*bridging(url)) as client:
        for _ in range(3):
            assert (await client.initialize())["error"]["code"] == -31005
        code, _, err = await client.end()
    assert (code, err.count(b"\n")) == (0, 1), err
    assert b"shadowcat: WARNING: upstream 127.0.0.1:" in err
    assert b"connection_refused" in err


async def test_a_session_that_cannot_go_on_is_said_and_is_an_exit_code() -> None:
    async with mcp_server() as server, editor(*bridging(server.url)) as client:
        await client.initialize()
        await client.send(line({"method": "notifications/initialized"}))
        await client.call(1, "t")
        server.restart()
        server.capabilities = {}
        assert (await client.call(2, "t"))["error"]["code"] == -32600
        code, _, err = await client.ended()
    assert code == 1
    assert b"ERROR: the server cannot continue the session" in err


async def test_rules_and_tapes(tmp_path: Path) -> None:
    rules, tapes = tmp_path / "rules.toml", tmp_path / "tapes"
    rules.write_text(RULES)
    flags = ("--rules", str(rules), "--record", str(tapes))
    async with mcp_server() as server, editor(*bridging(server.url, *flags)) as client:
        await client.initialize()
        assert (await client.call(1, "shell"))["error"]["code"] == -31006
        assert "result" in await client.call(2, "t")
        assert (await client.end())[0] == 0
        assert len(server.got("tools/call")) == 1
    [tape] = tapes.glob("*.tape")
    written = tape.read_bytes()
    assert b'"stdio"' in written
    assert written.count(b'"tools/call"') >= 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--upstream", "http://a/mcp", "--", "cat"], "give either --upstream or, after --, a command"),
        (["--upstream", "http://a/mcp", "--env", "A=b"], "--env and --cwd are for a command"),
        (["--upstream", "ftp://a/mcp"], "is not a URL"),
        (["--upstream", "http://u:secret@a/mcp"], "credentials do not belong in a URL"),
        (["--upstream", "http://a/1", "--upstream", "http://a/2"], "two upstreams have one name"),
        (["--upstream", "http://a/mcp", "--rules", "/no/such/file"], "cannot be read"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], told: str) -> None:
    run = CliRunner().invoke(main, ["forward", "stdio", *arguments])
    assert (run.exit_code, told in run.output) == (2, True), run.output
    assert "secret" not in run.output


def test_files_of_tls_that_are_not_there() -> None:
    run = CliRunner().invoke(
        main,
        ["forward", "stdio", "--upstream", "https://a/mcp"],
        env={"SHADOWCAT_UPSTREAM_TLS_CA_FILE": "/no/such/file"},
    )
    assert run.exit_code == 2
    assert "upstream_tls: /no/such/file cannot be read" in run.output


async def test_each_message_is_a_line_at_level_debug() -> None:
    async with mcp_server() as server, editor(*bridging(server.url, "--log-level", "debug")) as client:
        await client.initialize()
        await client.call(1, "t")
        _, _, err = await client.end()
    [asked, answered] = [said for said in err.splitlines() if b" exchange 1 on upstream " in said]
    assert b", to server: <request 'tools/call' id=1 " in asked
    assert b", to client: <result '' id=1 " in answered
