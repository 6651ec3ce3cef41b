"""What happened, as the lines of a tape. Secrets are cut out here, before anything is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, assert_never

import msgspec
from msgspec import Raw

from shadowcat.core.exchange import PASS, Direction, Pass, Reject, Replace, Reply, Verdict
from shadowcat.core.redact import Redactor
from shadowcat.errors import Fault
from shadowcat.plugins.recording.entry import Entry
from shadowcat.plugins.recording.links import Linked
from shadowcat.wire import jsonrpc, tape
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import Era

_KNOWN_SESSIONS = 4_096


class Lines(NamedTuple):
    data: bytes
    frames: int
    redacted: int


class Framer:
    def __init__(self, redactor: Redactor, started_s: float) -> None:
        """`started_s` is when the recording began, by the clock that does not jump."""
        self._redactor = redactor
        self._started_s = started_s
        key = os.urandom(16)

        @lru_cache(_KNOWN_SESSIONS)
        def stand_in(session_id: str) -> str:
            # The key is thrown away with the recording: nobody can try ids until one fits.
            return hashlib.blake2b(session_id.encode(), key=key, digest_size=6).hexdigest()

        self._stand_in = stand_in

    def lines(self, linked: Sequence[Linked], wall_offset_s: float) -> Lines:
        """`wall_offset_s` is the wall clock less the other one."""
        # Most messages hold no secret: one look at all of them finds that out in a fraction of the time.
        parts = [_looked_at(entry.message) for entry, _, _ in linked if entry.message is not None]
        clean = self._redactor.is_clean(b"\n".join(parts))
        frames = [self._frame(one, wall_offset_s, clean) for one in linked]
        data = b"".join(map(tape.encode_frame, frames))
        return Lines(data, len(frames), 0 if clean else sum(frame.redacted for frame in frames))

    def _frame(self, linked: Linked, wall_offset_s: float, clean: bool) -> tape.Frame:
        entry, request, _ = linked
        context = entry.context
        message = entry.message or _failure(entry)
        clean = clean and message is entry.message
        raw = message.raw if clean else self._redactor.redact_message(message)
        session_id = context.session_id
        # What most messages do not have is set afterwards: each of these costs a tenth of the rest.
        frame = tape.Frame(
            seq=entry.seq,
            ms=round((entry.at_s - self._started_s) * 1_000, 3),
            at=round(entry.at_s + wall_offset_s, 3),
            direction=tape.TO_SERVER if context.direction is Direction.TO_SERVER else tape.TO_CLIENT,
            era="legacy" if context.era is Era.LEGACY else "modern",
            session="" if session_id is None else self._stand_in(session_id),
            upstream=context.upstream,
            request=request,
            kind=_kind(message.kind),
            method=message.method,
            message=Raw(raw),
        )
        if tape.has_line_breaks(raw):
            frame.message, frame.text = tape.NOTHING, raw.decode()
        if context.status != 200:
            frame.status = context.status
        if entry.outcome is not PASS:
            frame.outcome, became = self._outcome(entry.outcome)
            frame.became = Raw(became) if became else tape.NOTHING
        if not clean:
            frame.redacted = raw != message.raw
        return frame

    def _outcome(self, outcome: Verdict | Fault) -> tuple[str, bytes]:
        match outcome:
            case Fault():
                return tape.FAILED, b""
            case Pass():
                return tape.PASSED, b""
            case Replace(message=changed):
                return tape.REPLACED, self._clean_line(changed)
            case Reply(message=answer):
                return tape.REPLIED, self._clean_line(answer)
            case Reject(fault=fault):
                return tape.REJECTED, self._redactor.redact(msgspec.json.encode(fault.error()))
            case _:
                assert_never(outcome)

    def _clean_line(self, message: Message) -> bytes:
        raw = self._redactor.redact_message(message)
        return jsonrpc.parse(raw).line()[:-1] if tape.has_line_breaks(raw) else raw


def _kind(kind: Kind) -> str:
    """`value` of an enum takes longer than all of this."""
    return "result" if kind is Kind.RESULT else "request" if kind is Kind.REQUEST else kind.value


def _failure(entry: Entry) -> Message:
    """What the client was told in place of an answer."""
    request, fault = entry.context.request, entry.outcome
    assert request is not None
    assert isinstance(fault, Fault)
    return jsonrpc.error(request.id, fault.error())


def _looked_at(message: Message) -> bytes:
    return message.raw_params or message.raw_result or message.raw_error
