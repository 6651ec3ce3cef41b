"""Messages that are held: listed without what they say, shown, let go, changed and dropped, and by no form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from shadowcat import Admin
from shadowcat.core.exchange import Context, Verdict
from shadowcat.core.interceptor import Interceptor
from shadowcat.plugins.hold import HoldDesk
from shadowcat.wire.jsonrpc import Message
from tests.admin.kit import Operator
from tests.rig.client import Reply, client_of
from tests.rig.stand import Stand, stand
from tests.rig.wait import until


class HoldsCalls(Interceptor):
    methods = ("tools/call",)
    deadline_s = 60.0

    def __init__(self) -> None:
        self.desk = HoldDesk()

    async def on_request(self, message: Message, context: Context) -> Verdict:
        return await self.desk.hold(message, context, "because")


@dataclass(eq=False)
class Waiting:
    """A call that is held."""

    rig: Stand
    operator: Operator
    call: asyncio.Task[Any]

    async def post(self, path: str, body: Any = None, kind: str = "application/json") -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        return await self.operator.client.request("POST", [("Content-Type", kind)], data, path)


@asynccontextmanager
async def waiting() -> AsyncIterator[Waiting]:
    holds = HoldsCalls()
    desk = holds.desk
    async with (
        stand(interceptors=[holds]) as rig,
        Admin(rig.proxy, holding=desk) as admin,
        client_of(admin.port) as client,
    ):
        await rig.client.initialize()
        call = asyncio.create_task(rig.client.call(params={"name": "t", "arguments": {"secret": "canary"}}))
        await until(desk.held)
        try:
            yield Waiting(rig, Operator(admin, client), call)
        finally:
            desk.release(1)
            await call


async def test_it_is_listed_and_let_go() -> None:
    async with waiting() as held:
        listed = await held.operator.get("/api/held")
        assert "canary" not in json.dumps(listed)
        (row,) = listed["held"]
        session = (held.rig.client.session_id or "")[:12]
        assert (row["id"], row["method"], row["direction"]) == (1, "tools/call", "to_server")
        assert (row["session"], row["upstream"]) == (session, "a")
        assert held.rig.server.got("tools/call") == []
        shown = await held.operator.get("/api/held/1")
        assert shown["message"]["params"]["arguments"] == {"secret": "canary"}
        reply = await held.post("/api/held/1/release")
        assert (reply.status, await reply.json()) == (200, {"id": 1})
        assert "result" in await held.call
        reply = await held.post("/api/held/1/release")
        assert (reply.status, (await reply.json())["reason"]) == (404, "not_held")


async def test_it_is_changed() -> None:
    async with waiting() as held:
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "other"}}
        assert (await held.post("/api/held/1/release", {"message": message})).status == 200
        assert "result" in await held.call
        assert held.rig.server.got("tools/call")[0].json["params"]["name"] == "other"


async def test_it_is_dropped() -> None:
    async with waiting() as held:
        assert (await held.post("/api/held/1/drop")).status == 200
        assert (await held.call)["error"]["data"]["reason"] == "dropped_by_hand"
        assert held.rig.server.got("tools/call") == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"massage": 1}', "application/json", 400),
        (b'{"mess\xffage": 1}', "application/json", 400),
        (b'{"message": ' + b"[" * 9_999 + b"]" * 9_999 + b"}", "application/json", 400),
        (b'{"message": 1}', "application/json", 400),
        (b'{"message": {"jsonrpc": "2.0", "id": 1, "id": 2, "method": "x"}}', "application/json", 400),
        (b'{"message": {"jsonrpc": "2.0", "method": "notifications/x"}}', "application/json", 400),
        (b"message=1", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
        (b"{}", "multipart/form-data; boundary=x", 415),
        (b"{}", "application/jsonx", 415),
    ],
)
async def test_what_lets_nothing_go(body: bytes, kind: str, status: int) -> None:
    async with waiting() as held:
        reply = await held.post("/api/held/1/release", body, kind)
        assert reply.status == status, await reply.body()
        if status == 415:
            assert (await held.post("/api/held/1/drop", body, kind)).status == 415
        assert not held.call.done()
        assert (await held.operator.get("/api/held"))["held"]
