"""A session and its streams, to and from the bytes that a store keeps.

Each carries the number of its format: what a newer version wrote is not guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from shadowcat.core.session import SessionRecord
from shadowcat.core.stream import Logged
from shadowcat.wire.jsonrpc import RequestId

FORMAT = 1

S = TypeVar("S", bound="KeptSession | KeptStream")


class Unreadable(Exception):
    """Not what this version writes."""


class KeptQuestion(msgspec.Struct, gc=False, omit_defaults=True):
    """A request of the server's that the client has not answered."""

    client_id: int
    upstream_id: RequestId
    method: str
    stream: int | None = None


class KeptRequest(msgspec.Struct, gc=False, omit_defaults=True):
    """A client's request that the upstream has not answered."""

    upstream_id: int
    method: str
    token: RequestId | None = None
    params: bytes = b""
    """All of one that changes what the session remembers; of a call the name of its tool, which rules for its answer
    ask for. Arguments have no business on a disk."""


class KeptSession(msgspec.Struct, kw_only=True, omit_defaults=True):
    format: int = FORMAT
    record: SessionRecord
    questions: list[KeptQuestion] = []
    last_question: int = 0
    """The highest id any question had: none is given out twice."""


class KeptStream(msgspec.Struct, kw_only=True, gc=False, omit_defaults=True):
    """All of a stream but its events."""

    format: int = FORMAT
    request_id: RequestId | None = None
    """The client's request that it answers, if it is one."""
    unanswered: list[tuple[RequestId, KeptRequest | None]] = []
    """The requests that wait for their answer on it; without more where the upstream has not begun to answer."""
    is_finished: bool = False
    cursor: bytes | None = None
    """The upstream's id of an event, from which it can be asked for the rest."""
    cursor_seq: int = 0
    """The last event that is not part of the rest; more by the own ones after it that `own_after` leaves out."""
    own_after: int = 0
    """How many of the events since then were the proxy's own: the upstream will not repeat those."""
    replaced_from: int = 0
    """From that event on a client may have seen others, which a crash undid."""
    given_to: int | None = None
    """The last event that a client was given, where its owner left it in form with more that waits for one."""


_encode = msgspec.msgpack.Encoder().encode
_session = msgspec.msgpack.Decoder(KeptSession).decode
_stream = msgspec.msgpack.Decoder(KeptStream).decode


def encode(kept: KeptSession | KeptStream) -> bytes:
    return _encode(kept)


def decode_session(data: bytes) -> KeptSession:
    """Raises `Unreadable`."""
    try:
        return _current(_session(data))
    except msgspec.MsgspecError as error:
        raise Unreadable(str(error)) from error


def decode_stream(data: bytes) -> KeptStream:
    """Raises `Unreadable`."""
    try:
        return _current(_stream(data))
    except msgspec.MsgspecError as error:
        raise Unreadable(str(error)) from error


def _current(kept: S) -> S:
    if kept.format != FORMAT:
        raise Unreadable(f"format {kept.format} is not {FORMAT}")
    return kept


def encode_events(events: list[bytes], first_seq: int, questions: Mapping[int, RequestId]) -> list[bytes]:
    """The data as it is, which never begins with a digit; before it the id of a question, if it is one."""
    if not questions:
        return events
    return [
        data if (question := questions.get(seq)) is None else b"%d%b" % (question, data)
        for seq, data in enumerate(events, first_seq)
    ]


def decode_event(frame: bytes) -> Logged:
    """Raises `Unreadable`."""
    if not frame[:1].isdigit():
        return frame, None
    question, brace, data = frame.partition(b"{")
    if not question.isdigit() or not brace:
        raise Unreadable("an event that is none")
    return brace + data, int(question)
