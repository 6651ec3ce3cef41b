"""What the API shows of sessions, streams, upstreams and events.

No message, no header, and no id that opens anything: see `handles`. What peers chose themselves (names of clients,
methods, ids of requests) is cut to a length, and inert for who reads it: it cannot end a line or turn it around.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from shadowcat.admin.handles import handle_of
from shadowcat.core.ports import Counting, Upstream
from shadowcat.core.statistics import UpstreamStatistics
from shadowcat.proxy.news import Happening
from shadowcat.proxy.session import Session
from shadowcat.proxy.shared import Shared
from shadowcat.proxy.streams import Stream
from shadowcat.wire.jsonrpc import RequestId
from shadowcat.wire.text import printable

MAX_LISTED = 100
"""Running calls, questions and streams that are shown of one session."""
_NAME_CHARS = 64


class Client(msgspec.Struct, kw_only=True):
    """As it introduced itself."""

    name: str
    version: str


class SessionView(msgspec.Struct, kw_only=True):
    session: str
    """The beginning of its id."""
    upstream: str
    version: str
    state: str
    client: Client | None
    opened_at: str
    idle_s: float
    is_busy: bool
    calls: int
    """Requests that run."""
    questions: int
    """Of the server's that the client has not answered."""
    streams: int
    held_bytes: int


class CallView(msgspec.Struct, kw_only=True):
    method: str
    is_streaming: bool


class StreamView(msgspec.Struct, kw_only=True):
    session: str
    stream: int
    answers: str | None
    """The id of the request, as JSON; none on a standalone stream and on one that answers a batch."""
    is_standalone: bool
    first_event: int
    last_event: int
    given_up_to: int
    """The last event that a connection of the client's was given."""
    held_bytes: int
    is_read: bool
    is_finished: bool
    is_resumable: bool
    """The upstream can be asked for the rest."""
    waits_for_room: bool
    """Its source is not read until the client has taken something."""


class SessionDetail(SessionView, kw_only=True):
    principal: str
    log_level: str | None
    subscriptions: int
    follows_upstream: bool
    """The upstream's standalone stream is open, or tried for."""
    running: list[CallView]
    asked: list[str]
    """The methods of the open questions."""
    stored_streams: list[StreamView]


class TroubleView(msgspec.Struct, kw_only=True):
    kind: str
    reason: str
    for_s: float
    last_seen_s: float
    """How long ago."""


class UpstreamView(msgspec.Struct, kw_only=True):
    upstream: str
    sessions: int
    trouble: TroubleView | None
    """None while it answers."""
    faults: dict[str, int]
    """How often it went wrong, by kind."""
    statistics: UpstreamStatistics | None
    """None for one that does not count."""


class Overview(msgspec.Struct, kw_only=True):
    version: str
    node: str
    """By what the store knows this process."""
    phase: str
    up_s: float
    sessions: int
    sessions_limit: int
    connections: int
    requests: int
    exchanges: int
    client_resumes: int
    recoveries: int
    held_events: int
    held_bytes: int
    held_bytes_limit: int
    has_store: bool
    loop_lag_s: float


class EventView(msgspec.Struct, kw_only=True):
    what: str
    at: str
    session: str | None
    upstream: str | None
    reason: str | None

    @classmethod
    def of(cls, happening: Happening, wall: float) -> EventView:
        what, session_id, upstream, reason = happening
        session = None if session_id is None else handle_of(session_id)
        return cls(what=what.value, at=time_of(wall), session=session, upstream=upstream, reason=reason)


def session_detail(session: Session, now: float) -> SessionDetail:
    core = session.core
    record, correlator = core.record, core.correlator
    return SessionDetail(
        **msgspec.structs.asdict(session_view(session, now)),
        principal=record.principal,
        log_level=None if record.log_level is None else _shown(record.log_level),
        subscriptions=len(record.subscriptions),
        follows_upstream=session.is_listening,
        running=[
            CallView(method=_shown(entry.method), is_streaming=entry.stream is not None)
            for entry in correlator.in_flight()[:MAX_LISTED]
        ],
        asked=[_shown(asked.method) for asked in correlator.unanswered()[:MAX_LISTED]],
        stored_streams=[stream_view(session, stream) for stream in streams_of(session)][:MAX_LISTED],
    )


def session_view(session: Session, now: float) -> SessionView:
    core = session.core
    record, correlator = core.record, core.correlator
    return SessionView(
        session=handle_of(record.id),
        upstream=record.upstream,
        version=record.version,
        state=core.state.value,
        client=_client(record.initialize_params),
        opened_at=time_of(record.created_wall),
        idle_s=0.0 if core.is_busy else round(now - core.last_used, 1),
        is_busy=core.is_busy,
        calls=len(correlator.in_flight()),
        questions=len(correlator.unanswered()),
        streams=len(core.book),
        held_bytes=core.book.held_bytes,
    )


def streams_of(session: Session, after: int = -1) -> Iterator[Stream]:
    streams = sorted(session.core.book.all, key=lambda stream: stream.id)
    return (stream for stream in streams if stream.id > after)


def stream_view(session: Session, stream: Stream) -> StreamView:
    log = stream.log
    return StreamView(
        session=handle_of(session.id),
        stream=stream.id,
        answers=_as_json(stream.request_id),
        is_standalone=stream.id == 0,
        first_event=log.first_seq,
        last_event=log.last_seq,
        given_up_to=log.handed_out,
        held_bytes=log.held_bytes,
        is_read=stream.is_read,
        is_finished=log.closed,
        is_resumable=stream.is_resumable,
        waits_for_room=log.must_wait,
    )


def upstream_view(shared: Shared, upstream: Upstream, sessions: int) -> UpstreamView:
    now = shared.clock.monotonic()
    known = shared.upstreams.trouble(upstream.name)
    trouble = None
    if known is not None:
        trouble = TroubleView(
            kind=known.kind.value,
            reason=known.reason,
            for_s=round(now - known.since, 1),
            last_seen_s=round(now - known.last_at, 1),
        )
    return UpstreamView(
        upstream=upstream.name,
        sessions=sessions,
        trouble=trouble,
        faults={
            kind.value: count
            for (name, kind), count in shared.upstreams.faults.items()
            if name == upstream.name
        },
        statistics=upstream.statistics() if isinstance(upstream, Counting) else None,
    )


class _Introduction(msgspec.Struct):
    name: str = ""
    version: str = ""


class _Params(msgspec.Struct):
    client: _Introduction | None = msgspec.field(name="clientInfo", default=None)


def _client(initialize_params: bytes) -> Client | None:
    """What is wrong with it is the server's to say; here it is not shown."""
    try:
        told = msgspec.json.decode(initialize_params, type=_Params).client
    except msgspec.MsgspecError:
        return None
    return None if told is None else Client(name=_shown(told.name), version=_shown(told.version))


def _as_json(id: RequestId | None) -> str | None:
    return None if id is None else printable(msgspec.json.encode(id), _NAME_CHARS)


def _shown(text: str) -> str:
    return printable(text.encode(errors="backslashreplace"), _NAME_CHARS)


def time_of(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
