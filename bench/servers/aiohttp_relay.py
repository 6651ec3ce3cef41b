"""A plain relay through aiohttp on uvloop: `python -m bench.servers.aiohttp_relay UPSTREAM_PORT`."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

_HOPS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "host", "content-length", "date", "server"}
)


async def main(upstream_port: int) -> None:
    connector = aiohttp.TCPConnector(limit=1000)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def relay(request: web.Request) -> web.Response:
            async with session.request(
                request.method,
                f"http://127.0.0.1:{upstream_port}{request.rel_url.raw_path_qs}",
                headers=[
                    (name, value) for name, value in request.headers.items() if name.lower() not in _HOPS
                ],
                data=await request.read(),
            ) as answer:
                return web.Response(
                    status=answer.status,
                    headers=[
                        (name, value) for name, value in answer.headers.items() if name.lower() not in _HOPS
                    ],
                    body=await answer.read(),
                )

        # The low-level server: no routing, which the others do not have either.
        runner = web.ServerRunner(web.Server(relay), access_log=None)  # type: ignore[arg-type]
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
