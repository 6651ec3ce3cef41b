"""`shadowcat reverse` with a store: `python -m bench.servers.shadowcat_stored UPSTREAM STORE`. Prints its port."""

from __future__ import annotations

import sys

from shadowcat.app.process import run, until_stopped
from shadowcat.app.proxy import ReverseProxy
from shadowcat.clock import SystemClock
from shadowcat.stores.urls import store_of


async def main(upstream: str, store: str) -> None:
    async with ReverseProxy({"numbers": upstream}, port=0, store=store_of(store, SystemClock())) as proxy:
        print(proxy.port, flush=True)
        await until_stopped(lambda: proxy.drain(0.0))


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
