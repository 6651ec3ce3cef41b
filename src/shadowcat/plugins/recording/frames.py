"""Turns entries into the lines of a tape. Secrets are cut out here, before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from msgspec import Raw

from shadowcat.core.redact import Redactor
from shadowcat.errors import Fault
from shadowcat.plugins.recording.entry import Entry, facts_of
from shadowcat.wire import json_strict, jsonrpc, tape

_KNOWN_SESSIONS = 4_096
_KNOWN_FORMS = 16_384
_MAX_METHOD_CHARS = 64
"""Of one whose form is kept: clients choose them."""


class Lines(NamedTuple):
    data: bytes
    frames: int
    redacted: int


class Framer:
    def __init__(self, redactor: Redactor, started_s: float, key: bytes) -> None:
        """`started_s` is when the recording began, by the clock that does not jump.

        `key` is thrown away with the recording: nobody can try session ids until one fits what stands for it.
        """
        self._redactor = redactor
        self._started_s = started_s

        @lru_cache(_KNOWN_SESSIONS)
        def stand_in(session_id: str) -> str:
            return hashlib.blake2b(session_id.encode(), key=key, digest_size=6).hexdigest()

        @lru_cache(_KNOWN_FORMS)
        def form(facts: bytes, has_request: bool, method: str) -> bytes:
            return tape.line_form(self._empty_frame(facts, 0 if has_request else None, method))

        self._stand_in = stand_in
        self._form = form

    def lines(self, entries: Sequence[Entry], wall_offset_s: float) -> Lines:
        """`wall_offset_s` is the wall clock less the other one."""
        is_clean = self._redactor.is_clean
        # Most messages hold no secret: one look at all of them finds that out in a fraction of the time.
        clean = is_clean(b"\n".join([entry.raw for entry in entries]))
        made: list[bytes] = []
        redacted = 0
        for entry in entries:
            if _is_plain(entry) and (clean or is_clean(entry.raw)):
                made.append(self._plain_line(entry, wall_offset_s))
            else:
                frame = self._frame(entry, wall_offset_s)
                redacted += frame.redacted
                made.append(tape.encode_frame(frame))
        return Lines(b"".join(made), len(made), redacted)

    def _plain_line(self, entry: Entry, wall_offset_s: float) -> bytes:
        request = entry.request
        form = self._form(entry.facts, request is not None, entry.method)
        ms = (entry.at_s - self._started_s) * 1_000
        at = entry.at_s + wall_offset_s
        if request is None:
            return form % (entry.seq, ms, at, entry.raw)
        return form % (entry.seq, ms, at, request, entry.raw)

    def _frame(self, entry: Entry, wall_offset_s: float) -> tape.Frame:
        raw = self._clean(entry.raw)
        request = None if entry.request is None else int(entry.request)
        frame = self._empty_frame(entry.facts, request, entry.method)
        frame.seq = int(entry.seq)
        frame.ms = round((entry.at_s - self._started_s) * 1_000, 3)
        frame.at = round(entry.at_s + wall_offset_s, 3)
        frame.message = Raw(raw)
        frame.outcome = entry.outcome
        frame.redacted = raw != entry.raw
        if tape.has_line_breaks(raw):
            frame.message, frame.text = tape.NOTHING, raw.decode()
        _, became = entry.became or ("", b"")
        if entry.outcome == tape.REJECTED:
            frame.became = Raw(self._redactor.redact(became))
        elif became:
            frame.became = Raw(_on_one_line(self._clean(became)))
        return frame

    def _empty_frame(self, encoded: bytes, request: int | None, method: str) -> tape.Frame:
        facts = facts_of(encoded)
        session_id = facts.session_id
        return tape.Frame(
            seq=0,
            ms=0.0,
            at=0.0,
            direction=tape.TO_SERVER if facts.to_server else tape.TO_CLIENT,
            era="legacy" if facts.legacy else "modern",
            session="" if session_id is None else self._stand_in(session_id),
            upstream=facts.upstream,
            request=request,
            status=facts.status,
            kind=facts.kind,
            method=method,
        )

    def _clean(self, raw: bytes) -> bytes:
        """A message without secrets. What interceptors make need not be one that we would take."""
        if self._redactor.is_clean(raw):
            return raw
        try:
            message = jsonrpc.parse(raw)
        except Fault:
            return self._redactor.redact(raw)
        return self._redactor.redact_message(message)


def _on_one_line(raw: bytes) -> bytes:
    return json_strict.minify(raw) if tape.has_line_breaks(raw) else raw


def _is_plain(entry: Entry) -> bool:
    """Whether the line says nothing but what every line says."""
    return (
        entry.became is None
        and len(entry.method) <= _MAX_METHOD_CHARS
        and not tape.has_line_breaks(entry.raw)
    )
