"""What is in a directory of tapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from shadowcat.replay.files import TapeFile, recording_of, tapes_in
from shadowcat.wire import tape
from shadowcat.wire.tape import Frame, Head, Sidecar, TapeError


class Tallied(NamedTuple):
    """A file, gone through."""

    path: Path
    bytes: int
    head: Head
    frames: int
    requests: int
    errors: int
    tool_errors: int
    """Results that say that the tool failed."""
    sessions: int
    missing: int
    """Numbers that are not there, between the first and the last."""
    began_at: float
    ended_at: float
    end: str


class Unreadable(NamedTuple):
    path: Path
    bytes: int
    why: str


CLEAN = "clean"
CONTINUED = "continued"
"""In another file."""
TORN = "torn"
WRITTEN = "being written"
UNENDED = "not ended"
"""Its writer was killed, between two lines."""

IsWritten = Callable[[Path], bool]


def catalog(directory: Path, is_written: IsWritten) -> Iterator[Tallied | Unreadable]:
    for path in tapes_in(directory):
        yield tallied(path, is_written)


def tallied(path: Path, is_written: IsWritten) -> Tallied | Unreadable:
    size = path.stat().st_size
    try:
        with TapeFile(path) as file:
            return _tallied(path, size, file, is_written)
    except TapeError as error:
        return Unreadable(path, size, str(error))


def _tallied(path: Path, size: int, file: TapeFile, is_written: IsWritten) -> Tallied:
    frames = requests = errors = tool_errors = missing = 0
    sessions: set[str] = set()
    first: Frame | None = None
    last: Frame | None = None
    for frame in file:
        first = first or frame
        if last is not None:
            missing += max(0, frame.seq - last.seq - 1)
        last = frame
        frames += 1
        requests += frame.kind == "request" and frame.direction == tape.TO_SERVER
        errors += frame.kind == "error" and frame.direction == tape.TO_CLIENT
        tool_errors += frame.is_tool_error
        if frame.session:
            sessions.add(frame.session)
    began_at = first.at if first is not None else file.head.started
    ended_at = last.at if last is not None else began_at
    end = end_of(file, is_written)
    found = frames, requests, errors, tool_errors, len(sessions), missing, began_at, ended_at, end
    return Tallied(path, size, file.head, *found)


def end_of(file: TapeFile, is_written: IsWritten) -> str:
    """How a file ends that was gone through."""
    path = file.path
    if is_written(path):
        return WRITTEN
    if file.tape.is_torn:
        return TORN
    head = file.head
    if head.recording and path.with_name(f"{head.recording}-{head.part + 1:04}{tape.SUFFIX}").exists():
        return CONTINUED
    sidecar = sidecar_of(path)
    return CLEAN if sidecar is not None and sidecar.ended is not None else UNENDED


def sidecar_of(path: Path) -> Sidecar | None:
    """None where there is none that can be read: it says nothing that the tapes do not."""
    try:
        return msgspec.json.decode(path.with_name(f"{recording_of(path)}.json").read_bytes(), type=Sidecar)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
