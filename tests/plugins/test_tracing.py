"""A span for each request, in the client's trace, and the server's part of the trace in that span."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from shadowcat import PASS, Context, Interceptor, Message, Replace, Verdict
from shadowcat.plugins import tracing as plugin
from shadowcat.plugins.tracing import Tracing
from tests.rig.client import rpc
from tests.rig.server import Call
from tests.rig.stand import Stand, stand
from tests.rig.wait import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Traced:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self.provider.get_tracer("test"))

    def options(self, *before: Interceptor) -> dict[str, Any]:
        return {"interceptors": [*before, self.tracing], "taps": [self.tracing]}

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()


def ids_of(span: ReadableSpan) -> tuple[str, str]:
    """Of its trace, and its own."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def sent_meta(rig: Stand, method: str = "tools/call") -> dict[str, Any]:
    return rig.server.got(method)[0].json["params"]["_meta"]


@pytest.mark.parametrize("kind", ["json", "sse", "modern"])
async def test_the_trace_goes_through(kind: str) -> None:
    traced = Traced()
    params = {
        "name": "t",
        "arguments": {"x": 1.0},
        "_meta": {"traceparent": PARENT, "tracestate": "a=b", "k": 1},
    }
    async with stand(script={"answers_json": kind != "sse"}, **traced.options()) as rig:
        if kind == "modern":
            meta = params.pop("_meta")
            await (await rig.client.ask("tools/call", params, meta=meta)).json()
        else:
            await rig.client.initialize()
            await rig.client.call(params=params)
        await until(lambda: any(span.name == "tools/call t" for span in traced.spans))
        (span,) = [span for span in traced.spans if span.name == "tools/call t"]
        assert span.kind is SpanKind.SERVER
        assert span.parent is not None
        assert ids_of(span)[0] == TRACE
        assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
        meta = sent_meta(rig)
        assert meta["traceparent"] == f"00-{TRACE}-{ids_of(span)[1]}-01"
        assert (meta["tracestate"], meta["k"]) == ("a=b", 1)
        # The rest is as it was.
        assert b'"arguments":{"x":1.0}' in rig.server.got("tools/call")[0].body.replace(b" ", b"")
        assert span.status.status_code is StatusCode.UNSET
        assert span.attributes is not None
        if kind != "modern":
            assert span.attributes["shadowcat.session"] == (rig.client.session_id or "")[:12]
        assert traced.tracing._open == {}


async def test_the_trace_of_a_client_that_names_it_over_http() -> None:
    traced = Traced()
    async with stand(**traced.options()) as rig:
        await rig.client.initialize()
        await (await rig.client.send(rpc("tools/list", None, 1), ("traceparent", PARENT))).json()
        await until(lambda: any(span.name == "tools/list" for span in traced.spans))
    (span,) = [span for span in traced.spans if span.name == "tools/list"]
    assert span.parent is not None
    assert (ids_of(span)[0], f"{span.parent.span_id:016x}") == (TRACE, PARENT.split("-")[2])


async def test_a_request_without_a_trace_begins_one() -> None:
    traced = Traced()
    async with stand(**traced.options()) as rig:
        await rig.client.initialize()
        await rig.client.call()
        spans = {span.name: span for span in traced.spans}
        assert set(spans) == {"initialize", "tools/call t"}
        assert spans["tools/call t"].parent is None
        assert ids_of(spans["tools/call t"])[0] in sent_meta(rig)["traceparent"]


@pytest.mark.parametrize("value", ["00-zz-1-01", 7, {"a": 1}, "", "x" * 5_000])
async def test_a_trace_that_is_none(value: Any) -> None:
    traced = Traced()
    async with stand(**traced.options()) as rig:
        await rig.client.initialize()
        await rig.client.call(params={"name": "t", "_meta": {"traceparent": value}})
        assert traced.spans[-1].parent is None
        assert sent_meta(rig)["traceparent"] != value


async def test_how_it_went_wrong_is_told_by_a_word() -> None:
    traced = Traced()
    async with stand(**traced.options()) as rig:

        @rig.server.on("tools/call")
        async def fail(call: Call) -> None:
            await call.error(-32000, "canary")

        @rig.server.on("prompts/list")
        async def break_down(call: Call) -> None:
            call.seen.cut()

        await rig.client.initialize()
        await rig.client.call()
        await rig.client.call("prompts/list", id=2)
        failed = {span.name: span for span in traced.spans if span.status.status_code is StatusCode.ERROR}
        assert {name: span.attributes["error.type"] for name, span in failed.items() if span.attributes} == {
            "tools/call t": "-32000",
            "prompts/list": "outcome_unknown",
        }
        assert "canary" not in str([span.to_json() for span in traced.spans])
        assert traced.tracing._open == {}


@pytest.mark.parametrize("kind", ["legacy", "modern"])
async def test_after_another_interceptor(kind: str) -> None:
    class Renames(Interceptor):
        methods = ("tools/call",)

        def on_request(self, message: Message, context: Context) -> Verdict:
            return Replace(message.with_params({**message.params(), "name": "other"}))

        def on_response(self, message: Message, context: Context) -> Verdict:
            return PASS

    traced = Traced()
    async with stand(**traced.options(Renames())) as rig:
        if kind == "modern":
            await (await rig.client.ask("tools/call", {"name": "t"})).json()
        else:
            await rig.client.initialize()
            await rig.client.call()
        assert "tools/call other" in [span.name for span in traced.spans]
        assert traced.tracing._open == {}


@pytest.mark.parametrize("bound", [("MAX_OPEN", 2), ("MAX_OPEN_BYTES", 30_000)])
async def test_what_nobody_answers_is_bounded(
    bound: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, *bound)
    traced = Traced()
    async with stand(**traced.options()) as rig:

        @rig.server.on("tools/call")
        async def never(call: Call) -> None:
            await asyncio.wait((asyncio.ensure_future(call.seen.dropped.wait()),))

        await rig.client.initialize()
        params = {"name": "t", "arguments": {"x": "x" * 10_000}}
        calls = [asyncio.create_task(rig.client.call(params=params, id=number)) for number in range(1, 6)]
        await rig.server.gets("tools/call", 5)
        assert len(traced.tracing._open) <= 2
        assert len([span for span in traced.spans if span.name == "tools/call t"]) >= 3
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    held = {id(request): request for found in traced.tracing._open.values() for request in found.requests}
    assert traced.tracing._held_bytes == sum(len(request.raw) for request in held.values())


async def test_without_an_sdk_the_trace_passes_through() -> None:
    tracing = Tracing()
    async with stand(interceptors=[tracing], taps=[tracing]) as rig:
        await rig.client.initialize()
        await rig.client.call(params={"name": "t", "_meta": {"traceparent": PARENT}})
        assert sent_meta(rig) == {"traceparent": PARENT}


def test_nothing_is_loaded_where_it_is_not_asked_for() -> None:
    code = (
        "import sys; import shadowcat.app.reverse; from shadowcat.app.tracing import tracing; tracing({});"
        "print('opentelemetry' in sys.modules)"
    )
    for is_on in (False, True):
        run = subprocess.run(
            [sys.executable, "-c", code.format(is_on)], capture_output=True, text=True, check=True
        )
        assert run.stdout == f"{is_on}\n"
