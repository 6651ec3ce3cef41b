"""The naive relay of events as most would write it, on aiohttp: `python -m bench.servers.aiohttp_stream_relay PORT`.

Like `naive_stream_relay` it decodes every event in full and encodes it again; that one stands on our own engine.
"""

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp
import uvloop
from aiohttp import web

from bench.sse import LineByLine


async def main(upstream_port: int) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def relay(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            url = f"http://127.0.0.1:{upstream_port}/mcp"
            headers = {"Content-Type": "application/json"}
            async with session.post(url, data=await request.read(), headers=headers) as answer:
                await response.prepare(request)
                decoder = LineByLine()
                async for data in answer.content.iter_any():
                    for event in decoder.feed(data):
                        message = json.dumps(json.loads(event.data or b"null")).encode()
                        await response.write(
                            b"event: message\nid: %b\ndata: %b\n\n" % (event.id or b"", message)
                        )
            return response

        runner = web.ServerRunner(web.Server(relay), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
