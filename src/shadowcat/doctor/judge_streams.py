"""Judges an endpoint's event streams: whether events arrive at once, and whether they can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import pairwise

from shadowcat.doctor.facts import CallSeen, HttpFacts, Opened, Refused, StreamSeen, UnlistedTool
from shadowcat.doctor.finding import Finding, Level

OK, NOTE, WARNING, PROBLEM = Level
APART_MS = 100.0
"""Events further apart than this were not held back until the end."""
LONG_MS = 1_000.0
_SHOWN_TOOLS = 10
CALL = "name a tool that reports progress: --call NAME"


def judged_streams(facts: HttpFacts) -> Iterator[Finding]:
    yield from _called(facts.call)
    yield from _standalone(facts.stream)
    yield _buffering(facts)
    yield from _headers(facts)
    if isinstance(facts.legacy, Opened):
        yield _resuming(facts)


def _called(call: CallSeen | Refused | UnlistedTool | None) -> Iterator[Finding]:
    if isinstance(call, UnlistedTool):
        yield Finding(
            PROBLEM,
            "call",
            f"the server lists no tool {call.name!r}; {_meant(call)}",
            "It was not called.",
            "name a tool from the list",
        )
    elif isinstance(call, Refused):
        saw = f"HTTP {call.status}, error {call.code}: {call.message}"
        yield Finding(PROBLEM, "call", saw, "The server refused the call.", "check its arguments")
    elif call is not None:
        answer = "fails" if call.is_error else "is answered"
        how = f"{len(call.arrivals_ms) - 1} messages and the answer" if call.is_stream else "one JSON body"
        saw = f"{call.name} {answer} after {call.arrivals_ms[-1] / 1000:.1f} s, with {how}"
        means = "The tool reports this itself; its answer says why." if call.is_error else ""
        yield Finding(WARNING if call.is_error else OK, "call", saw, means)


def _meant(call: UnlistedTool) -> str:
    if close := get_close_matches(call.name, call.listed):
        return f"did you mean {' or '.join(close)}?"
    more = len(call.listed) - _SHOWN_TOOLS
    named = ", ".join(call.listed[:_SHOWN_TOOLS]) or "none"
    return f"there are {named} and {more} more" if more > 0 else f"there are {named}"


def _standalone(stream: StreamSeen | None) -> Iterator[Finding]:
    if stream is None:
        return
    if stream.status == 405:
        yield Finding(
            NOTE,
            "stream",
            "no standalone stream",
            "Changes outside a call (to lists and resources) reach no client.",
        )
    elif stream.status is not None and stream.status != 200:
        yield Finding(
            WARNING,
            "stream",
            f"GET is answered with HTTP {stream.status}",
            "Clients look for a stream there; 405 tells them there is none, other answers make them try "
            "again.",
            "answer 405, or with an event stream",
        )
    elif stream.status == 200 and stream.content_type != "text/event-stream":
        yield Finding(
            PROBLEM,
            "stream",
            f"GET is answered with {stream.content_type or 'no content type'} instead of text/event-stream",
            "Clients fail on that.",
            "answer 405, or with an event stream",
        )
    elif stream.status is None:
        yield Finding(
            WARNING,
            "stream",
            f"the head of the standalone stream does not come within {stream.waited_s:g} s",
            "The server sends nothing before its first event, or something on the way holds it back: "
            "clients cannot tell whether the stream is open.",
            "send the head at once; in nginx: proxy_buffering off",
        )


def _buffering(facts: HttpFacts) -> Finding:
    held = "In nginx: proxy_buffering off; elsewhere look for buffering and compression of responses"
    call = facts.call
    if isinstance(call, CallSeen) and call.is_stream and len(call.arrivals_ms) > 1:
        gaps = [after - before for before, after in pairwise(call.arrivals_ms)]
        if max(gaps) >= APART_MS:
            return Finding(OK, "buffering", "a call's events come one by one while it runs")
        if (first_ms := call.arrivals_ms[0]) >= LONG_MS:
            return Finding(
                PROBLEM,
                "buffering",
                f"{len(call.arrivals_ms)} events of a call came all at once, {first_ms / 1000:.1f} s after "
                "it began",
                "Progress and questions arrive only when the call is over, and questions to the user go "
                "unanswered.",
                held,
            )
        return Finding(
            NOTE, "buffering", "the call was too short to tell", "", "call a tool that takes longer"
        )
    stream = facts.stream
    if stream is not None and stream.first_ms is not None:
        return Finding(
            OK, "buffering", f"the open stream gave its first bytes after {stream.first_ms:.0f} ms"
        )
    return Finding(
        NOTE,
        "buffering",
        "cannot tell: no stream sent anything while it was open",
        "If something on the way holds events back, progress and questions arrive too late.",
        CALL,
    )


def _headers(facts: HttpFacts) -> Iterator[Finding]:
    seen = facts.call if isinstance(facts.call, CallSeen) and facts.call.is_stream else facts.stream
    if seen is None or (isinstance(seen, StreamSeen) and seen.content_type != "text/event-stream"):
        return
    missing: list[str] = []
    if "no-cache" not in seen.cache_control and "no-store" not in seen.cache_control:
        missing.append("Cache-Control: no-cache, no-transform")
    if seen.accel_buffering.lower() != "no":
        missing.append("X-Accel-Buffering: no")
    if missing:
        yield Finding(
            NOTE,
            "headers",
            f"event streams come without {' and '.join(missing)}",
            "Proxies on the way may cache or hold back what they should pass on, as nginx does by default.",
            "send them, or turn buffering off where it happens",
        )
    else:
        yield Finding(OK, "headers", "event streams ask proxies to pass them on at once")


def _resuming(facts: HttpFacts) -> Finding:
    resumed = facts.resumed
    lost = "If a connection breaks during a call, the answer is lost."
    if resumed is not None:
        if resumed.has_answer:
            return Finding(
                OK, "resuming", "events have ids, and Last-Event-ID returns the events that followed"
            )
        saw = (
            f"events have ids, but Last-Event-ID is answered with HTTP {resumed.status}"
            if resumed.status != 200
            else "events have ids, but with Last-Event-ID the answer does not come again"
        )
        return Finding(
            PROBLEM,
            "resuming",
            saw,
            f"The ids make clients a promise that is not kept. {lost}",
            "keep events for a while, or send no ids",
        )
    if facts.event_ids is False:
        return Finding(
            NOTE,
            "resuming",
            "streams that answer requests have no event ids",
            lost,
            "put shadowcat reverse in front: streams between it and the client can then be resumed",
        )
    if facts.stream is not None and facts.stream.has_ids:
        return Finding(
            NOTE,
            "resuming",
            "the standalone stream has event ids; cannot tell for calls, because no answer came as a stream",
            "",
            CALL,
        )
    return Finding(NOTE, "resuming", "cannot tell: no answer came as a stream", "", CALL)
