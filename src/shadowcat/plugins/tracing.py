"""An OpenTelemetry span for each client request, from its arrival until it is answered.

The client's trace goes on: `traceparent` is taken from `_meta` of the request, and that of the span put there instead.
Only the API is used. Who wants to see spans brings an SDK; without one the client's trace passes through unchanged.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shadowcat.core.exchange import PASS, Context, Reject, Replace, Reply, Verdict
from shadowcat.core.interceptor import Interceptor
from shadowcat.errors import Fault
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.text import printable

MAX_OPEN = 20_000
"""Requests without an end: cancelled ones are answered by nobody. Beyond it the oldest span ends as it is."""
MAX_OPEN_BYTES = 64 * 1024 * 1024
"""The same, of the requests that are held."""
_NAME_CHARS = 128
_HANDLE_CHARS = 12
"""Of a session's id, which opens the session to who has all of it."""
_PROPAGATOR = TraceContextTextMapPropagator()


class _Open(NamedTuple):
    span: Span
    requests: list[Message]
    """Held, so that no other gets the identity of one of them."""


class Tracing(Interceptor):
    """Give it to a proxy both as the last interceptor, so that it sees what is sent, and as a tap."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer or trace.get_tracer("shadowcat")
        self._open: dict[int, _Open] = {}
        """By the identity of the request, as it came and as it goes on: an answer is told with one of them."""
        self._held_bytes = 0

    # As an interceptor.

    def on_request(self, message: Message, context: Context) -> Verdict:
        try:
            params = message.param_members()
            meta = jsonrpc.members(bytes(params["_meta"])) if "_meta" in params else {}
        except Fault:
            # What is wrong with it is for the server to say.
            return PASS
        span = self._begin(message, context, params.get("name"), meta)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, otel.Context()))
        if not carrier:
            self._note(message, span)
            return PASS
        meta |= {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in carrier.items()}
        changed = message.with_params(params | {"_meta": msgspec.Raw(msgspec.json.encode(meta))})
        self._note(changed, span)
        return Replace(changed)

    def _begin(
        self, message: Message, context: Context, name: msgspec.Raw | None, meta: dict[str, msgspec.Raw]
    ) -> Span:
        carrier = {key: text for key in _PROPAGATOR.fields if (text := _text(meta.get(key)))}
        span = self._tracer.start_span(
            " ".join(filter(None, (message.method, _text(name)))),
            # Of the client's trace or of none, whatever else this process traces.
            _PROPAGATOR.extract(carrier, otel.Context()),
            SpanKind.SERVER,
        )
        span.set_attribute("mcp.method.name", _shown(message.method))
        if context.upstream:
            span.set_attribute("shadowcat.upstream", context.upstream)
        if context.session_id is not None:
            span.set_attribute("shadowcat.session", context.session_id[:_HANDLE_CHARS])
        return span

    def _note(self, request: Message, span: Span) -> None:
        self._hold(request, _Open(span, []))
        while len(self._open) > MAX_OPEN or self._held_bytes > MAX_OPEN_BYTES:
            self._forget(next(iter(self._open.values()))).end()

    def _hold(self, request: Message, found: _Open) -> None:
        found.requests.append(request)
        self._open[id(request)] = found
        self._held_bytes += len(request.raw)

    def _forget(self, found: _Open) -> Span:
        for request in found.requests:
            if self._open.pop(id(request), None) is not None:
                self._held_bytes -= len(request.raw)
        return found.span

    # As a tap.

    def saw(self, message: Message, context: Context, outcome: Verdict) -> None:
        if message.is_request and isinstance(outcome, Replace):
            self._also_known_as(message, outcome.message)
        span = self._ended(context.request) if message.is_response else None
        if span is None:
            return
        told = outcome.message if isinstance(outcome, Replace | Reply) else message
        if isinstance(outcome, Reject):
            _set_failed(span, outcome.fault.kind.value)
        elif told.kind is Kind.ERROR:
            _set_failed(span, str(told.error().get("code")))
        span.end()

    def failed(self, context: Context, fault: Fault) -> None:
        span = self._ended(context.request)
        if span is not None:
            _set_failed(span, fault.kind.value)
            span.end()

    def _also_known_as(self, came: Message, goes_on: Message) -> None:
        found = self._open.get(id(goes_on))
        if found is not None:
            self._hold(came, found)

    def _ended(self, request: Message | None) -> Span | None:
        found = self._open.get(id(request))
        return None if found is None else self._forget(found)


def _set_failed(span: Span, kind: str) -> None:
    """By a word or a number: what an error says may hold anything."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def _text(raw: msgspec.Raw | None) -> str:
    if raw is None:
        return ""
    try:
        return _shown(msgspec.json.decode(raw, type=str))
    except msgspec.MsgspecError:
        return ""


def _shown(text: str) -> str:
    return printable(text.encode(errors="backslashreplace"), _NAME_CHARS)
