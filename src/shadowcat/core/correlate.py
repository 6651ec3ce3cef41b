"""Who asked what: the ids of requests, of server requests, and progress tokens, across one session.

Each direction has an id space of its own, and each hop too. Towards the upstream every request gets a fresh
integer, whatever the client chose: some servers key by `str(id)` and would mix 1 with "1", and after the upstream
has lost the session no id is used twice. A session's ids begin at a random number: some servers key what they keep
by the id of a request alone, and sessions that all began at 1 would be given each other's answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import BoundedId, Message, RequestId
from shadowcat.wire.mcp import Method

S = TypeVar("S")

ID_BITS = 46
"""Of the number that a session's ids begin above. The ids of 10,000 sessions with a hundred calls each overlap once in
7,000 times, and have 14 digits: some JSON libraries write numbers with no more."""
MAX_IN_FLIGHT = 1_000
MAX_SERVER_REQUESTS = 1_000
MAX_QUESTION_BYTES = 32 * 1024 * 1024
"""Of those requests together: each is held until it is answered, whatever the stream lets go of."""

_TOKEN = b"progressToken"
_BACKSLASH = ord("\\")


class InFlight(msgspec.Struct, Generic[S], eq=False):
    """A client request the upstream has not answered."""

    client_id: RequestId
    upstream_id: int
    method: str
    _token: RequestId | None = None
    sent_at: float = 0.0
    """As the clock counts; 0 for one that an earlier process sent."""
    unread: bytes = b""
    """Parameters in which a progress token may stand. Few servers tell any progress, so it is not looked for yet."""
    stream: S | None = None
    """Where its answer goes, once it has begun as a stream."""
    interrupt: Callable[[], object] | None = None
    """Wakes whoever works on it, whatever that one waits for."""
    is_considered: bool = False
    """By interceptors: the upstream has not heard of it."""
    cancelled: bool = False
    fault: Fault | None = None
    """Why it was ended from here, if not because the client cancelled it."""

    @property
    def token(self) -> RequestId | None:
        """What its progress will carry."""
        if self.unread:
            self._token, self.unread = _token_in(self.unread), b""
        return self._token

    @property
    def is_stopped(self) -> bool:
        return self.cancelled or self.fault is not None

    def fail(self, fault: Fault) -> None:
        """Ends it: the client gets the fault for an answer."""
        self.fault = fault
        if self.interrupt is not None:
            self.interrupt()


class ServerRequest(msgspec.Struct, Generic[S], eq=False):
    """A request of the upstream's that the client has not answered."""

    client_id: int
    upstream_id: RequestId
    method: str
    epoch: int
    asked_at: float
    stream: S | None = None
    request: Message | None = None
    """As the upstream asked it; of one that is restored, only what it asked for."""
    is_restored: bool = False
    """By an earlier process, and not answered since."""
    is_being_answered: bool = False
    """Its answer is on the way to the upstream, and may turn out not to arrive."""
    is_given_up: bool = False
    """The client was told that its answer comes too late."""


@dataclass(slots=True)
class Correlator(Generic[S]):
    """`S` is whatever messages are delivered on; nothing here looks inside it."""

    last_upstream_id: int
    """Later requests get higher ids than this."""
    epoch: int = 0
    """Counts the upstream sessions behind this one; an answer for an earlier one has nowhere to go."""
    _last_client_id: int = 0
    _in_flight: dict[RequestId, InFlight[S]] = field(default_factory=dict[RequestId, InFlight[S]])
    """By the client's id."""
    _by_token: dict[RequestId, InFlight[S]] = field(default_factory=dict[RequestId, InFlight[S]])
    _unread: dict[RequestId, InFlight[S]] = field(default_factory=dict[RequestId, InFlight[S]])
    """Those whose progress tokens nobody has asked for, by the client's id."""
    _asked: dict[int, ServerRequest[S]] = field(default_factory=dict[int, ServerRequest[S]])

    # Client requests.

    def begin(self, request: Message, now: float = 0.0) -> tuple[InFlight[S], Message]:
        """Notes a client request and returns it as the upstream gets it. Raises `Fault` for an id in flight."""
        client_id = request.id
        assert client_id is not None
        in_flight = self._in_flight
        if client_id in in_flight:
            raise Fault(FaultKind.INVALID_REQUEST, "A request with this id is in flight")
        if len(in_flight) >= MAX_IN_FLIGHT:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_requests_in_flight")
        upstream_id = self.last_upstream_id = self.last_upstream_id + 1
        entry: InFlight[S] = InFlight(client_id, upstream_id, request.method, None, now)
        in_flight[client_id] = entry
        if _may_ask_for_progress(request.raw_params):
            entry.unread = request.raw_params
            self._unread[client_id] = entry
        return entry, request.with_id(upstream_id)

    def consider(self, request: Message) -> InFlight[S]:
        """Notes one that interceptors have yet to judge, so that it can be cancelled; likewise. `begin` comes later."""
        entry, _ = self.begin(request)
        entry.is_considered = True
        return entry

    def renew(self, entry: InFlight[S], request: Message) -> Message:
        """The same request under a new id: it was not processed under the old one."""
        entry.upstream_id = self.next_id()
        return request.with_id(entry.upstream_id)

    def next_id(self) -> int:
        """An id for a request of the proxy's own on the upstream session."""
        self.last_upstream_id += 1
        return self.last_upstream_id

    def finish(self, entry: InFlight[S]) -> None:
        """The request has its answer, or will get none."""
        client_id = entry.client_id
        if self._in_flight.get(client_id) is not entry:
            return
        del self._in_flight[client_id]
        if self._unread and self._unread.pop(client_id, None) is not None:
            return
        if entry.token is not None and self._by_token.get(entry.token) is entry:
            del self._by_token[entry.token]

    def in_flight(self) -> list[InFlight[S]]:
        return list(self._in_flight.values())

    @property
    def is_idle(self) -> bool:
        return not self._in_flight

    # What the client says about its requests and ours.

    def cancelled_by_client(self, notification: Message) -> tuple[InFlight[S], Message] | None:
        """The request it cancels and the notification as the upstream gets it; None for what is not in flight."""
        entry = self._in_flight.get(_request_id(notification, "requestId"))  # type: ignore[arg-type]
        if entry is None or entry.cancelled or entry.method == Method.INITIALIZE:
            return None
        entry.cancelled = True
        return entry, _with_request_id(notification, entry.upstream_id)

    def answered_by_client(self, response: Message) -> tuple[ServerRequest[S], Message] | None:
        """The answer as the upstream gets it; None when nobody asked, it was answered, or the asker is gone.

        Whoever delivers it says then what becomes of the question: `close` or `reopen`.
        """
        asked = self._asked.get(response.id) if isinstance(response.id, int) else None
        if asked is None or asked.epoch != self.epoch or asked.is_being_answered:
            return None
        asked.is_being_answered = True
        return asked, response.with_id(asked.upstream_id)

    def close(self, asked: ServerRequest[S]) -> None:
        if self._asked.get(asked.client_id) is asked:
            del self._asked[asked.client_id]

    def reopen(self, asked: ServerRequest[S]) -> None:
        """Its answer did not arrive: it can be answered once more."""
        asked.is_being_answered = False

    # What the upstream says.

    def asked_by_upstream(
        self, request: Message, stream: S | None, now: float
    ) -> tuple[ServerRequest[S], Message]:
        """Notes a request of the upstream's and returns it as the client gets it.

        One that an earlier process asked keeps its id: the upstream may repeat it as its stream is resumed.
        """
        assert request.id is not None
        known = self._asked_as(request.id)
        if known is not None and known.is_restored and known.stream is stream:
            return known, request.with_id(known.client_id)
        held = sum(len(asked.request.raw) for asked in self._asked.values() if asked.request is not None)
        if len(self._asked) >= MAX_SERVER_REQUESTS or held + len(request.raw) > MAX_QUESTION_BYTES:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_server_requests")
        self._last_client_id += 1
        asked: ServerRequest[S] = ServerRequest(
            self._last_client_id, request.id, request.method, self.epoch, now, stream, request
        )
        self._asked[asked.client_id] = asked
        return asked, request.with_id(asked.client_id)

    def question(self, response: Message) -> Message | None:
        """The request of the upstream's that a message of the client's answers."""
        asked = self._asked.get(response.id) if isinstance(response.id, int) else None
        return None if asked is None else asked.request

    def unanswered(self) -> list[ServerRequest[S]]:
        return list(self._asked.values())

    @property
    def last_question(self) -> int:
        """The highest id a request of the upstream's was given towards the client."""
        return self._last_client_id

    def restore_question(
        self, client_id: int, upstream_id: RequestId, method: str, stream: S | None, now: float
    ) -> None:
        """One that an earlier process asked: its answer may come yet."""
        self._asked[client_id] = ServerRequest(
            client_id,
            upstream_id,
            method,
            self.epoch,
            now,
            stream,
            jsonrpc.request(upstream_id, method),
            is_restored=True,
        )

    def skip_questions_to(self, client_id: int) -> None:
        """Later requests of the upstream's get higher ids than this."""
        self._last_client_id = max(self._last_client_id, client_id)

    def restore(
        self, client_id: RequestId, upstream_id: int, method: str, token: RequestId | None
    ) -> InFlight[S]:
        """A request that an earlier process sent, and whose answer is still to come."""
        entry: InFlight[S] = InFlight(client_id, upstream_id, method, token)
        self._in_flight[client_id] = entry
        if token is not None:
            self._by_token[token] = entry
        return entry

    def _read_tokens(self) -> None:
        for entry in self._unread.values():
            if entry.token is not None:
                self._by_token[entry.token] = entry
        self._unread.clear()

    def is_unanswered(self, client_id: RequestId) -> bool:
        asked = self._asked.get(client_id) if isinstance(client_id, int) else None
        return asked is not None and not asked.is_being_answered

    def overdue(self, asked_before: float) -> list[ServerRequest[S]]:
        """The server requests that nobody has answered since before then. From now on it is us who answers them."""
        overdue = [
            asked
            for asked in self._asked.values()
            if asked.asked_at < asked_before and not asked.is_being_answered
        ]
        for asked in overdue:
            asked.is_being_answered = True
        return overdue

    def cancelled_by_upstream(self, notification: Message) -> tuple[ServerRequest[S], Message] | None:
        try:
            asked = self._asked_as(_request_id(notification, "requestId"))
        except Fault:
            # Which of two keys it means is not for us to guess.
            return None
        if asked is None:
            return None
        del self._asked[asked.client_id]
        return asked, _with_request_id(notification, asked.client_id)

    def _asked_as(self, upstream_id: RequestId | None) -> ServerRequest[S] | None:
        for asked in self._asked.values():
            if asked.upstream_id == upstream_id and type(asked.upstream_id) is type(upstream_id):
                return asked
        return None

    def knows_token(self, progress: Message) -> InFlight[S] | None:
        """The request this progress belongs to; None once it is answered: some clients break on a stray token."""
        try:
            token = _decode_token(progress.raw_params).progressToken
        except msgspec.MsgspecError:
            return None
        if self._unread:
            self._read_tokens()
        return None if token is None else self._by_token.get(token)

    # The upstream's session is gone.

    def lose_upstream(self) -> list[ServerRequest[S]]:
        """Begins a new epoch; returns the server requests that no longer have an asker."""
        self.epoch += 1
        orphans = list(self._asked.values())
        self._asked.clear()
        return orphans


class _Token(msgspec.Struct, gc=False):
    progressToken: BoundedId | None = None  # noqa: N815 - the wire's name


class _Meta(msgspec.Struct, gc=False):
    meta: _Token | None = msgspec.field(name="_meta", default=None)


_decode_token = msgspec.json.Decoder(_Token).decode
_decode_meta = msgspec.json.Decoder(_Meta).decode


def _may_ask_for_progress(raw_params: bytes) -> bool:
    return raw_params.find(_TOKEN) >= 0 or _BACKSLASH in raw_params


def progress_token(request: Message) -> RequestId | None:
    """The token its progress will carry, if it asks for any; one of a wrong type is the server's to refuse."""
    return _token_in(request.raw_params)


def _token_in(raw_params: bytes) -> RequestId | None:
    if not _may_ask_for_progress(raw_params):
        return None
    try:
        meta = _decode_meta(raw_params).meta
    except msgspec.MsgspecError:
        return None
    return None if meta is None else meta.progressToken


def _request_id(notification: Message, key: str) -> RequestId | None:
    return _as_id(notification.param_members().get(key))


_decode_id = msgspec.json.Decoder(int | str).decode


def _as_id(raw: msgspec.Raw | None) -> RequestId | None:
    if raw is None:
        return None
    try:
        return _decode_id(raw)
    except msgspec.ValidationError:
        return None


def _with_request_id(notification: Message, id: RequestId) -> Message:
    params = notification.param_members()
    params["requestId"] = msgspec.Raw(msgspec.json.encode(id))
    return notification.with_params(msgspec.Raw(msgspec.json.encode(params)))
