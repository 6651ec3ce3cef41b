"""W3C Trace Context: the headers of a client's request become members of `_meta`, where those say nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.client import rpc
from tests.rig.stand import Stand

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-00000000000000000000000000000001-0000000000000001-00"


def sent_params(rig: Stand, method: str) -> Any:
    return rig.server.got(method)[-1].json.get("params")


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_headers_go_into_meta(session: Stand, era: str) -> None:
    headers = ("traceparent", PARENT), ("tracestate", "a=b,c=d")
    if era == "modern":
        reply = await session.client.ask("tools/call", {"name": "t", "arguments": {"x": 1.0}}, *headers)
    else:
        reply = await session.client.send(
            rpc("tools/call", {"name": "t", "arguments": {"x": 1.0}, "_meta": {"k": 1}}, 1), *headers
        )
    assert "result" in await reply.json()
    params = sent_params(session, "tools/call")
    assert (params["_meta"]["traceparent"], params["_meta"]["tracestate"]) == (PARENT, "a=b,c=d")
    assert params["_meta"].get("k") == (None if era == "modern" else 1)
    assert b'"arguments":{"x":1.0}' in session.server.got("tools/call")[-1].body.replace(b" ", b"")


async def test_a_request_without_parameters_gets_some(session: Stand) -> None:
    await (await session.client.send(rpc("tools/list", None, 1), ("traceparent", PARENT))).json()
    assert sent_params(session, "tools/list") == {"_meta": {"traceparent": PARENT}}


async def test_what_the_message_says_stays(session: Stand) -> None:
    message = rpc("tools/list", {"_meta": {"traceparent": OTHER}}, 1)
    await (await session.client.send(message, ("traceparent", PARENT), ("tracestate", "a=b"))).json()
    assert sent_params(session, "tools/list") == {"_meta": {"traceparent": OTHER}}


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "00-xyz-00f067aa0ba902b7-01")],
        [("traceparent", PARENT), ("traceparent", OTHER)],
        [("tracestate", "a=b")],
    ],
)
async def test_headers_that_name_no_trace_change_nothing(
    session: Stand, headers: list[tuple[str, str]]
) -> None:
    await (await session.client.send(rpc("tools/list", None, 1), *headers)).json()
    assert sent_params(session, "tools/list") is None
