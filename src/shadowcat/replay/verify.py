"""Checks that a tape is complete, in order, and free of secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shadowcat.core.redact import Redactor
from shadowcat.replay.files import TapeFile, frames_of
from shadowcat.wire.tape import Frame
from shadowcat.wire.text import counted


class Verified(NamedTuple):
    frames: int
    redacted: int
    complaints: Sequence[str]


_MAX_TOLD = 20


def verify(files: Sequence[TapeFile]) -> Verified:
    """Every line of a recording's parts. Raises `TapeError` for what is none, or cannot be read to its end."""
    frames = redacted = 0
    complaints: list[str] = []
    checks = [_Numbers(is_ring=files[0].head.ring_s > 0), _Secrets(files[0].head.redacted_keys)]
    for placed in frames_of(files):
        frame = placed.frame
        frames += 1
        redacted += frame.redacted
        for check in checks:
            complaints += _bounded(check.look(frame), len(complaints))
    complaints += [f"{file.path.name}: its last line is torn" for file in files if file.tape.is_torn]
    for check in checks:
        complaints += check.close()
    return Verified(frames, redacted, complaints)


def _bounded(found: Iterator[str], told: int) -> Iterator[str]:
    for line in found:
        if told < _MAX_TOLD:
            yield line
        elif told == _MAX_TOLD:
            yield "… and more"
        told += 1


class _Numbers:
    """Each message has one more than the one before; in a ring most are left out."""

    def __init__(self, *, is_ring: bool) -> None:
        self._is_ring = is_ring
        self._last = 0
        self._missing = 0

    def look(self, frame: Frame) -> Iterator[str]:
        if frame.seq <= self._last:
            yield f"message {frame.seq} comes after message {self._last}"
        elif self._last or not self._is_ring:
            self._missing += frame.seq - self._last - 1
        self._last = frame.seq

    def close(self) -> Iterator[str]:
        if self._missing and not self._is_ring:
            yield f"{counted(self._missing, 'message')} {'is' if self._missing == 1 else 'are'} missing"


class _Secrets:
    """What the redaction of today would still cut out."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._redactor = Redactor(keys)

    def look(self, frame: Frame) -> Iterator[str]:
        message = frame.parsed()
        if self._redactor.redact_message(message) != message.raw:
            yield f"message {frame.seq} holds what looks like a secret"
        became = bytes(frame.became)
        if became and self._redactor.redact(became) != became:
            yield f"what message {frame.seq} became holds what looks like a secret"

    def close(self) -> Iterator[str]:
        yield from ()
