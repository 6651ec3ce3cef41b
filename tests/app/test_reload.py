"""SIGHUP to a real process: what changes, what waits for a restart, and a bad file changes nothing."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rig.client import client_of, rpc
from tests.rig.program import Program, program
from tests.rig.server import McpServer, mcp_server


@dataclass
class Running:
    program: Program
    file: Path
    text: str

    @property
    def port(self) -> int:
        return self.program.port

    async def says(self, pattern: str) -> str:
        return await self.program.says(pattern)

    def change(self, more: str) -> None:
        self.file.write_text(self.text + more)
        self.program.process.send_signal(signal.SIGHUP)


@pytest.fixture
async def server() -> AsyncIterator[McpServer]:
    async with mcp_server() as found:
        yield found


@pytest.fixture
async def running(server: McpServer, tmp_path: Path) -> AsyncIterator[Running]:
    file = tmp_path / "shadowcat.toml"
    text = f"upstreams.main.url = '{server.url}'\n"
    file.write_text(text + "faults.seed = 1\n")
    async with program("reverse", "--config", str(file), "--session-idle", "50") as found:
        yield Running(found, file, text + "faults.seed = 1\n")


async def test_what_can_change_does(running: Running) -> None:
    async def status() -> int:
        async with client_of(running.port) as client:
            reply = await client.request(
                "GET", [("Origin", "https://app.example"), ("Accept", "text/event-stream")]
            )
            return reply.status

    assert await status() == 403
    running.change(
        "endpoint.allow_origins = ['https://app.example']\nlog.format = 'json'\nsessions.linger_s = 5\n"
    )
    line = await running.says("read again")
    assert '"message":"the configuration was read again: changed ' in line
    assert "endpoint.allow_origins, sessions.linger_s, log.format" in line
    assert await status() != 403
    running.change("")
    assert "changed endpoint.allow_origins, sessions.linger_s, log.format" in await running.says("read again")
    assert await status() == 403


async def test_a_line_for_each_message_comes_and_goes(running: Running) -> None:
    running.change("log.level = 'debug'\n")
    assert "changed log.level" in await running.says("read again")
    assert "fixture" in await answer_of(running)
    assert "shadowcat.message: session " in await running.says("tools/call")
    running.change("")
    assert "changed log.level" in await running.says("read again")
    assert "fixture" in await answer_of(running)
    running.program.process.send_signal(signal.SIGTERM)
    assert "shadowcat.message" not in (await running.program.ends())[1]


async def test_what_cannot_change_waits_for_a_restart(running: Running) -> None:
    running.change("endpoint.path = '/other'\n")
    told = "the configuration was read again: until a restart these stay as they were: endpoint.path\n"
    assert (await running.says("read again")).endswith(told)
    # It is said for as long as it is so; what a flag says stands before the file.
    running.change("endpoint.path = '/other'\nsessions.idle_s = 5\n")
    assert (await running.says("read again")).endswith(told)
    running.change("endpoint.path = '/other'\nsessions.linger_s = 5\n")
    told = "changed sessions.linger_s; until a restart these stay as they were: endpoint.path\n"
    assert (await running.says("read again")).endswith(told)


async def test_a_bad_file_changes_nothing(running: Running) -> None:
    running.change("lisen = 1\nlog.level = 'loud'\n")
    first = await running.says("configuration is unchanged")
    assert "lisen: there is no such setting; did you mean listen?" in first
    assert "log.level: 'loud' is not one of debug, info, warning, error" in await running.says(
        "configuration is unchanged"
    )
    running.change("")
    assert (await running.says("read again")).endswith("read again: nothing in it has changed\n")


RULE = """
[[rule]]
name = "no calls"
method = "tools/call"
block = "%s"
"""
PLUGIN = """
from shadowcat import Context, Interceptor, Message, Reject, Verdict

class Refusing(Interceptor):
    methods = %s

    def on_request(self, message: Message, context: Context) -> Verdict:
        return Reject.because("the plugin says no")
"""


async def answer_of(running: Running) -> str:
    async with client_of(running.port) as client:
        await client.initialize()
        return str(await client.call())


async def test_rules_and_plugins_come_go_and_are_others(running: Running, tmp_path: Path) -> None:
    rules, others, plugin = tmp_path / "rules.toml", tmp_path / "others.toml", tmp_path / "refusing.py"
    rules.write_text(RULE % "by the rules")
    others.write_text(RULE % "by the others")
    plugin.write_text(PLUGIN % '("tools/call",)')
    for more, told in (
        (f"rules.file = '{rules}'\n", "by the rules"),
        (f"rules.file = '{others}'\n", "by the others"),
        (f"plugins.no.use = '{plugin}'\n", "the plugin says no"),
        ("", "fixture"),
    ):
        running.change(more)
        assert "read again: changed " in await running.says("read again")
        assert told in await answer_of(running)


async def test_a_plugin_that_cannot_be_used_changes_nothing(running: Running, tmp_path: Path) -> None:
    plugin = tmp_path / "refusing.py"
    plugin.write_text(PLUGIN % '"tools/call"')
    running.change(f"endpoint.allow_hosts = ['a.example']\nplugins.no.use = '{plugin}'\n")
    told = await running.says("configuration is unchanged")
    assert f"plugin {plugin}: the methods that Refusing wants are a list, and not 'tools/call'" in told
    assert "fixture" in await answer_of(running)
    # What was wrong was not in the file: it is read again as it is.
    plugin.write_text(PLUGIN % '("tools/call",)')
    running.change(f"endpoint.allow_hosts = ['a.example']\nplugins.no.use = '{plugin}'\n")
    assert "changed endpoint.allow_hosts, plugins.no" in await running.says("read again")
    assert "the plugin says no" in await answer_of(running)


async def test_faults_are_others_where_there_were_some(running: Running) -> None:
    running.change("faults.fail_chance = 1.0\n")
    assert "changed faults.fail_chance" in await running.says("read again")
    async with client_of(running.port) as client:
        assert (await client.post(rpc("initialize", {"protocolVersion": "2025-11-25"}, 0))).status == 502
    running.text = running.text.replace("faults.seed = 1\n", "")
    running.change("")
    assert "changed faults\n" in await running.says("read again")
    assert "fixture" in await answer_of(running)


async def test_faults_that_are_made_on_purpose_are_told_at_the_start(
    server: McpServer, tmp_path: Path
) -> None:
    file = tmp_path / "shadowcat.toml"
    file.write_text(
        f"upstreams.main.url = '{server.url}'\n[faults]\nseed = 7\ndrop_chance = 0.5\ncut_after = 3\n"
    )
    async with program("reverse", "--config", str(file)) as proxy:
        assert (await proxy.says("on purpose")).endswith(": drop_chance 0.5, cut_after 3\n")
