"""The metrics, one row each: name, type, labels, meaning, and where it is read.

docs/reference/metrics.md has the same rows, which a test compares. Labels are names of upstreams, kinds of faults,
statuses and states: their number is known beforehand. Nothing that a peer chose is ever one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple

from shadowcat.admin.health import readiness
from shadowcat.admin.lag import LoopLag
from shadowcat.admin.watched import Recording, RecordNumbers, Watched
from shadowcat.core.ports import Counting
from shadowcat.core.session import State
from shadowcat.core.statistics import Answers, UpstreamStatistics
from shadowcat.proxy.shared import Phase
from shadowcat.proxy.writer import StoreWriter

_KNOWN_STATUSES = frozenset(status.value for status in HTTPStatus)
OTHER = "other"
ANY = "(any)"


class Type(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"


class Watching(NamedTuple):
    """What the numbers are read from."""

    proxy: Watched
    lag: LoopLag
    viewers: Callable[[], int]
    recording: Recording | None


Sample = tuple[tuple[str, ...], float]
"""The values of the labels, and the number."""


class Number(NamedTuple):
    name: str
    type: Type
    labels: tuple[str, ...]
    told: str
    read: Callable[[Watching], Iterable[Sample]]


class Histogram(NamedTuple):
    """Numbers that say how often something took how long."""

    name: str
    labels: tuple[str, ...]
    told: str
    read: Callable[[Watching], Iterable[tuple[tuple[str, ...], Answers]]]


def _one(type: Type, name: str, told: str, read: Callable[[Watching], float]) -> Number:
    def sample(watching: Watching) -> Iterable[Sample]:
        return (((), read(watching)),)

    return Number(f"shadowcat_{name}", type, (), told, sample)


def _counter(name: str, told: str, read: Callable[[Watching], float]) -> Number:
    return _one(Type.COUNTER, name, told, read)


def _gauge(name: str, told: str, read: Callable[[Watching], float]) -> Number:
    return _one(Type.GAUGE, name, told, read)


def _counted(name: str, told: str, attribute: str) -> Number:
    """One of the proxy's counters."""
    return _counter(name, told, lambda watching: getattr(watching.proxy.shared.counters, attribute))


def _upstream(type: Type, name: str, told: str, attribute: str) -> Number:
    def read(watching: Watching) -> Iterable[Sample]:
        return _by_upstream(
            watching,
            (
                ((upstream.name,), getattr(upstream.statistics(), attribute))
                for upstream in watching.proxy.shared.upstreams
                if isinstance(upstream, Counting)
            ),
        )

    assert attribute in UpstreamStatistics.__struct_fields__, attribute
    return Number(f"shadowcat_upstream_{name}", type, ("upstream",), told, read)


def _by_upstream(watching: Watching, samples: Iterable[Sample]) -> Iterable[Sample]:
    """The first label is the upstream's name; where clients choose those, all of them are told as one."""
    if not watching.proxy.shared.upstreams.are_named_by_clients:
        return samples
    together: Counter[tuple[str, ...]] = Counter()
    for (_, *labels), value in samples:
        together[ANY, *labels] += value  # type: ignore[assignment] - a float counts as well
    return together.items()


# Those with labels.


def _sessions(watching: Watching) -> Iterable[Sample]:
    # Not a Counter, which would hash each: there may be 10,000.
    states = [session.core.state for session in watching.proxy.relay.sessions]
    return (((state.value,), states.count(state)) for state in (State.OPEN, State.RECOVERING, State.BROKEN))


def _phases(watching: Watching) -> Iterable[Sample]:
    return (((phase.value,), phase is watching.proxy.shared.phase) for phase in Phase)


def _error_responses(watching: Watching) -> Iterable[Sample]:
    by_status: Counter[str] = Counter()
    for status, count in watching.proxy.server.statistics().errors.items():
        # An upstream may have made one up.
        by_status[str(status) if status in _KNOWN_STATUSES else OTHER] += count
    return (((status,), count) for status, count in by_status.items())


def _faults(watching: Watching) -> Iterable[Sample]:
    faults = watching.proxy.shared.upstreams.faults
    return _by_upstream(
        watching, (((upstream, kind.value), count) for (upstream, kind), count in faults.items())
    )


def _answers(watching: Watching) -> Iterable[tuple[tuple[str, ...], Answers]]:
    upstreams = watching.proxy.shared.upstreams
    if not upstreams.are_named_by_clients:
        return [((upstream.name,), upstreams.answers_of(upstream.name)) for upstream in upstreams]
    together = Answers()
    for upstream in upstreams:
        together.add(upstreams.answers_of(upstream.name))
    return [((ANY,), together)]


def _error_answers(watching: Watching) -> Iterable[Sample]:
    return ((labels, answers.errors) for labels, answers in _answers(watching))


def _in_trouble(watching: Watching) -> Iterable[Sample]:
    upstreams = watching.proxy.shared.upstreams
    return _by_upstream(
        watching,
        (((upstream.name,), upstreams.trouble(upstream.name) is not None) for upstream in upstreams),
    )


def _connections(watching: Watching) -> Iterable[Sample]:
    return _by_upstream(watching, _connections_of(watching))


def _connections_of(watching: Watching) -> Iterable[Sample]:
    for upstream in watching.proxy.shared.upstreams:
        if isinstance(upstream, Counting):
            found = upstream.statistics()
            yield (upstream.name, "idle"), found.connections_idle
            yield (upstream.name, "taken"), found.connections_taken
            yield (upstream.name, "waited_for"), found.connections_waited_for


def _interceptor_failures(watching: Watching) -> Iterable[Sample]:
    # Both come from code: its name, and the class of what it raised.
    return watching.proxy.shared.pipeline.failures.items()


# The store's; zeros where there is none.


def _stored(read: Callable[[StoreWriter], float]) -> Callable[[Watching], float]:
    def found(watching: Watching) -> float:
        writer = watching.proxy.shared.writer
        return 0 if writer is None else read(writer)

    return found


# The recording's; zeros where nobody records.


def _recorded(read: Callable[[RecordNumbers], float]) -> Callable[[Watching], float]:
    return lambda now: 0 if now.recording is None else read(now.recording.statistics())


_PROXY = (
    Number("shadowcat_phase", Type.GAUGE, ("phase",), "1 for the phase that the proxy is in", _phases),
    _gauge("ready", "1 if `/ready` says 200", lambda now: readiness(now.proxy.shared).is_ready),
    _gauge(
        "event_loop_lag_seconds",
        "the longest that the event loop was held up in the last 15 s",
        lambda now: now.lag.worst_s,
    ),
    _gauge("admin_viewers", "open event feeds of the admin listener", lambda now: now.viewers()),
)
_HTTP = (
    _gauge(
        "http_connections",
        "open connections from clients",
        lambda now: now.proxy.server.statistics().connections,
    ),
    _gauge(
        "http_body_bytes",
        "bytes held of request bodies that are arriving or waiting for an answer",
        lambda now: now.proxy.server.statistics().body_bytes,
    ),
    _counter(
        "http_requests_total",
        "requests read completely",
        lambda now: now.proxy.server.statistics().requests,
    ),
    Number(
        "shadowcat_http_error_responses_total",
        Type.COUNTER,
        ("status",),
        "answers with status 400 or higher; in a session, a server's errors have status 200",
        _error_responses,
    ),
    _counter(
        "http_slow_closed_total",
        "connections cut because the client accepted no bytes",
        lambda now: now.proxy.server.statistics().slow_closed,
    ),
)
_SESSIONS = (
    Number("shadowcat_sessions", Type.GAUGE, ("state",), "sessions in this process", _sessions),
    _gauge(
        "sessions_limit", "how many sessions there may be", lambda now: now.proxy.shared.limits.max_sessions
    ),
    _counted("sessions_opened_total", "sessions opened", "sessions_opened"),
    _counted("sessions_ended_total", "sessions ended, for whatever reason", "sessions_ended"),
    _counted(
        "sessions_expired_total",
        "sessions that ended because they were idle for too long",
        "sessions_expired",
    ),
    _counted("sessions_refused_total", "sessions refused because there were too many", "sessions_refused"),
    _counted("sessions_revived_total", "sessions taken up from the store", "sessions_revived"),
    _counted("sessions_lost_total", "sessions that another process took over, or ended", "sessions_lost"),
    _counted(
        "session_recoveries_total", "upstream sessions opened again after the server lost them", "recoveries"
    ),
    _counted(
        "session_recoveries_failed_total",
        "failed attempts to open an upstream session again",
        "recoveries_failed",
    ),
    _counted(
        "session_promises_shrunk_total",
        "sessions ended because the server came back with less",
        "promises_shrunk",
    ),
)
_CALLS = (
    _counted("exchanges_total", "requests from clients, without those that open sessions", "exchanges"),
    _counted("messages_dropped_total", "messages dropped because they were for nobody", "dropped_messages"),
    _counted(
        "server_requests_expired_total",
        "questions from servers that no client answered in time",
        "server_requests_expired",
    ),
    Number(
        "shadowcat_interceptor_failures_total",
        Type.COUNTER,
        ("interceptor", "how"),
        "messages an interceptor or tap failed on; an interceptor's are refused, unless it fails open",
        _interceptor_failures,
    ),
)
_STREAMS = (
    _gauge(
        "stream_log_bytes",
        "bytes held for clients that come back",
        lambda now: now.proxy.shared.log_budget.used,
    ),
    _gauge(
        "stream_log_bytes_limit", "how many bytes may be held", lambda now: now.proxy.shared.log_budget.limit
    ),
    _gauge(
        "stream_log_events",
        "events held for clients that come back",
        lambda now: now.proxy.shared.log_budget.events,
    ),
    _counter(
        "stream_log_evicted_events_total",
        "events dropped before their time to make room",
        lambda now: now.proxy.shared.log_budget.evicted,
    ),
    _counted("client_resumes_total", "streams that clients came back to", "client_resumes"),
    _counted(
        "client_resume_gaps_total",
        "streams that clients came back to, but whose rest was no longer held",
        "gaps",
    ),
    _counted("streams_abandoned_total", "calls ended because nobody read their stream", "streams_abandoned"),
)
_STORE = (
    _gauge("store_failing", "1 while the store fails", _stored(lambda writer: writer.is_failing)),
    _gauge(
        "store_waiting_sessions",
        "sessions with changes that the store does not have yet",
        _stored(len),
    ),
    _gauge(
        "store_set_aside_sessions",
        "waiting sessions that the store refuses while it takes others; each is tried again every 30 s",
        _stored(lambda writer: writer.set_aside),
    ),
    _counter(
        "store_sessions_given_up_total",
        "sessions that cannot be stored at all, and go on without the store",
        _stored(lambda writer: writer.given_up),
    ),
    _counter(
        "store_changes_written_total",
        "changes to sessions written",
        _stored(lambda writer: writer.changes_written),
    ),
    _counter("store_write_failures_total", "writes that failed", _stored(lambda writer: writer.failures)),
    _counted("store_read_failures_total", "other calls to the store that failed", "store_failures"),
)
_RECORDING = (
    _gauge("recording_failing", "1 while nothing can be recorded", _recorded(lambda found: found.is_failing)),
    _counter("recorded_messages_total", "messages recorded", _recorded(lambda found: found.recorded)),
    _counter(
        "recorded_messages_redacted_total",
        "recorded messages from which something was cut out",
        _recorded(lambda found: found.redacted),
    ),
    _counter(
        "record_dropped_messages_total",
        "messages not recorded because they came too fast or could not be written",
        _recorded(lambda found: found.dropped),
    ),
)
_UPSTREAMS = (
    Number(
        "shadowcat_upstream_in_trouble",
        Type.GAUGE,
        ("upstream",),
        "1 from when something goes wrong until the server answers again",
        _in_trouble,
    ),
    Number(
        "shadowcat_upstream_faults_total",
        Type.COUNTER,
        ("upstream", "kind"),
        "what went wrong with the server, by kind of fault",
        _faults,
    ),
    Number(
        "shadowcat_upstream_error_answers_total",
        Type.COUNTER,
        ("upstream",),
        "answers from the server that were JSON-RPC errors",
        _error_answers,
    ),
    Number(
        "shadowcat_upstream_connections",
        Type.GAUGE,
        ("upstream", "state"),
        "connections to the server's host and port; upstreams with the same host and port share them",
        _connections,
    ),
    _upstream(Type.GAUGE, "streams", "open event streams from the server", "streams_open"),
    _upstream(Type.COUNTER, "streams_opened_total", "event streams opened", "streams_opened"),
    _upstream(
        Type.COUNTER,
        "stream_seconds_total",
        "how long the event streams that ended were open, in total",
        "stream_seconds",
    ),
    _upstream(Type.COUNTER, "reconnect_attempts_total", "attempts to resume a stream", "reconnect_attempts"),
    _upstream(Type.COUNTER, "reconnects_total", "streams resumed", "reconnects"),
    _upstream(
        Type.COUNTER, "streams_given_up_total", "streams that could not be resumed", "streams_given_up"
    ),
    _upstream(
        Type.COUNTER,
        "repeated_events_total",
        "events that the server sent again, and that were dropped",
        "events_repeated",
    ),
    _upstream(Type.GAUGE, "processes", "processes of a command", "processes"),
    _upstream(Type.COUNTER, "processes_started_total", "processes started", "processes_started"),
    _upstream(
        Type.COUNTER, "processes_crashed_total", "processes that ended on their own", "processes_crashed"
    ),
    _upstream(
        Type.GAUGE, "circuit_open", "1 while a command that keeps failing is left alone", "is_left_alone"
    ),
    _upstream(
        Type.COUNTER,
        "messages_dropped_total",
        "messages from the server dropped because they were for nobody",
        "messages_dropped",
    ),
    _upstream(
        Type.COUNTER,
        "garbage_lines_total",
        "lines and events from the server that were not messages",
        "lines_of_garbage",
    ),
    _upstream(
        Type.COUNTER,
        "reader_stalls_total",
        "times the server was not read because a client was behind",
        "reader_stalls",
    ),
)
_OF_PROXY = (*_PROXY, *_HTTP, *_SESSIONS, *_CALLS, *_STREAMS)
NUMBERS: tuple[Number, ...] = (*_OF_PROXY, *_STORE, *_RECORDING, *_UPSTREAMS)
HISTOGRAMS = (
    Histogram(
        "shadowcat_upstream_answer_seconds",
        ("upstream",),
        "how long the server took to answer requests; for an event stream, until the answer on it; "
        "subscriptions are not counted",
        _answers,
    ),
)
