"""@modelcontextprotocol/server-everything: another implementation of a server, over any transport."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import needs
from tests.rig.wait import until


def everything(transport: str) -> tuple[str, ...]:
    """The command: `stdio`, `sse` or `streamableHttp`."""
    program = needs.peers() / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    return (str(needs.node()), str(program), transport)


@asynccontextmanager
async def server_everything(log: Path, transport: str) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *everything(transport),
            transport,
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, "PORT": str(port)},
        )
        try:
            await until(lambda: f"on port {port}" in log.read_text())
            yield f"http://127.0.0.1:{port}/{'sse' if transport == 'sse' else 'mcp'}"
        finally:
            process.kill()
            await process.wait()
