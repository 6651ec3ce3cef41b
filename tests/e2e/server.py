"""The fixture server of tests/peers, with tools that a test can steer.

A client calls these; the test steers them through a connection of its own, straight to the server. That way nothing
depends on time: a call goes on when it is told to.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import ResourceUpdated
from mcp.shared.message import ServerMessageMetadata

from tests.peers import everything_server as everything
from tests.peers.everything_server import modern, obj, ok, related, tool

KEY = obj(key="string")

gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
started: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
fates: dict[str, asyncio.Future[str]] = {}
roots_changes: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


def fate_of(key: str) -> asyncio.Future[str]:
    return fates.setdefault(key, asyncio.get_running_loop().create_future())


@tool("count", "Reports progress 1 to `first`, waits to be released, and goes on to `total`")
async def _(ctx: Any, p: Any) -> Any:
    key, first, total = p.arguments["key"], p.arguments["first"], p.arguments["total"]
    for step in range(1, total + 1):
        if step == first + 1:
            await gates[key].wait()
        await ctx.session.report_progress(step, total, f"step {step}")
    return ok(f"counted to {total}")


@tool("release", "Lets the calls with this key go on", KEY)
async def _(ctx: Any, p: Any) -> Any:
    gates[p.arguments["key"]].set()
    return ok("released")


@tool("hold", "Runs until it is cancelled", KEY)
async def _(ctx: Any, p: Any) -> Any:
    key = p.arguments["key"]
    started[key].set()
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        fate_of(key).set_result(type(error).__name__)
        raise


@tool("started", "Waits until the call with this key runs", KEY)
async def _(ctx: Any, p: Any) -> Any:
    await started[p.arguments["key"]].wait()
    return ok("started")


@tool("fate", "Waits until the call with this key has ended, and says how", KEY)
async def _(ctx: Any, p: Any) -> Any:
    return ok(await asyncio.shield(fate_of(p.arguments["key"])))


@tool("ask_roots", "Asks the client for its roots, on this call's stream or on the standalone one")
async def _(ctx: Any, p: Any) -> Any:
    got = await ctx.session.send_request(
        types.ListRootsRequest(), types.ListRootsResult, metadata=way(ctx, p.arguments)
    )
    return ok(", ".join(f"{root.name}={root.uri}" for root in got.roots))


@tool("ask_ping", "Pings the client, on this call's stream or on the standalone one")
async def _(ctx: Any, p: Any) -> Any:
    await ctx.session.send_request(types.PingRequest(), types.EmptyResult, metadata=way(ctx, p.arguments))
    return ok("answered")


def way(ctx: Any, arguments: dict[str, Any]) -> ServerMessageMetadata | None:
    return None if arguments["standalone"] else ServerMessageMetadata(related_request_id=related(ctx))


@tool("touch", "Tells who subscribed to this resource that it was updated", obj(uri="string"))
async def _(ctx: Any, p: Any) -> Any:
    uri = p.arguments["uri"]
    if modern(ctx):
        await everything.BUS.publish(ResourceUpdated(uri))
    elif uri in everything.SUBSCRIBED:
        await ctx.session.send_resource_updated(uri)
    return ok("subscribed" if modern(ctx) or uri in everything.SUBSCRIBED else "not subscribed")


@tool("roots_changed", "Waits until this session's client said that its roots changed")
async def _(ctx: Any, p: Any) -> Any:
    await roots_changes[everything.session_key(ctx)].wait()
    return ok("changed")


@tool("settings", "What this session's client has set")
async def _(ctx: Any, p: Any) -> Any:
    level = everything.LOG_LEVELS.get(everything.session_key(ctx), "none")
    return ok(f"level {level}, subscribed to {sorted(everything.SUBSCRIBED)}")


async def roots_were_changed(ctx: Any, params: types.NotificationParams) -> None:
    roots_changes[everything.session_key(ctx)].set()


def build() -> Server[Any]:
    server = plain()
    server.add_notification_handler(
        "notifications/roots/list_changed", types.NotificationParams, roots_were_changed
    )
    return server


plain = everything.build
everything.build = build

if __name__ == "__main__":
    everything.main()
