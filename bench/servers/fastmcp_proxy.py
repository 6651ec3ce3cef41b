"""FastMCP's proxy: `python -m bench.servers.fastmcp_proxy UPSTREAM_PORT`."""

from __future__ import annotations

import asyncio
import socket
import sys

from fastmcp.server import create_proxy


async def main(upstream_port: int) -> None:
    proxy = create_proxy(f"http://127.0.0.1:{upstream_port}/mcp")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        await proxy.run_http_async(
            show_banner=False, log_level="warning", uvicorn_config={"access_log": False}, sockets=[listening]
        )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
