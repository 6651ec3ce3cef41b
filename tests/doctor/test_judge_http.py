"""From facts to findings, as a table: each row changes one fact of a server with which all is well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shadowcat.doctor.facts import (
    CallSeen,
    HttpFacts,
    Latency,
    Opened,
    Refused,
    Resumed,
    StreamSeen,
    UnlistedTool,
)
from shadowcat.doctor.finding import FINE, PROBLEMS, UNUSABLE, Finding, Level, exit_code, told
from shadowcat.doctor.judge_http import judge_http

OK, NOTE, WARNING, PROBLEM = Level

LEGACY = Opened(["2025-11-25"], "server 1", ["tools", "logging"], 3.0, has_session_id=True)
MODERN = Opened(["2026-07-28"], "server 1", ["tools", "logging"], 3.0)
STREAM = StreamSeen(200, "text/event-stream", "no-cache, no-transform", "no", 4.0, has_ids=True)
CALL = CallSeen("count", 200, True, False, [10.0, 400.0, 800.0], True, "no-cache", "no")


MOVED = Refused(307, location="http://127.0.0.1:8080/mcp/")


def healthy() -> HttpFacts:
    return HttpFacts(
        url="http://127.0.0.1:8080/mcp",
        is_loopback=True,
        is_tls=False,
        modern=MODERN,
        legacy=LEGACY,
        initialized_status=202,
        unknown_session_status=404,
        missing_session_status=400,
        no_origin_status=200,
        foreign_origin_status=403,
        own_host_status=200,
        foreign_host_status=403,
        delete_status=200,
        latency=Latency(2.0, 5, "ping"),
        stream=STREAM,
        resumed=Resumed(200, True),
        event_ids=True,
        listed={"tools": 3},
    )


def judged(**changed: Any) -> list[Finding]:
    return judge_http(msgspec.structs.replace(healthy(), **changed))


def test_all_is_well() -> None:
    findings = judged()
    assert {finding.level for finding in findings} == {OK}
    assert {finding.topic for finding in findings} == {
        "era", "capabilities", "session", "origin", "buffering", "headers", "resuming", "latency",
    }  # fmt: skip
    assert exit_code(findings) == FINE


@pytest.mark.parametrize(
    ("changed", "topic", "level", "words"),
    [
        # Eras.
        ({"modern": Refused(400, code=-32600)}, "era", NOTE, "no stateless requests"),
        ({"modern": Opened(["2025-11-25"], "", [], 1.0)}, "era", NOTE, "no stateless requests"),
        ({"legacy": Refused(400, code=-32022)}, "era", NOTE, "no initialize"),
        (
            {"legacy": msgspec.structs.replace(LEGACY, versions=["1999-01-01"])},
            "era",
            PROBLEM,
            "a version that the client did not offer",
        ),
        # TLS.
        ({"is_loopback": False}, "tls", WARNING, "plain HTTP to another machine"),
        ({"is_tls": True}, "tls", OK, "trusted"),
        # Sessions.
        ({"unknown_session_status": 400}, "session", PROBLEM, "400 instead of 404"),
        ({"unknown_session_status": 500}, "session", PROBLEM, "500 instead of 404"),
        ({"unknown_session_status": 200}, "session", WARNING, "served all the same"),
        ({"unknown_session_status": None}, "session", PROBLEM, "gets no answer"),
        ({"missing_session_status": 200}, "session", WARNING, "without a session id is served"),
        ({"initialized_status": 200}, "session", NOTE, "instead of 202"),
        ({"initialized_status": 400}, "session", PROBLEM, "instead of 202"),
        ({"delete_status": 500}, "session", WARNING, "DELETE is answered with HTTP 500"),
        (
            {"legacy": msgspec.structs.replace(LEGACY, has_session_id=False)},
            "session",
            NOTE,
            "no session ids are issued",
        ),
        # Strangers.
        ({"foreign_origin_status": 200, "foreign_host_status": 200}, "origin", PROBLEM, "from any web page"),
        (
            {"foreign_origin_status": 200, "foreign_host_status": None, "is_loopback": False},
            "origin",
            WARNING,
            "from any web page",
        ),
        ({"foreign_origin_status": 200}, "origin", WARNING, "Host is checked and Origin is not"),
        ({"foreign_host_status": 200}, "host", NOTE, "a foreign Host is served"),
        (
            {"foreign_origin_status": 200, "foreign_host_status": 400, "own_host_status": 400},
            "origin",
            WARNING,
            "Origin is not checked",
        ),
        (
            {"foreign_origin_status": 400, "no_origin_status": 400},
            "origin",
            NOTE,
            "cannot tell whether Origin is checked",
        ),
        # The call.
        ({"call": UnlistedTool("ecco", ["add", "echo"])}, "call", PROBLEM, "tool 'ecco'; did you mean echo?"),
        ({"call": UnlistedTool("nope", ["add", "echo"])}, "call", PROBLEM, "'nope'; there are add, echo"),
        ({"call": UnlistedTool("nope", ["add"] * 12)}, "call", PROBLEM, "add and 2 more"),
        ({"call": UnlistedTool("nope", [])}, "call", PROBLEM, "there are none"),
        # Streams.
        ({"stream": StreamSeen(405)}, "stream", NOTE, "no standalone stream"),
        ({"stream": StreamSeen(None, waited_s=3)}, "stream", WARNING, "does not come within 3 s"),
        ({"stream": StreamSeen(400)}, "stream", WARNING, "GET is answered with HTTP 400"),
        ({"stream": StreamSeen(200, "text/html")}, "stream", PROBLEM, "text/html instead of"),
        ({"stream": StreamSeen(200, "")}, "stream", PROBLEM, "no content type instead of"),
        (
            {"stream": msgspec.structs.replace(STREAM, first_ms=None)},
            "buffering",
            NOTE,
            "cannot tell",
        ),
        ({"stream": None, "call": CALL}, "buffering", OK, "one by one"),
        (
            {"call": msgspec.structs.replace(CALL, arrivals_ms=[2000.0, 2001.0, 2002.0])},
            "buffering",
            PROBLEM,
            "3 events of a call came all at once, 2.0 s after it began",
        ),
        (
            {"call": msgspec.structs.replace(CALL, arrivals_ms=[20.0, 21.0])},
            "buffering",
            NOTE,
            "too short to tell",
        ),
        (
            {"call": msgspec.structs.replace(CALL, is_stream=False, arrivals_ms=[20.0]), "stream": None},
            "buffering",
            NOTE,
            "cannot tell",
        ),
        (
            {"stream": msgspec.structs.replace(STREAM, cache_control="", accel_buffering="yes")},
            "headers",
            NOTE,
            "without Cache-Control: no-cache, no-transform and X-Accel-Buffering: no",
        ),
        (
            {"call": msgspec.structs.replace(CALL, accel_buffering="")},
            "headers",
            NOTE,
            "without X-Accel-Buffering: no",
        ),
        # The call that was asked for.
        ({"call": msgspec.structs.replace(CALL, is_error=True)}, "call", WARNING, "count fails"),
        ({"call": CALL}, "call", OK, "after 0.8 s, with 2 messages and the answer"),
        ({"call": Refused(400, code=-32602, message="no")}, "call", PROBLEM, "error -32602: no"),
        # Resuming.
        ({"resumed": Resumed(400, False)}, "resuming", PROBLEM, "answered with HTTP 400"),
        ({"resumed": Resumed(200, False)}, "resuming", PROBLEM, "does not come again"),
        ({"resumed": None, "event_ids": False}, "resuming", NOTE, "no event ids"),
        ({"resumed": None, "event_ids": None}, "resuming", NOTE, "standalone stream has event ids"),
        (
            {"resumed": None, "event_ids": None, "stream": StreamSeen(405)},
            "resuming",
            NOTE,
            "cannot tell",
        ),
        # The rest.
        ({"latency": None}, "latency", PROBLEM, "gets no answer"),
        ({"latency": Latency(800, 5, "ping")}, "latency", NOTE, "800 ms"),
        (
            {"flaws": ["tools/list has a tool 'x' without inputSchema"]},
            "lists",
            PROBLEM,
            "without inputSchema",
        ),
        ({"flaws": list("abcdef")}, "lists", PROBLEM, "a; b; c; 3 more"),
        ({"failed": ["DELETE: deadline"]}, "not answered", NOTE, "DELETE: deadline"),
        ({"is_cut_short": True}, "time", WARNING, "before everything was asked"),
    ],
)
def test_one_thing_is_different(changed: dict[str, Any], topic: str, level: Level, words: str) -> None:
    [found] = [finding for finding in judged(**changed) if finding.topic == topic and words in finding.saw]
    assert (found.level, found.is_fatal) == (level, False)
    assert level in (OK, NOTE) or found.means or found.do
    assert exit_code(judged(**changed)) == (PROBLEMS if level is PROBLEM else FINE)


@pytest.mark.parametrize(
    ("changed", "topic", "words"),
    [
        ({"unreachable": "connection_refused", "detail": "refused"}, "reachable", "nothing listens there"),
        ({"unreachable": "connect_timeout"}, "reachable", "nothing answers there"),
        (
            {"unreachable": "tls_failed", "detail": "self-signed"},
            "reachable",
            "TLS fails (tls_failed: self-signed)",
        ),
        ({"unreachable": "deadline"}, "reachable", "then gives no answer"),
        ({"unreachable": "total"}, "reachable", "never answers"),
        ({"unreachable": "bad_http"}, "reachable", "is not HTTP"),
        ({"unreachable": "upstream_connection_lost"}, "reachable", "without an answer"),
        ({"unreachable": "tls_failed", "is_tls": True, "speaks": "http"}, "reachable", "speaks plain HTTP"),
        ({"modern": Refused(400), "legacy": Refused(400), "speaks": "https"}, "reachable", "speaks TLS"),
        ({"modern": Refused(404), "legacy": Refused(404)}, "era", "HTTP 404"),
        ({"modern": Refused(401), "legacy": Refused(401), "challenge": "Bearer"}, "era", "HTTP 401"),
        ({"modern": Refused(405), "legacy": Refused(405)}, "era", "HTTP 405"),
        ({"modern": Refused(502), "legacy": Refused(502)}, "era", "HTTP 502"),
        ({"modern": Refused(200, "text/html"), "legacy": Refused(200, "text/html")}, "era", "a web page"),
        ({"modern": Refused(501), "legacy": Refused(501)}, "era", "HTTP 501"),
        ({"modern": None, "legacy": None}, "era", "no answer to initialize"),
        ({"modern": None, "legacy": None, "is_cut_short": True}, "era", "before the run was over"),
        (
            {"modern": MOVED, "legacy": MOVED},
            "era",
            "HTTP 307, which leads to http://127.0.0.1:8080/mcp/",
        ),
        (
            {
                "modern": Refused(404),
                "legacy": Refused(200, "application/json", flaw="the id 77 in place of 2"),
            },
            "era",
            "is answered with HTTP 200 and the id 77 in place of 2",
        ),
    ],
)
def test_nobody_can_use_it(changed: dict[str, Any], topic: str, words: str) -> None:
    findings = judged(**changed)
    [found] = [finding for finding in findings if finding.is_fatal]
    assert (found.topic, found.level) == (topic, PROBLEM)
    assert words in found.saw
    assert found.means
    assert found.do
    assert exit_code(findings) == UNUSABLE
    assert not [finding for finding in findings if finding.topic in ("session", "latency", "resuming")]


def test_what_was_not_asked_in_time_is_not_held_against_it() -> None:
    findings = judged(is_cut_short=True, unknown_session_status=None, latency=None)
    assert [finding.topic for finding in findings if finding.level is not OK] == ["time"]


def test_the_old_transport_is_named_and_left_alone() -> None:
    findings = judged(modern=Refused(405), legacy=Refused(405), is_old_transport=True)
    assert [(finding.topic, finding.level) for finding in findings] == [("transport", WARNING)]


def test_what_a_person_is_told() -> None:
    findings = [
        Finding(PROBLEM, "session", "400 instead of 404", "Clients stay lost.", "answer 404"),
        Finding(OK, "era", "both"),
    ]
    assert told(findings).splitlines() == [
        "ok      era: both",
        "problem session: 400 instead of 404",
        "        Clients stay lost.",
        "        -> answer 404",
        "has problems: 1 ok, 1 problem",
    ]
    assert told(findings[1:]).splitlines()[-1] == "fine: 1 ok"
