"""The scripted server as a process of its own, to be stopped and continued: `python -m tests.rig.serve`."""

from __future__ import annotations

import asyncio

from tests.rig.server import mcp_server


async def main() -> None:
    async with mcp_server(name="child") as server:
        print(server.url, flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
