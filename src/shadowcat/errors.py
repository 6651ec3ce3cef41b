"""Faults: what went wrong, on whose side, whether bytes may have left, and how a client is told.

Every part raises `Fault` for what a peer or an operator must hear about. `describe` is the one place where a
kind of fault becomes an HTTP status and a JSON-RPC error, so no two parts can tell the same fault differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar, assert_never

Detail = dict[str, Any]


class Side(Enum):
    """Who is to blame: it decides what is logged loudly and which breaker counts it."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    OURS = "ours"


class FaultKind(Enum):
    # What a client sent.
    PARSE = "parse"
    INVALID_REQUEST = "invalid_request"
    METHOD_NOT_FOUND = "method_not_found"
    INVALID_PARAMS = "invalid_params"
    HEADER_MISMATCH = "header_mismatch"
    MISSING_CAPABILITY = "missing_capability"
    UNSUPPORTED_VERSION = "unsupported_version"
    FORBIDDEN = "forbidden"
    SESSION_UNKNOWN = "session_unknown"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    REFUSED_BY_RULE = "refused_by_rule"
    STREAM_NOT_RESUMABLE = "stream_not_resumable"
    # What an upstream did.
    UPSTREAM_INVALID = "upstream_invalid"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_SESSION_LOST = "upstream_session_lost"
    OUTCOME_UNKNOWN = "outcome_unknown"
    DEADLINE = "deadline"
    # What we could not do.
    OVER_CAPACITY = "over_capacity"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Told:
    """A fault as a client hears it: an HTTP status for the whole answer, a JSON-RPC code and sentence inside."""

    status: int
    code: int
    message: str


E = TypeVar("E", bound=BaseException)


def without_frames(error: E) -> E:
    """The same, and what it was raised from, without the frames that they went through.

    These hold all that was worked on there. Who keeps an exception keeps them; what is one for all, as an interceptor
    of somebody else's may have it, gathers those of each time that it is raised.
    """
    error.__traceback__ = error.__context__ = None
    if error.__cause__ is not None:
        error.__cause__.__traceback__ = error.__cause__.__context__ = None
    return error


class Fault(Exception):
    """One thing that went wrong.

    `sent` says that bytes of the request may have reached the upstream: without it, sending it again is safe.
    `reason` is a short machine-readable word that reaches the client in `data.reason`; `message`, when given,
    replaces the kind's sentence. Neither may hold an upstream URL, a path or a secret.
    """

    def __init__(
        self,
        kind: FaultKind,
        message: str | None = None,
        *,
        reason: str | None = None,
        side: Side | None = None,
        sent: bool = False,
        data: Detail | None = None,
    ) -> None:
        told = describe(kind)
        super().__init__(message or told.message)
        self.kind = kind
        self.message = message or told.message
        self.reason = reason or kind.value
        self.side = side or _usual_side(kind)
        self.sent = sent
        self.data = data

    def anew(self) -> Fault:
        """The same, raised for the first time.

        A fault that was raised holds the frames it went through. Where what they work on holds the fault, that is a
        circle, which stays until the garbage collector comes by.
        """
        again = Fault(
            self.kind, self.message, reason=self.reason, side=self.side, sent=self.sent, data=self.data
        )
        again.__cause__ = self.__cause__
        return again

    @property
    def status(self) -> int:
        return describe(self.kind).status

    def error(self) -> Detail:
        """The JSON-RPC error object."""
        return {
            "code": describe(self.kind).code,
            "message": self.message,
            "data": {**(self.data or {}), "reason": self.reason},
        }


def proxy_stops() -> Fault:
    """For what would begin something by then."""
    return Fault(FaultKind.OVER_CAPACITY, "The proxy is stopping; ask again", reason="proxy_stops")


def describe(kind: FaultKind) -> Told:  # noqa: C901 - a table, written so that pyright proves it whole
    """The HTTP status and JSON-RPC error of a kind of fault.

    Codes below -32768 … -32000 are ours: the reserved range is the protocol's, and 2026-07-28 forbids inventing
    codes inside it.
    """
    match kind:
        case FaultKind.PARSE:
            return Told(400, -32700, "Parse error")
        case FaultKind.INVALID_REQUEST:
            return Told(400, -32600, "Invalid request")
        case FaultKind.METHOD_NOT_FOUND:
            return Told(404, -32601, "Method not found")
        case FaultKind.INVALID_PARAMS:
            return Told(400, -32602, "Invalid params")
        case FaultKind.HEADER_MISMATCH:
            return Told(400, -32020, "Header mismatch")
        case FaultKind.MISSING_CAPABILITY:
            return Told(400, -32021, "Missing required client capability")
        case FaultKind.UNSUPPORTED_VERSION:
            return Told(400, -32022, "Unsupported protocol version")
        case FaultKind.FORBIDDEN:
            return Told(403, -32600, "Forbidden")
        case FaultKind.SESSION_UNKNOWN:
            return Told(404, -32600, "Session not found")
        case FaultKind.METHOD_NOT_ALLOWED:
            return Told(405, -32600, "Method not allowed")
        case FaultKind.NOT_ACCEPTABLE:
            return Told(406, -32600, "Not acceptable")
        case FaultKind.BODY_TOO_LARGE:
            return Told(413, -32600, "Request too large")
        case FaultKind.UNSUPPORTED_MEDIA_TYPE:
            return Told(415, -32600, "Unsupported media type")
        case FaultKind.REFUSED_BY_RULE:
            return Told(403, -31006, "Refused by a rule")
        case FaultKind.STREAM_NOT_RESUMABLE:
            return Told(400, -31001, "The stream cannot be resumed")
        case FaultKind.UPSTREAM_INVALID:
            return Told(502, -31003, "The upstream sent something invalid")
        case FaultKind.UPSTREAM_UNAVAILABLE:
            return Told(503, -31005, "The upstream is unavailable; nothing was sent")
        case FaultKind.UPSTREAM_FAILED:
            return Told(502, -32603, "The upstream failed")
        case FaultKind.UPSTREAM_SESSION_LOST:
            return Told(502, -32603, "The upstream lost the session")
        case FaultKind.OUTCOME_UNKNOWN:
            return Told(502, -31004, "The connection to the upstream was lost; the outcome is unknown")
        case FaultKind.DEADLINE:
            return Told(504, -31007, "The deadline passed")
        case FaultKind.OVER_CAPACITY:
            return Told(503, -31002, "Over capacity")
        case FaultKind.INTERNAL:
            return Told(500, -32603, "Internal error")
        case _:
            assert_never(kind)


def _usual_side(kind: FaultKind) -> Side:
    match kind:
        case (
            FaultKind.UPSTREAM_INVALID
            | FaultKind.UPSTREAM_UNAVAILABLE
            | FaultKind.UPSTREAM_FAILED
            | FaultKind.UPSTREAM_SESSION_LOST
            | FaultKind.OUTCOME_UNKNOWN
            | FaultKind.DEADLINE
        ):
            return Side.UPSTREAM
        case FaultKind.OVER_CAPACITY | FaultKind.INTERNAL:
            return Side.OURS
        case _:
            return Side.DOWNSTREAM


def answer_too_large(max_bytes: int, what: str = "The answer") -> Fault:
    """For more than is taken from a server at once: the same reason whatever it comes in."""
    told = f"{what} is larger than {bytes_told(max_bytes)}"
    return Fault(FaultKind.UPSTREAM_INVALID, told, reason="answer_too_large", sent=True)


def bytes_told(count: int) -> str:
    """A limit for a person: `16 MiB` where it is a round one."""
    mib, rest = divmod(count, 1024 * 1024)
    return f"{count} bytes" if rest or not mib else f"{mib} MiB"


class StoreUnusable(Exception):
    """A store that cannot work as it was asked for; says in one line why, and what to do."""


class CannotRecord(Exception):
    """Nothing can be written where the tapes should go; says in one line why."""


class CannotTrace(Exception):
    """What tracing needs is not there; says in one line what."""


class CannotAdminister(OSError):
    """The address of the admin listener cannot be had. It is the `filename`."""


class PluginError(Exception):
    """A plugin that cannot be loaded; says in one line what is wrong with it, and where."""
