"""Rules and plugins from the command line: in force, in order, and refused in one line."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.rig.children import SPEAKER
from tests.rig.client import client_of
from tests.rig.server import mcp_server
from tests.rig.stand import reverse_process
from tests.rig.wait import soon
from tests.stdio.editor import call

RULES = """
[[rule]]
name = "r"
tool = "pid"
reply = { result = { content = [], by = "a rule" } }
"""
PLUGIN = """
from shadowcat import Context, Interceptor, Message, Replace, Verdict


class Marking(Interceptor):
    def on_response(self, message: Message, context: Context) -> Verdict:
        from shadowcat.wire import jsonrpc

        return Replace(jsonrpc.result(0, {**message.result(), "by": "a plugin"}))
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "marking.py").write_text(textwrap.dedent(PLUGIN))
    return tmp_path / "rules.toml", tmp_path / "marking.py"


def stdio(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [
        sys.executable,
        "-m",
        "shadowcat",
        "forward",
        "stdio",
        *arguments,
        "--",
        sys.executable,
        SPEAKER,
    ]
    return subprocess.run(
        command, input=call(1, "pid") + call(2, "heard_so_far"), capture_output=True, timeout=60
    )


def test_forward_stdio(files: tuple[Path, Path]) -> None:
    rules, plugin = files
    run = stdio("--rules", str(rules), "--plugin", str(plugin))
    answers = {answer["id"]: answer["result"] for answer in map(json.loads, run.stdout.splitlines())}
    assert answers[1] == {"content": [], "by": "a rule"}, run.stderr
    assert answers[2]["by"] == "a plugin"


async def test_reverse(files: tuple[Path, Path]) -> None:
    rules, plugin = files
    async with (
        mcp_server() as server,
        reverse_process("--upstream", server.url, "--rules", str(rules), "--plugin", str(plugin)) as proxy,
        client_of(proxy.port) as client,
    ):
        await client.initialize()
        assert (await client.call(params={"name": "pid"}))["result"]["by"] == "a rule"
        assert (await client.call(params={"name": "t"}))["result"]["by"] == "a plugin"


async def test_what_a_rule_holds_is_released_from_the_admin_listener(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "look at it"\ntool = "t"\nhold = true\n')
    async with (
        mcp_server() as server,
        reverse_process("--upstream", server.url, "--rules", str(rules), "--admin", "127.0.0.1:0") as proxy,
        client_of(proxy.port) as client,
    ):
        assert proxy.process.stdout is not None
        async with soon():
            told = (await proxy.process.stdout.readline()).decode()
        found = re.search(r":(\d+)/", told)
        assert found is not None, told
        async with client_of(int(found[1])) as admin:
            await client.initialize()
            calling = asyncio.create_task(client.call())
            async with soon():
                while not (held := await (await admin.request("GET", [], b"", "/api/held")).json())["held"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            (row,) = held["held"]
            assert (row["reason"], row["method"]) == ("look at it", "tools/call")
            fields = [("Content-Type", "application/json")]
            reply = await admin.request("POST", fields, b"{}", f"/api/held/{row['id']}/release")
            assert reply.status == 200
            async with soon():
                assert "result" in await calling


def test_a_hold_that_nobody_can_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "look at it"\ntool = "pid"\nhold = true\n')
    monkeypatch.setenv("SHADOWCAT_HOLD_TIMEOUT_S", "0.1")
    run = stdio("--rules", str(rules))
    assert json.loads(run.stdout.splitlines()[0])["error"]["data"]["reason"] == "held_too_long"
    assert b"'look at it' holds messages, and nobody can release them" in run.stderr


@pytest.mark.parametrize("mode", ["stdio", "reverse"])
def test_what_cannot_be_loaded_ends_it_at_once(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULES.replace("tool", "tol"))
    if mode == "stdio":
        run = stdio("--rules", str(path))
    else:
        command = [
            sys.executable,
            "-m",
            "shadowcat",
            "reverse",
            "--listen",
            "127.0.0.1:0",
            "--rules",
            str(path),
        ]
        run = subprocess.run([*command, "--upstream", "http://127.0.0.1:1/"], capture_output=True, timeout=60)
    assert run.returncode == 2
    said = run.stderr.decode()
    assert f"Error: rules {path}: line 4: rule 'r': there is no key 'tol'; did you mean tool?" in said
    assert "Traceback" not in said


def test_a_configuration_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    config = tmp_path / "shadowcat.toml"
    config.write_text(
        f"""
        rules.file = "{files[0]}"
        upstreams.main.url = "http://127.0.0.1:1/"
        [plugins.mask]
        use = "redact"
        options = {{ towards = "nobody" }}
        """
    )
    command = [
        sys.executable,
        "-m",
        "shadowcat",
        "reverse",
        "--listen",
        "127.0.0.1:0",
        "--config",
        str(config),
    ]
    run = subprocess.run(command, capture_output=True, timeout=60)
    assert run.returncode == 2
    assert (
        "Error: plugin shadowcat.plugins.redact:Redact, options: Invalid enum value 'nobody'"
        in run.stderr.decode()
    )
