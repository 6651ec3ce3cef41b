"""The Inspector's command line: the same output through the proxy as without it."""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.e2e.stage import Stage
from tests.rig.wait import soon

ENDS_S = 40.0

ASKED: dict[str, tuple[str, ...]] = {
    "tools/list": (),
    "tools/call": ("--tool-name", "greet", "--tool-arg", "name=Ada"),
    "resources/list": (),
    "resources/templates/list": (),
    "resources/read": ("--uri", "test://static-text"),
    "prompts/list": (),
    "prompts/get": ("--prompt-name", "test_prompt_with_arguments", "--prompt-args", "arg1=one", "arg2=two"),
}
SHOWN = {
    "tools/list": "test_simple_text",
    "tools/call": "Hello, Ada!",
    "resources/list": "test://static-binary",
    "resources/templates/list": "test://template/{id}/data",
    "resources/read": "This is the content",
    "prompts/list": "test_simple_prompt",
    "prompts/get": "arg1='one', arg2='two'",
}


async def inspector(url: str, home: Path, *arguments: str) -> tuple[int | None, Any, Any]:
    """How it ended, and what it wrote on stdout and stderr."""
    program = (
        needs.peers() / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
    )
    process = await asyncio.create_subprocess_exec(
        needs.node(), program, "--cli", "--transport", "http", "--server-url", url, "--format", "json", *arguments,
        stdout=PIPE,
        stderr=PIPE,
        # It keeps a catalog of servers there.
        env={**os.environ, "HOME": str(home)},
    )  # fmt: skip
    try:
        async with soon(ENDS_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, read(out), read(err)


def read(written: bytes) -> Any:
    return json.loads(written) if written.strip() else None


async def both(stage: Stage, home: Path, *arguments: str) -> tuple[int | None, Any, Any]:
    direct, proxied = await asyncio.gather(
        *(inspector(url, home, *arguments) for url in (stage.direct, stage.proxied))
    )
    assert proxied == direct
    return proxied


@pytest.mark.parametrize(
    ("era", "method"),
    [("legacy", method) for method in ASKED]
    + [("modern", method) for method in ASKED if "list" not in method],
)
async def test_method(stage: Stage, tmp_path: Path, method: str, era: str) -> None:
    arguments = ("--protocol-era", era, "--method", method, *ASKED[method])
    code, shown, complained = await both(stage, tmp_path, *arguments)
    assert (code, complained) == (0, None)
    assert SHOWN[method] in json.dumps(shown)


async def test_log_level(stage: Stage, tmp_path: Path) -> None:
    got = await both(stage, tmp_path, "--method", "logging/setLevel", "--log-level", "debug")
    assert got == (0, {"result": {}}, None)


async def test_an_error(stage: Stage, tmp_path: Path) -> None:
    code, shown, complained = await both(
        stage, tmp_path, "--method", "resources/read", "--uri", "test://nowhere"
    )
    assert (code != 0, shown) == (True, None)
    assert complained["error"]
