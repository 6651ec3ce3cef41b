"""Exports calls and their answers as an HTTP archive, for tools that read those.

An archive knows requests and responses, and a tape knows messages: each call is written as the POST that it is in
Streamable HTTP. Headers that were not recorded are not made up, and what has no answer is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from shadowcat.replay.transcript import Item
from shadowcat.wire import sse
from shadowcat.wire.tape import Head

_HTTP = "HTTP/1.1"


def har_of(head: Head, items: Iterable[Item]) -> Iterator[bytes]:
    """The archive, piece by piece."""
    creator = {"name": "shadowcat", "version": head.program.rpartition(" ")[2] or "0"}
    yield b'{"log":{"version":"1.2","creator":' + msgspec.json.encode(creator) + b',"entries":['
    separator = b"\n"
    for item in items:
        if item.response is None:
            continue
        yield separator + msgspec.json.encode(_entry(item))
        separator = b",\n"
    yield b"\n]}}\n"


def _entry(item: Item) -> dict[str, Any]:
    response = item.response
    assert response is not None
    took_ms = round(response.ms - item.frame.ms, 3)
    return {
        "startedDateTime": datetime.fromtimestamp(item.frame.at, UTC).isoformat(timespec="milliseconds"),
        "time": took_ms,
        "request": {
            "method": "POST",
            "url": f"http://{response.upstream or 'server'}/mcp",
            "httpVersion": _HTTP,
            "cookies": [],
            "headers": [],
            "queryString": [],
            "postData": {"mimeType": "application/json", "text": item.message.raw.decode()},
            "headersSize": -1,
            "bodySize": len(item.message.raw),
        },
        "response": {
            "status": response.status,
            "statusText": "",
            "httpVersion": _HTTP,
            "cookies": [],
            "headers": [],
            "content": _content(item),
            "redirectURL": "",
            "headersSize": -1,
            "bodySize": -1,
        },
        "cache": {},
        "timings": {"send": 0, "wait": took_ms, "receive": 0},
        "comment": f"message {item.frame.seq} of the tape, session {item.frame.session or '-'}",
    }


def _content(item: Item) -> dict[str, Any]:
    """One message as it is, several as the events that they are on a stream."""
    if len(item.answers) == 1:
        data, kind = item.answers[0].raw, "application/json"
    else:
        data = b"".join(sse.encode_event(frame.raw) for frame in item.answers)
        kind = "text/event-stream"
    return {"size": len(data), "mimeType": kind, "text": data.decode()}
