"""What happened, as the lines of a tape. Secrets are cut out here, before anything is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, assert_never

import msgspec
from msgspec import Raw

from shadowcat.core.exchange import PASS, TO_SERVER, Pass, Reject, Replace, Reply, Verdict
from shadowcat.core.redact import Redactor
from shadowcat.errors import Fault
from shadowcat.plugins.recording.entry import Entry
from shadowcat.plugins.recording.links import Linked
from shadowcat.wire import jsonrpc, tape
from shadowcat.wire.jsonrpc import REQUEST, RESULT, Kind, Message
from shadowcat.wire.mcp import Era

_KNOWN_SESSIONS = 4_096
_KNOWN_FORMS = 16_384
_MAX_METHOD_CHARS = 64
"""Of one whose form is kept: clients choose them."""
_LEGACY = Era.LEGACY


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

        @lru_cache(_KNOWN_FORMS)
        def form(
            to_server: bool,
            legacy: bool,
            session_id: str | None,
            upstream: str,
            has_request: bool,
            kind: str,
            method: str,
        ) -> bytes:
            return tape.line_form(
                tape.Frame(
                    seq=0,
                    ms=0.0,
                    at=0.0,
                    direction=tape.TO_SERVER if to_server else tape.TO_CLIENT,
                    era="legacy" if legacy else "modern",
                    session="" if session_id is None else stand_in(session_id),
                    upstream=upstream,
                    request=0 if has_request else None,
                    kind=kind,
                    method=method,
                )
            )

        self._stand_in = stand_in
        self._form = form

    def lines(self, linked: Sequence[Linked], wall_offset_s: float) -> Lines:
        """`wall_offset_s` is the wall clock less the other one."""
        # Most messages hold no secret: one look at all of them finds that out in a fraction of the time.
        messages = [one.entry.message for one in linked]
        parts = [m.raw_params or m.raw_result or m.raw_error for m in messages if m is not None]
        clean = self._redactor.is_clean(b"\n".join(parts))
        made: list[bytes] = []
        redacted = 0
        for one, message in zip(linked, messages, strict=True):
            if clean and message is not None and _is_plain(one.entry, message):
                made.append(self._plain_line(one, message, wall_offset_s))
            else:
                frame = self._frame(one, wall_offset_s, clean)
                redacted += frame.redacted
                made.append(tape.encode_frame(frame))
        return Lines(b"".join(made), len(made), redacted)

    def _plain_line(self, linked: Linked, message: Message, wall_offset_s: float) -> bytes:
        entry, request = linked.entry, linked.request
        context = entry.context
        form = self._form(
            context.direction is TO_SERVER,
            context.era is _LEGACY,
            context.session_id,
            context.upstream,
            request is not None,
            _kind(message.kind),
            message.method,
        )
        ms = round((entry.at_s - self._started_s) * 1_000, 3)
        at = round(entry.at_s + wall_offset_s, 3)
        if request is None:
            return form % (entry.seq, ms, at, message.raw)
        return form % (entry.seq, ms, at, request, message.raw)

    def _frame(self, linked: Linked, wall_offset_s: float, clean: bool) -> tape.Frame:
        entry = linked.entry
        context = entry.context
        message = entry.message or _failure(entry)
        clean = clean and message is entry.message
        raw = message.raw if clean else self._redactor.redact_message(message)
        session_id = context.session_id
        frame = tape.Frame(
            seq=entry.seq,
            ms=round((entry.at_s - self._started_s) * 1_000, 3),
            at=round(entry.at_s + wall_offset_s, 3),
            direction=tape.TO_SERVER if context.direction is TO_SERVER else tape.TO_CLIENT,
            era="legacy" if context.era is _LEGACY else "modern",
            session="" if session_id is None else self._stand_in(session_id),
            upstream=context.upstream,
            request=linked.request,
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


def _is_plain(entry: Entry, message: Message) -> bool:
    """Whether the line says nothing but what every line says."""
    return (
        entry.outcome is PASS
        and entry.context.status == 200
        and len(message.method) <= _MAX_METHOD_CHARS
        and not tape.has_line_breaks(message.raw)
    )


def _kind(kind: Kind) -> str:
    """`value` of an enum takes longer than all of this."""
    return "result" if kind is RESULT else "request" if kind is REQUEST else kind.value


def _failure(entry: Entry) -> Message:
    """What the client was told in place of an answer."""
    request, fault = entry.context.request, entry.outcome
    assert request is not None
    assert isinstance(fault, Fault)
    return jsonrpc.error(request.id, fault.error())
