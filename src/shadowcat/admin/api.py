"""The API's operations: what an operator can ask of a proxy, and the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from shadowcat.admin.answers import SECURE, Problem, answer, problem
from shadowcat.admin.body import BadBody
from shadowcat.admin.feed import Feed
from shadowcat.admin.feed_response import FeedResponse
from shadowcat.admin.handles import handle_of, named
from shadowcat.admin.health import Readiness, readiness
from shadowcat.admin.lag import LoopLag
from shadowcat.admin.metrics import Exposition
from shadowcat.admin.numbers import Watching
from shadowcat.admin.operations import Operation, Parameter, Reply
from shadowcat.admin.options import AdminOptions
from shadowcat.admin.paging import (
    AFTER_SESSION,
    AFTER_STREAM,
    LIMIT,
    BadParameter,
    limit_of,
    page_of,
    session_cursor,
    sessions_after,
    stream_cursor,
)
from shadowcat.admin.views import (
    Overview,
    SessionDetail,
    SessionView,
    StreamView,
    UpstreamView,
    session_detail,
    session_view,
    stream_view,
    streams_of,
    upstream_view,
)
from shadowcat.admin.watched import Recording, Watched
from shadowcat.proxy.session import Session
from shadowcat.proxy.streams import Stream

_END_S = 10.0
"""How long the end of a session is waited for: its upstream may take its time to hear of it."""


class Health(msgspec.Struct, kw_only=True):
    is_alive: bool


class SessionPage(msgspec.Struct, kw_only=True):
    total: int
    sessions: list[SessionView]
    next: str | None
    """For `after`; null on the last page."""


class StreamPage(msgspec.Struct, kw_only=True):
    streams: list[StreamView]
    next: str | None


class UpstreamList(msgspec.Struct, kw_only=True):
    upstreams: list[UpstreamView]


class Ending(msgspec.Struct, kw_only=True):
    session: str
    is_over: bool
    """False where the upstream has not heard of it yet; clients are refused already."""


_SESSION = Parameter(
    "session",
    "The beginning of its id, of 8 to 12 characters, or the whole.",
    {"type": "string", "pattern": "^([0-9a-f]{8,12}|[0-9a-f]{32})$"},
    where="path",
)
_LAST_EVENT_ID = Parameter(
    "Last-Event-ID", "Up to where the events are known.", {"type": "string"}, where="header"
)
_BAD = Reply("A parameter is not what it should be.", Problem)
_UNKNOWN = Reply("There is none, or more than one.", Problem)


class Api:
    def __init__(
        self, proxy: Watched, feed: Feed, lag: LoopLag, options: AdminOptions, recording: Recording | None
    ) -> None:
        self._proxy = proxy
        self._lag = lag
        self._began_at = proxy.shared.clock.monotonic()
        self._feed = feed
        self._exposition = Exposition(Watching(proxy, lag, lambda: len(feed), recording))
        self._options = options

    def operations(self) -> tuple[Operation, ...]:
        ok = "As it is now."
        return (
            Operation(
                "GET", "/health", "health", "Whether the process answers.", self.health,
                {200: Reply("It does.", Health)}, is_open=True,
            ),
            Operation(
                "GET", "/ready", "ready", "Whether it can do its work, and why not.", self.ready,
                {200: Reply("It can.", Readiness), 503: Reply("It cannot.", Readiness)}, is_open=True,
            ),
            Operation(
                "GET", "/metrics", "metrics", "The numbers, for Prometheus.", self.metrics,
                {200: Reply(ok, kind="text/plain")},
            ),
            Operation(
                "GET", "/api/overview", "overview", "The proxy at a glance.", self.overview,
                {200: Reply(ok, Overview)},
            ),
            Operation(
                "GET", "/api/sessions", "list_sessions", "The sessions that live in this process.",
                self.list_sessions, {200: Reply(ok, SessionPage), 400: _BAD}, (LIMIT, AFTER_SESSION),
            ),
            Operation(
                "GET", "/api/sessions/{session}", "show_session", "One session.", self.show_session,
                {200: Reply(ok, SessionDetail), 404: _UNKNOWN}, (_SESSION,),
            ),
            Operation(
                "DELETE", "/api/sessions/{session}", "end_session", "Ends a session.", self.end_session,
                {200: Reply("It has ended.", Ending), 202: Reply("It is ending.", Ending), 404: _UNKNOWN},
                (_SESSION,),
            ),
            Operation(
                "GET", "/api/streams", "list_streams", "What is held for clients that come back.",
                self.list_streams, {200: Reply(ok, StreamPage), 400: _BAD}, (LIMIT, AFTER_STREAM),
            ),
            Operation(
                "GET", "/api/upstreams", "list_upstreams", "The servers, and what is wrong with them.",
                self.list_upstreams, {200: Reply(ok, UpstreamList)},
            ),
            Operation(
                "GET", "/api/events", "events", "What happened lately and what happens, as server-sent events.",
                self.events,
                {200: Reply("The feed.", kind="text/event-stream"), 503: Reply("Too many watch.", Problem)},
                (_LAST_EVENT_ID,),
            ),
        )  # fmt: skip

    # Health and numbers.

    async def health(self, request: Request) -> Response:
        return answer(Health(is_alive=True))

    async def ready(self, request: Request) -> Response:
        found = readiness(self._proxy.shared)
        return answer(found, 200 if found.is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        text, kind = self._exposition.text(request.headers.get("accept", ""))
        return Response(text, headers={**SECURE, "Content-Type": kind})

    async def overview(self, request: Request) -> Response:
        shared = self._proxy.shared
        counters, log_budget = shared.counters, shared.log_budget
        http = self._proxy.server.statistics()
        return answer(
            Overview(
                version=version("shadowcat"),
                node=shared.node,
                phase=shared.phase.value,
                up_s=round(self._now - self._began_at, 1),
                sessions=len(self._proxy.relay.sessions),
                sessions_limit=shared.limits.max_sessions,
                connections=http.connections,
                requests=http.requests,
                exchanges=counters.exchanges,
                client_resumes=counters.client_resumes,
                recoveries=counters.recoveries,
                held_events=log_budget.events,
                held_bytes=log_budget.used,
                held_bytes_limit=log_budget.limit,
                has_store=shared.store is not None,
                loop_lag_s=round(self._lag.worst_s, 4),
            )
        )

    # Sessions.

    @property
    def _now(self) -> float:
        return self._proxy.shared.clock.monotonic()

    async def list_sessions(self, request: Request) -> Response:
        limit = limit_of(request)
        sessions = self._proxy.relay.sessions
        found = sessions_after(sessions, session_cursor(request), limit + 1)
        page, following = page_of(found, limit, lambda session: handle_of(session.id))
        views = [session_view(session, self._now) for session in page]
        return answer(SessionPage(total=len(sessions), sessions=views, next=following))

    async def show_session(self, request: Request) -> Response:
        found = self._named(request)
        return found if isinstance(found, Response) else answer(session_detail(found, self._now))

    async def end_session(self, request: Request) -> Response:
        found = self._named(request)
        if isinstance(found, Response):
            return found
        handle = handle_of(found.id)
        proxy = self._proxy
        # Whoever asked may go meanwhile, and this listener too: it ends all the same.
        ending = proxy.shared.tasks.spawn(proxy.relay.sessions.end(found, "operator"), f"end {handle}")
        done, _ = await asyncio.wait((ending,), timeout=_END_S)
        return answer(Ending(session=handle, is_over=bool(done)), 200 if done else 202)

    def _named(self, request: Request) -> Session | Response:
        found = named(self._proxy.relay.sessions, request.path_params["session"])
        if len(found) == 1:
            return found[0]
        told = "More than one session begins like that" if found else "There is no such session here"
        return problem(404, "session_ambiguous" if found else "session_unknown", told)

    # Streams and servers.

    async def list_streams(self, request: Request) -> Response:
        limit = limit_of(request)
        page, following = page_of(
            self._streams(*stream_cursor(request)), limit, lambda entry: _stream_cursor(*entry)
        )
        return answer(StreamPage(streams=[stream_view(*entry) for entry in page], next=following))

    def _streams(self, handle: str, stream: int) -> Iterator[tuple[Session, Stream]]:
        sessions = sorted(self._proxy.relay.sessions, key=lambda session: session.id)
        for session in sessions:
            own = handle_of(session.id)
            if own >= handle:
                after = stream if own == handle else -1
                yield from ((session, found) for found in streams_of(session, after))

    async def list_upstreams(self, request: Request) -> Response:
        shared = self._proxy.shared
        users: dict[str, int] = {}
        for session in self._proxy.relay.sessions:
            name = session.core.record.upstream
            users[name] = users.get(name, 0) + 1
        views = [upstream_view(shared, each, users.get(each.name, 0)) for each in shared.upstreams]
        return answer(UpstreamList(upstreams=views))

    # What happens.

    async def events(self, request: Request) -> Response:
        if self._feed.is_full:
            return problem(503, "too_many_viewers", "As many as may watch do", headers={"Retry-After": "5"})
        last_id = request.headers.get("last-event-id", "")
        return FeedResponse(self._feed, self._options.heartbeat_s, last_id)


def bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadParameter)
    return problem(400, "bad_parameter", str(error))


def bad_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadBody)
    return problem(error.status, error.reason, str(error))


def failed(request: Request, error: Exception) -> Response:
    """Nothing of the error but that there was one; the log has the rest."""
    return problem(500, "internal_error", "This failed; the log says how")


def not_routed(request: Request, error: Exception) -> Response:
    """404 and 405, as Starlette tells them."""
    status: Any = getattr(error, "status_code", 404)
    reason, told = (
        ("method_not_allowed", "Not this way") if status == 405 else ("not_found", "Nothing is here")
    )
    return problem(status, reason, told, headers=getattr(error, "headers", None))


def _stream_cursor(session: Session, stream: Stream) -> str:
    return f"{handle_of(session.id)}.{stream.id}"
