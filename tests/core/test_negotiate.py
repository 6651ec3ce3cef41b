"""The table of which message belongs to which era."""

from __future__ import annotations

from typing import Any

import pytest

from shadowcat.core.negotiate import (
    Claims,
    Course,
    RoutingHeaders,
    check_routing,
    claims_of,
    course_of,
    era_of_header,
    repeated_of,
)
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind
from shadowcat.wire.mcp import LEGACY_VERSIONS, MODERN_VERSIONS, Era, Meta

MODERN, OLD, ODD = "2026-07-28", "2025-11-25", "v999.0.0"
REQUEST, NOTIFICATION, RESULT, ERROR = Kind.REQUEST, Kind.NOTIFICATION, Kind.RESULT, Kind.ERROR
LEGACY, STATELESS, DROP = Course.LEGACY, Course.MODERN, Course.DROP
INVALID, PARAMS = FaultKind.INVALID_REQUEST, FaultKind.INVALID_PARAMS
MISMATCH, UNSUPPORTED = FaultKind.HEADER_MISMATCH, FaultKind.UNSUPPORTED_VERSION

TABLE: list[tuple[Kind, str | None, Any, Course | FaultKind]] = [
    (REQUEST, None, None, LEGACY),
    *[(REQUEST, version, None, LEGACY) for version in LEGACY_VERSIONS],
    (REQUEST, MODERN, None, PARAMS),
    (REQUEST, ODD, None, UNSUPPORTED),
    (REQUEST, "", None, UNSUPPORTED),
    (REQUEST, None, MODERN, MISMATCH),
    (REQUEST, None, OLD, MISMATCH),
    (REQUEST, OLD, MODERN, MISMATCH),
    (REQUEST, MODERN, OLD, MISMATCH),
    (REQUEST, MODERN, ODD, MISMATCH),
    (REQUEST, MODERN, 7, MISMATCH),
    (REQUEST, MODERN, MODERN, STATELESS),
    (REQUEST, OLD, OLD, UNSUPPORTED),
    (REQUEST, ODD, ODD, UNSUPPORTED),
    (NOTIFICATION, None, None, LEGACY),
    (NOTIFICATION, OLD, None, LEGACY),
    (NOTIFICATION, ODD, None, INVALID),
    (NOTIFICATION, MODERN, None, DROP),
    (NOTIFICATION, MODERN, MODERN, DROP),
    (NOTIFICATION, None, MODERN, DROP),
    (NOTIFICATION, MODERN, ODD, UNSUPPORTED),
    (NOTIFICATION, None, OLD, UNSUPPORTED),
]
for kind in (RESULT, ERROR):
    TABLE += [
        (kind, None, None, LEGACY),
        (kind, OLD, None, LEGACY),
        (kind, MODERN, None, INVALID),
        (kind, ODD, None, INVALID),
    ]


@pytest.mark.parametrize(("kind", "header", "body", "expected"), TABLE)
def test_course(kind: Kind, header: str | None, body: Any, expected: Course | FaultKind) -> None:
    claims = Claims(header, body, has_capabilities=True)
    if isinstance(expected, Course):
        assert course_of(kind, claims) is expected
    else:
        with pytest.raises(Fault) as caught:
            course_of(kind, claims)
        assert caught.value.kind is expected


def test_a_modern_request_needs_its_capabilities() -> None:
    with pytest.raises(Fault) as caught:
        course_of(REQUEST, Claims(MODERN, MODERN, has_capabilities=False))
    assert caught.value.kind is PARAMS
    assert Meta.CLIENT_CAPABILITIES in caught.value.message


def test_a_header_that_is_missing_is_said_to_be() -> None:
    with pytest.raises(Fault) as caught:
        course_of(REQUEST, Claims(None, MODERN, has_capabilities=True))
    assert caught.value.message == "Header mismatch: MCP-Protocol-Version is missing"


def test_an_unsupported_version_is_never_among_the_supported() -> None:
    with pytest.raises(Fault) as caught:
        course_of(REQUEST, Claims(OLD, OLD, has_capabilities=True))
    assert caught.value.data == {"supported": list(MODERN_VERSIONS), "requested": OLD}


PV, CC = Meta.PROTOCOL_VERSION, Meta.CLIENT_CAPABILITIES
ESCAPED = PV.replace("/", "\\u002f")


@pytest.mark.parametrize(
    ("params", "body", "has_capabilities"),
    [
        ("{}", None, False),
        ('{"_meta":{}}', None, False),
        ('{"_meta":[]}', None, False),
        ('{"_meta":null}', None, False),
        (f'{{"_meta":{{"{PV}":"{MODERN}"}}}}', MODERN, False),
        (f'{{"_meta":{{"{PV}":"{MODERN}","{CC}":{{}}}}}}', MODERN, True),
        (f'{{"_meta":{{"{PV}":"{MODERN}","{CC}":[]}}}}', MODERN, False),
        (f'{{"_meta":{{"{PV}":7,"{CC}":{{}}}}}}', 7, True),
        (f'{{"_meta":{{"{ESCAPED}":"{MODERN}"}}}}', MODERN, False),
        (f'{{"\\u005fmeta":{{"{PV}":"{MODERN}"}}}}', MODERN, False),
        (f'{{"arguments":{{"_meta":{{"{PV}":"{MODERN}"}}}}}}', None, False),
    ],
)
@pytest.mark.parametrize("header", [None, MODERN])
def test_claims(header: str | None, params: str, body: Any, has_capabilities: bool) -> None:
    raw = f'{{"jsonrpc":"2.0","id":1,"method":"x","params":{params}}}'
    claims = claims_of(jsonrpc.parse(raw.encode()), header)
    assert claims == Claims(header, body, has_capabilities)


def test_a_version_that_stands_twice_is_refused() -> None:
    raw = f'{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"_meta":{{"{PV}":"a","{PV}":"b"}}}}}}'
    with pytest.raises(Fault):
        claims_of(jsonrpc.parse(raw.encode()), None)


def test_the_era_of_a_header() -> None:
    assert era_of_header(MODERN) is Era.MODERN
    assert all(era_of_header(header) is Era.LEGACY for header in (None, OLD, ODD))


@pytest.mark.parametrize(
    ("method", "params", "headers"),
    [
        ("tools/list", {}, []),
        ("tools/call", {"name": "t"}, [(b"mcp-name", b"t")]),
        ("tools/call", {"name": "Ørjan"}, [(b"mcp-name", b"=?base64?w5hyamFu?=")]),
        ("tools/call", {"name": 5}, []),
        ("resources/read", {"uri": "file:///a"}, [(b"mcp-name", b"file:///a")]),
        ("tasks/get", {"taskId": "1", "name": "t"}, [(b"mcp-name", b"1")]),
    ],
)
def test_the_headers_that_repeat_a_request(
    method: str, params: dict[str, Any], headers: list[tuple[bytes, bytes]]
) -> None:
    meta = {Meta.PROTOCOL_VERSION: "2026-07-28", Meta.CLIENT_CAPABILITIES: {}}
    request = jsonrpc.request(1, method, {**params, "_meta": meta})
    version, *routing = repeated_of(request)
    assert version == (b"mcp-protocol-version", b"2026-07-28")
    assert routing == [(b"mcp-method", method.encode()), *headers]
    # And a server that checks them agrees.
    check_routing(request, RoutingHeaders(routing[0][1], dict(routing).get(b"mcp-name"), (), frozenset()))


def test_a_request_without_a_version_repeats_none() -> None:
    assert repeated_of(jsonrpc.request(1, "tools/list")) == ((b"mcp-method", b"tools/list"),)
