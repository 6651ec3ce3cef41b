"""Runs the official conformance suite against the fixture server, direct and through the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import needs
from tests.conformance.compare import Checks

START_S = 30
STOP_S = 15
# Below the limit of a test, so that what runs is ended properly.
SUITE_S = 90

VARIANTS = ("default", "json", "stateless", "no-resume", "via-get", "stdio", "forward")
ANNOUNCED = re.compile(rb"serving (\S+)")
RESULT = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


@dataclass(frozen=True, slots=True)
class Revision:
    arguments: tuple[str, ...]
    # A suite that quietly runs fewer of them would find fewer differences.
    scenarios: int
    variants: tuple[str, ...]
    package: str = "@modelcontextprotocol/conformance"


REVISIONS = {
    "2025-11-25": Revision(("--requirements", "2025-11-25"), 33, VARIANTS),
    "2026-07-28": Revision(("--requirements", "2026-07-28"), 50, VARIANTS),
    "2025-06-18": Revision(("--suite", "all", "--spec-version", "2025-06-18"), 27, ("default",)),
    # The stable release of the suite, which speaks 2025-11-25.
    "0.1.16": Revision(("--suite", "all"), 32, ("default",), "conformance-stable"),
}


async def direct(variant: str, revision: str, out: Path) -> Checks:
    async with fixture_server(variant, out) as url:
        return await suite(url, revision, out)


async def proxied(variant: str, revision: str, out: Path) -> Checks:
    if variant == "stdio":
        fixture = (sys.executable, "-m", "tests.peers.everything_server", "--stdio")
        command = ("shadowcat", "forward", "http", "--listen", "127.0.0.1:0", "--", *fixture)
        async with serving(command, out / "proxy.log") as url:
            return await suite(url, revision, out)
    async with fixture_server(variant, out) as upstream:
        if variant == "forward":
            command = ("shadowcat", "forward", "http", "--listen", "127.0.0.1:0")
            async with serving(command, out / "proxy.log") as announced:
                return await suite(upstream, revision, out, announced.removeprefix("http_proxy="))
        command = ("shadowcat", "reverse", "--listen", "127.0.0.1:0", "--upstream", upstream)
        async with serving(command, out / "proxy.log") as url:
            return await suite(url, revision, out)


def fixture_server(variant: str, out: Path) -> contextlib.AbstractAsyncContextManager[str]:
    if variant == "stdio":
        # What speaks stdio has no events to resume: the like of it over HTTP has none either.
        variant = "no-resume"
    flags = () if variant in ("default", "forward") else (f"--{variant}",)
    return serving(("tests.peers.everything_server", *flags), out / "server.log")


@contextlib.asynccontextmanager
async def serving(command: Sequence[str], log: Path) -> AsyncIterator[str]:
    """Runs a module of ours that prints where it serves, and yields that address."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *command, cwd=needs.ROOT, stdout=PIPE, stderr=stderr
        )
        try:
            yield await _address(process, log)
        finally:
            await _stop(process)


async def _address(process: Process, log: Path) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(START_S):
        line = await process.stdout.readline()
    announced = ANNOUNCED.match(line)
    assert announced, f"no server came up; see {log}"
    return announced[1].decode()


async def _stop(process: Process) -> None:
    """Asks it to end; one that does not is killed and fails the test."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            # Reads its pipe to the end, too.
            await process.communicate()
    finally:
        await _kill(process)


async def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


async def suite(url: str, revision: str, out: Path, http_proxy: str | None = None) -> Checks:
    """What the suite recorded. What it thinks of that is left aside: the comparison has to judge."""
    env = None if http_proxy is None else _told_of(http_proxy)
    harness, results = REVISIONS[revision], out / "results"
    program = needs.peers() / harness.package / "dist" / "index.js"
    command = (needs.node(), program, "server", "--url", url, *harness.arguments, "--output-dir", results)
    with (out / "suite.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=env)
        try:
            async with asyncio.timeout(SUITE_S):
                await process.wait()
        finally:
            await _kill(process)
    return read(results)


def _told_of(http_proxy: str) -> dict[str, str]:
    """Node's fetch then opens tunnels; the few checks that use its http module go straight to the server."""
    others = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    preload = needs.ROOT / "tests" / "e2e" / "ts" / "env_proxy.cjs"
    told = {"HTTP_PROXY": http_proxy, "NODE_OPTIONS": f"--require {preload}", "NODE_PATH": str(needs.peers())}
    return {**others, **told}


def read(results: Path) -> Checks:
    found: Checks = {}
    for path in results.glob("*/checks.json"):
        name = RESULT.fullmatch(path.parent.name)
        assert name, f"not a result: {path}"
        found[name[1]] = json.loads(path.read_text("utf-8"))
    return found
