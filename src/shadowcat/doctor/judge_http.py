"""Turns facts about an HTTP endpoint into findings. Pure: each rule contributes its part, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from shadowcat.doctor.facts import HttpFacts, Opened, Refused
from shadowcat.doctor.finding import Finding, Level
from shadowcat.doctor.judge_both import judged_latency, judged_offers, judged_time
from shadowcat.doctor.judge_streams import judged_streams
from shadowcat.wire.mcp import LEGACY_VERSIONS, MODERN_VERSIONS

OK, NOTE, WARNING, PROBLEM = Level

_WHY_UNREACHABLE = {
    "connection_refused": ("nothing listens there", "start the server, or check host and port"),
    "connect_timeout": ("nothing answers there", "check for a firewall or a wrong address"),
    "upstream_connection_lost": (
        "it closes the connection without an answer",
        "check the server's log: it has failed, accepts nobody from here, or speaks another protocol",
    ),
    "bad_http": ("what answers there is not HTTP", "check the port: it belongs to another program"),
    "total": (
        "it takes the request and never answers",
        "check whether the server hangs or waits for something itself; restart it",
    ),
    "tls_failed": (
        "TLS fails",
        "make sure the certificate is valid for this name, complete, and trusted here",
    ),
    "connect_failed": ("the connection fails", "check the name and the network"),
}


_SHOWN_FLAWS = 3
_REDIRECTS = (301, 302, 303, 307, 308)


def judge_http(facts: HttpFacts) -> list[Finding]:
    if facts.speaks:
        return [_other_scheme(facts)]
    if facts.unreachable:
        return [*judged_time(is_cut_short=facts.is_cut_short), _unreachable(facts)]
    found = [*_tls(facts), *_eras(facts)]
    if not any(finding.is_fatal for finding in found) and not facts.is_old_transport:
        found += [
            *_offers(facts),
            *_sessions(facts),
            *_strangers(facts),
            *judged_streams(facts),
            *_latency(facts),
            *_lists(facts),
            *_failures(facts),
        ]
    return [*found, *judged_time(is_cut_short=facts.is_cut_short)]


def _unreachable(facts: HttpFacts) -> Finding:
    told, do = _WHY_UNREACHABLE.get(
        facts.unreachable, ("it accepts the connection and then gives no answer", "check the server's log")
    )
    saw = f"{told} ({facts.unreachable}{f': {facts.detail}' if facts.detail else ''})"
    return Finding(PROBLEM, "reachable", saw, "No client gets any further than this.", do, is_fatal=True)


def _other_scheme(facts: HttpFacts) -> Finding:
    saw = (
        "the port speaks plain HTTP, and the URL says https"
        if facts.is_tls
        else "the port speaks TLS, and the URL says http"
    )
    return Finding(
        PROBLEM,
        "reachable",
        saw,
        "No client gets any further than this.",
        f"write the URL with {facts.speaks}://",
        is_fatal=True,
    )


def _tls(facts: HttpFacts) -> Iterator[Finding]:
    if facts.is_tls:
        yield Finding(OK, "tls", "the certificate is trusted here and valid for this name")
    elif not facts.is_loopback:
        yield Finding(
            WARNING,
            "tls",
            "plain HTTP to another machine",
            "Anyone on the way can read and change everything, including tokens.",
            "put TLS in front of it",
        )


# Eras.


def _eras(facts: HttpFacts) -> Iterator[Finding]:
    legacy, modern = facts.legacy, facts.modern
    if isinstance(modern, Opened) and not set(modern.versions) & set(MODERN_VERSIONS):
        # Some servers of before answer, and list what they speak.
        modern = None
    if isinstance(legacy, Opened):
        versions = sorted(legacy.versions, reverse=True)
        yield Finding(OK, "era", f"initialize and sessions, versions {', '.join(versions)}{_by(legacy)}")
        if not set(versions) <= set(LEGACY_VERSIONS):
            yield Finding(
                PROBLEM,
                "era",
                "initialize agrees on a version that the client did not offer",
                "Clients end the connection there.",
                "answer with the version asked for, or the newest of your own that initialize has",
            )
    if isinstance(modern, Opened):
        yield Finding(OK, "era", f"stateless requests, versions {', '.join(modern.versions)}{_by(modern)}")
    if isinstance(legacy, Opened) and isinstance(modern, Opened):
        return
    if isinstance(legacy, Opened):
        yield Finding(
            NOTE,
            "era",
            "no stateless requests (2026-07-28)",
            "Clients that speak nothing else cannot use the server; clients of both eras fall back to "
            "initialize.",
        )
    elif isinstance(modern, Opened):
        yield Finding(
            NOTE,
            "era",
            "no initialize",
            "Clients of 2025-11-25 and older cannot use the server.",
        )
    elif facts.is_old_transport:
        yield Finding(
            WARNING,
            "transport",
            "HTTP+SSE, the transport of 2024-11-05",
            "Newer clients no longer speak it, and no stream can be resumed. It was not checked any further.",
            "put a proxy in front that speaks the newer ones: shadowcat reverse --upstream URL",
        )
    else:
        yield _no_era(facts)


def _by(opened: Opened) -> str:
    return f" ({opened.server})" if opened.server else ""


def _no_era(facts: HttpFacts) -> Finding:
    refused = facts.legacy if isinstance(facts.legacy, Refused) else facts.modern
    status = refused.status if isinstance(refused, Refused) else None
    if refused is None and facts.is_cut_short:
        return Finding(
            PROBLEM,
            "era",
            "no answer to initialize before the run was over",
            "The server is slow, or hangs.",
            "allow more time with --deadline, or check the server's log",
            is_fatal=True,
        )
    saw = "no answer to initialize" if status is None else f"initialize is answered with HTTP {status}"
    if isinstance(refused, Refused) and refused.message:
        saw += f" ({refused.message})"
    elif isinstance(refused, Refused) and refused.flaw and status in (200, *_REDIRECTS):
        saw += f" and {refused.flaw}"
    means = "This is not an MCP endpoint, or it does not let you in."
    match status:
        case status if isinstance(refused, Refused) and refused.location and status in _REDIRECTS:
            saw = f"initialize is answered with HTTP {status}, which leads to {refused.location}"
            means = "Not every client follows that, and some lose the request on the way."
            do = f"use that URL: {refused.location}"
        case 401 | 403:
            scheme = f" It asks for: {facts.challenge}" if facts.challenge else ""
            means = f"The server wants to know who is asking.{scheme}"
            do = "give a token with --token-from VARIABLE"
        case 404:
            do = "check the path: most servers use /mcp"
        case 405:
            do = "check the path: this one takes no POST"
        case 406 | 415:
            do = "the server does not accept the content types of MCP; look for a proxy that changes headers"
        case 501:
            means = "What answers there does not know POST: it is not an MCP server."
            do = "check host, port and path of the URL, and any proxy on the way"
        case 200 if isinstance(refused, Refused) and refused.content_type == "text/html":
            saw = "initialize is answered with HTTP 200 and a web page"
            means = "A web server answers there, not an MCP endpoint."
            do = "check the path: most servers use /mcp; if the page is a login, give a token with --token-from"
        case 200 if isinstance(refused, Refused) and refused.flaw:
            means = "Clients do not accept that as an answer."
            do = "make sure the URL is an MCP endpoint; if it is, fix its answer to initialize"
        case status if status is not None and status >= 500:
            means = "The server, or something it needs, is down."
            do = "check the log of whatever answered"
        case _:
            do = "make sure the URL is an MCP endpoint"
    return Finding(PROBLEM, "era", saw, means, do, is_fatal=True)


def _offers(facts: HttpFacts) -> Iterator[Finding]:
    opened = facts.legacy if isinstance(facts.legacy, Opened) else facts.modern
    if isinstance(opened, Opened):
        yield judged_offers(opened, facts.listed)


# Sessions, and who may ask.


def _sessions(facts: HttpFacts) -> Iterator[Finding]:
    opened = facts.legacy
    if not isinstance(opened, Opened):
        return
    if not opened.has_session_id:
        yield Finding(
            NOTE,
            "session",
            "no session ids are issued",
            "The server keeps nothing between requests: it can be restarted at will, but cannot ask the "
            "client anything outside a call.",
        )
        return
    if facts.unknown_session_status is not None or not facts.is_cut_short:
        yield _unknown_session(facts.unknown_session_status)
    if facts.missing_session_status is not None and 200 <= facts.missing_session_status < 300:
        yield Finding(
            WARNING,
            "session",
            "a request without a session id is served",
            "A client that has lost its id does not notice.",
            "answer 400",
        )
    if facts.initialized_status not in (None, 202):
        yield Finding(
            NOTE if 200 <= (facts.initialized_status or 0) < 300 else PROBLEM,
            "session",
            f"notifications are answered with HTTP {facts.initialized_status} instead of 202",
            "Strict clients take that for an error.",
            "answer 202 without a body",
        )
    if facts.delete_status is not None and facts.delete_status >= 300 and facts.delete_status != 405:
        yield Finding(
            WARNING,
            "session",
            f"DELETE is answered with HTTP {facts.delete_status}",
            "Sessions that clients are done with stay until they expire.",
            "answer 200, or 405 if clients may not end sessions",
        )


def _unknown_session(status: int | None) -> Finding:
    match status:
        case 404:
            return Finding(OK, "session", "ids are issued, and an unknown one gets 404")
        case None:
            return Finding(
                PROBLEM,
                "session",
                "an unknown session id gets no answer",
                "After a restart of the server, clients wait in vain.",
                "answer 404",
            )
        case status if 200 <= status < 300:
            return Finding(
                WARNING,
                "session",
                "ids are issued, but an unknown one is served all the same",
                "The ids mean nothing: after a restart, clients go on with a server that knows nothing "
                "about them.",
                "answer 404, or issue none",
            )
        case _:
            return Finding(
                PROBLEM,
                "session",
                f"an unknown session id gets {status} instead of 404",
                "404 tells a client to open a new session. Without it, a client whose session has expired, "
                "or whose server has restarted, fails until somebody restarts the client too.",
                "answer 404, or put shadowcat reverse in front, which reopens the session",
            )


def _strangers(facts: HttpFacts) -> Iterator[Finding]:
    served_origin = _is_served_to(facts.foreign_origin_status, facts.no_origin_status)
    served_host = _is_served_to(facts.foreign_host_status, facts.own_host_status)
    if served_origin:
        yield _unchecked_origin(facts, served_host=served_host)
    elif served_origin is False:
        yield Finding(OK, "origin", f"a foreign Origin gets {facts.foreign_origin_status}")
    elif facts.foreign_origin_status is not None:
        saw = "cannot tell whether Origin is checked: a request without one is not served either"
        yield Finding(NOTE, "origin", saw)
    if served_host and served_origin is False:
        yield Finding(
            NOTE,
            "host",
            "a foreign Host is served on loopback",
            "Origin is checked, which stops browsers; checking Host too would be a second lock.",
        )


def _unchecked_origin(facts: HttpFacts, *, served_host: bool | None) -> Finding:
    if served_host or not facts.is_loopback:
        here = "on this machine" if facts.is_loopback else "behind it"
        return Finding(
            PROBLEM if facts.is_loopback else WARNING,
            "origin",
            "a request from any web page is served",
            f"A web page that somebody visits can use the server {here} through the browser (DNS rebinding).",
            "check Origin against a list, and Host on loopback",
        )
    return Finding(
        WARNING,
        "origin",
        "Origin is not checked" if served_host is None else "Host is checked and Origin is not",
        "The protocol requires both.",
        "answer 403 to an Origin that is not on a list",
    )


def _is_served_to(stranger: int | None, friend: int | None) -> bool | None:
    """None where it cannot be told: what is refused to everybody says nothing of strangers."""
    if _is_served(stranger):
        return True
    return False if stranger is not None and _is_served(friend) else None


def _is_served(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


# The rest.


def _latency(facts: HttpFacts) -> Iterator[Finding]:
    # What was not asked any more is not the server's fault.
    if facts.latency is not None or not facts.is_cut_short:
        yield judged_latency(facts.latency)


def _lists(facts: HttpFacts) -> Iterator[Finding]:
    told = facts.flaws[:_SHOWN_FLAWS]
    if len(facts.flaws) > len(told):
        told.append(f"{len(facts.flaws) - len(told)} more")
    if told:
        yield Finding(
            PROBLEM,
            "lists",
            "; ".join(told),
            "The official clients refuse the whole list, or never stop reading it.",
            "make sure each entry has what the protocol requires, and the last page has no nextCursor",
        )


def _failures(facts: HttpFacts) -> Iterator[Finding]:
    for failure in facts.failed:
        yield Finding(NOTE, "not answered", failure, "Whatever depends on it was not checked.")
