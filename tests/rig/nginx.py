"""A real nginx with a configuration of the test's, and files of its own in the test's directory."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests import needs
from tests.rig.wait import soon

_AROUND = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/client_body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {servers}
}}
"""


@asynccontextmanager
async def nginx(servers: str, port: int, directory: Path) -> AsyncIterator[None]:
    """`servers` is what stands inside `http`; it listens on `port`."""
    config = directory / "nginx.conf"
    config.write_text(_AROUND.format(directory=directory, servers=servers))
    # Not a pipe: nobody reads it, and a full one stops the worker.
    log = directory / "nginx.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            needs.nginx(), "-p", str(directory), "-e", "stderr", "-c", str(config),
            stderr=errors,
        )  # fmt: skip
    try:
        async with soon():
            while not await _accepts(port):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        async with soon():
            await process.wait()


@asynccontextmanager
async def plain_nginx(upstream: str, directory: Path) -> AsyncIterator[str]:
    """As somebody sets it up who has not read anything: buffering on. Yields the URL of the endpoint."""
    port = free_port()
    behind = re.sub(r"/mcp$", "", upstream)
    server = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {behind}; }} }}"
    async with nginx(server, port, directory):
        yield f"http://127.0.0.1:{port}/mcp"


@asynccontextmanager
async def balancing_nginx(ports: Sequence[int], directory: Path) -> AsyncIterator[str]:
    """Before several nodes, each connection to the next one that is there. Yields the URL of the endpoint."""
    port = free_port()
    nodes = " ".join(f"server 127.0.0.1:{node} max_fails=0;" for node in ports)
    location = "proxy_pass http://nodes; proxy_http_version 1.1; proxy_buffering off; proxy_set_header Host $http_host;"
    servers = (
        f"upstream nodes {{ {nodes} }} server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }}"
    )
    async with nginx(servers, port, directory):
        yield f"http://127.0.0.1:{port}/mcp"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
