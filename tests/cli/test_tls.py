"""`--tls-cert`, `--tls-key` and `--upstream-ca`: a proxy that speaks TLS, and one before it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme

from tests.rig.client import client_of
from tests.rig.server import mcp_server
from tests.rig.wait import soon


@asynccontextmanager
async def reverse(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "reverse", "--listen", "127.0.0.1:0", *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with soon():
            announced = re.match(rb"serving https?://127\.0\.0\.1:(\d+)/", await process.stdout.readline())
        assert announced
        yield process, int(announced[1])
        process.send_signal(signal.SIGTERM)
        async with soon():
            await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def issue(authority: trustme.CA, directory: Path) -> tuple[str, str]:
    issued = authority.issue_cert("127.0.0.1")
    pair = directory / "cert.pem", directory / "key.pem"
    issued.private_key_pem.write_to_path(pair[1])
    issued.cert_chain_pems[0].write_to_path(pair[0])
    return str(pair[0]), str(pair[1])


async def serial(port: int, authority: Path) -> str:
    trusting = ssl.create_default_context(cafile=str(authority))
    async with soon():
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    try:
        return writer.get_extra_info("peercert")["serialNumber"]
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_call_over_tls_and_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    cert, key = issue(authority, tmp_path)
    file = tmp_path / "shadowcat.toml"
    async with mcp_server() as server:
        file.write_text(f"upstreams.main.url = '{server.url}'\nlog.level = 'debug'\nlog.format = 'json'\n")
        inner = reverse("--config", str(file), "--tls-cert", cert, "--tls-key", key)
        async with inner as (process, port):
            url = f"https://127.0.0.1:{port}/mcp"
            async with (
                reverse("--upstream", url, "--upstream-ca", str(ca_file)) as (_, before),
                client_of(before) as client,
            ):
                await client.initialize()
                assert await client.call()
            first = await serial(port, ca_file)
            issue(authority, tmp_path)
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            lines: list[dict[str, str]] = []
            async with soon():
                while not lines or "read again" not in lines[-1]["message"]:
                    lines.append(json.loads(await process.stderr.readline()))
            assert await serial(port, ca_file) != first
    calls = [
        line for line in lines if line["logger"] == "shadowcat.message" and "tools/call" in line["message"]
    ]
    assert calls
    assert {"session", "exchange", "upstream"} <= set(calls[0])
    assert calls[0]["upstream"] == "main"
