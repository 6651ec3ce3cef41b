"""An answer larger than is taken: the client and the log are told the same, whatever it comes in."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from shadowcat import ReverseProxy
from tests.rig.children import team, tool
from tests.rig.client import Client, client_of
from tests.rig.old_server import OldCall, old_server
from tests.rig.server import Call
from tests.rig.stand import Stand
from tests.rig.wait import until

WHOLE = "The answer is larger than 16 MiB"
EVENT = "An event of the upstream's is larger than 16 MiB"
LONG = "x" * (16 * 1024 * 1024)


@pytest.fixture(autouse=True)
def _(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "shadowcat")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "MiB" in record.getMessage()]


def error(message: str) -> dict[str, Any]:
    return {"code": -31003, "message": message, "data": {"reason": "answer_too_large"}}


async def asked(client: Client, is_modern: bool) -> Any:
    if not is_modern:
        await client.initialize()
        return await client.call()
    return await (await client.ask("tools/call", {"name": "t", "arguments": {}})).json()


@pytest.mark.parametrize("is_modern", [False, True])
async def test_a_body(rig: Stand, caplog: pytest.LogCaptureFixture, is_modern: bool) -> None:
    @rig.server.on("tools/call")
    async def _(call: Call) -> None:
        await call.json(call.response(LONG))

    assert (await asked(rig.client, is_modern))["error"] == error(WHOLE)
    assert told(caplog) == [f"upstream a: {WHOLE} (answer_too_large)"]


@pytest.mark.parametrize("is_modern", [False, True])
async def test_an_event(rig: Stand, caplog: pytest.LogCaptureFixture, is_modern: bool) -> None:
    @rig.server.on("tools/call")
    async def _(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/vendor")
        await stream.send(call.response(LONG))
        await stream.end()

    assert (await asked(rig.client, is_modern))["error"] == error(EVENT)
    assert told(caplog) == [f"upstream a: {EVENT} (answer_too_large)"]


async def test_an_event_on_the_sessions_own_stream(session: Stand, caplog: pytest.LogCaptureFixture) -> None:
    await session.client.listen()
    await (await session.server.listens()).notify("notifications/vendor", LONG)
    await until(lambda: told(caplog) == [f"upstream a: {EVENT} (answer_too_large)"])


async def test_an_event_over_http_sse(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        old_server() as server,
        ReverseProxy({"old": server.url}, port=0) as proxy,
        client_of(proxy.port) as client,
    ):

        @server.on("tools/call")
        async def _(call: OldCall) -> None:
            await call.result(LONG)

        assert (await asked(client, False))["error"] == error(EVENT)
        assert told(caplog) == [f"upstream old: {EVENT} (answer_too_large)"]


async def test_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async with team() as found:
        client = await found.session()
        start = '{"jsonrpc":"2.0","result":"' + LONG[: 2**20]
        answer = await client.call(params=tool("say_raw", raw=start, times=17, end="\n"))
        assert answer["error"] == error(WHOLE)
        dropped, trouble = told(caplog)
        size = 17 * len(start)
        assert dropped.startswith(
            f"upstream speaker: something that is not a message is dropped ({size} bytes, larger than 16 MiB): {{"
        )
        assert trouble == f"upstream speaker: {WHOLE} (answer_too_large)"
