"""aiohttp's server on uvloop with an echo behind it."""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web


async def main() -> None:
    async def echo(request: web.BaseRequest) -> web.Response:
        return web.Response(body=await request.read(), content_type="application/json")

    runner = web.ServerRunner(web.Server(echo), access_log=None, keepalive_timeout=600.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
