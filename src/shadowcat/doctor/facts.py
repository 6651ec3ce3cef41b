"""What was seen of a server. `None` stands for what was not asked, or not answered."""

from __future__ import annotations

import msgspec


class Latency(msgspec.Struct, frozen=True):
    p50_ms: float
    samples: int
    asked: str


class Opened(msgspec.Struct, frozen=True):
    """A server's promise: what `initialize` or `server/discover` was answered with."""

    versions: list[str]
    server: str
    capabilities: list[str]
    took_ms: float
    has_session_id: bool = False


class Refused(msgspec.Struct, frozen=True):
    """Of `initialize` or `server/discover`."""

    status: int
    content_type: str = ""
    code: int | None = None
    message: str = ""
    flaw: str = ""
    """What is wrong with an answer that is neither a promise nor an error."""
    location: str = ""
    """Where a redirect leads, as a URL."""


class StreamSeen(msgspec.Struct, frozen=True):
    """The standalone stream, a moment after it was asked for."""

    status: int | None
    """None where no answer had begun by then."""
    content_type: str = ""
    cache_control: str = ""
    accel_buffering: str = ""
    first_ms: float | None = None
    """When the first of its bytes came, while it was open."""
    has_ids: bool = False
    waited_s: float = 0.0


class CallSeen(msgspec.Struct, frozen=True):
    """A tool's call that asked for progress."""

    name: str
    status: int
    is_stream: bool
    is_error: bool
    arrivals_ms: list[float]
    """Of each event with a message, the last of them the answer; of one JSON body, its own."""
    has_ids: bool = False
    cache_control: str = ""
    accel_buffering: str = ""


class UnlistedTool(msgspec.Struct, frozen=True):
    """A tool that was to be called and was not, because it is on no page of the list."""

    name: str
    listed: list[str]


class Resumed(msgspec.Struct, frozen=True):
    """A GET with `Last-Event-ID`, for the rest of a stream that had an answer on it."""

    status: int
    has_answer: bool


class HttpFacts(msgspec.Struct):
    url: str
    is_loopback: bool
    is_tls: bool
    unreachable: str = ""
    """Why nothing could be asked, as the engine names it."""
    detail: str = ""
    """The same in the words of the operating system or of TLS."""
    speaks: str = ""
    """`http` or `https`, where the port speaks that and the URL says the other."""
    modern: Opened | Refused | None = None
    legacy: Opened | Refused | None = None
    is_old_transport: bool = False
    """HTTP+SSE: the URL is that of its stream."""
    challenge: str = ""
    """`WWW-Authenticate` of a 401."""
    initialized_status: int | None = None
    unknown_session_status: int | None = None
    missing_session_status: int | None = None
    no_origin_status: int | None = None
    foreign_origin_status: int | None = None
    """Of the same request."""
    own_host_status: int | None = None
    foreign_host_status: int | None = None
    """Of the same request."""
    delete_status: int | None = None
    latency: Latency | None = None
    stream: StreamSeen | None = None
    call: CallSeen | Refused | UnlistedTool | None = None
    resumed: Resumed | None = None
    event_ids: bool | None = None
    """Whether a stream that answered a request had any; None where no request was answered by a stream."""
    listed: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    """How many tools, resources and prompts there are on the first page."""
    flaws: list[str] = msgspec.field(default_factory=list[str])
    """What clients refuse of those lists."""
    failed: list[str] = msgspec.field(default_factory=list[str])
    """What was asked and came to nothing, with the reason."""
    is_cut_short: bool = False


class ChildFacts(msgspec.Struct):
    """A command that was started to be asked, and what became of it."""

    started: bool = False
    why_not: str = ""
    opened: Opened | Refused | None = None
    ended_early: str = ""
    """How it ended, where it did before it was told to."""
    latency: Latency | None = None
    listed: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    garbage: int = 0
    garbage_sample: str = ""
    stderr_lines: int = 0
    stderr_sample: str = ""
    closed_in_s: float | None = None
    """How long it took to end after its stdin was closed; None where it did not."""
    exit: str = ""


class StdioFacts(msgspec.Struct):
    command: str
    legacy: ChildFacts = msgspec.field(default_factory=ChildFacts)
    modern: ChildFacts = msgspec.field(default_factory=ChildFacts)
    is_cut_short: bool = False
