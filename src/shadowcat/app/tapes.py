"""Looks at tapes: lists, shows, checks, compares, exports. Line by line, as a tape may be larger than memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shadowcat.core.likeness import Likeness
from shadowcat.plugins.recording.parts import is_written
from shadowcat.replay import verify as verifying
from shadowcat.replay.catalog import UNENDED, WRITTEN, Unreadable, catalog, end_of, tallied
from shadowcat.replay.compare import differences
from shadowcat.replay.files import TapeFile, frames_of, open_all, recordings_in, tapes_of
from shadowcat.replay.har import har_of
from shadowcat.replay.timeline import Timeline, followed, head_line
from shadowcat.replay.transcript import Item, items
from shadowcat.wire.tape import Frame, Head, TapeError
from shadowcat.wire.text import counted, on_one_line


def list_tapes(place: str) -> Iterator[dict[str, Any]]:
    """What each tape is, in a directory or a file. Raises `TapeError` where there is none, `OSError`."""
    path = Path(place)
    found = (
        catalog(path, is_written) if path.is_dir() else (tallied(file, is_written) for file in tapes_of(path))
    )
    is_empty = True
    for one in found:
        is_empty = False
        if isinstance(one, Unreadable):
            yield {"file": one.path.name, "bytes": one.bytes, "unreadable": one.why}
            continue
        yield {
            "file": one.path.name,
            "began": _time(one.began_at),
            "seconds": round(one.ended_at - one.began_at, 3),
            "messages": one.frames,
            "requests": one.requests,
            "errors": one.errors,
            "tool_errors": one.tool_errors,
            "sessions": one.sessions,
            "missing": one.missing,
            "bytes": one.bytes,
            "end": one.end,
        }
    if is_empty:
        raise TapeError(f"there is no tape in {place}")


def newest_in(place: str) -> tuple[str, int]:
    """Of a directory with several recordings, the newest, and how many there are; of anything else, that itself."""
    path = Path(place)
    names = recordings_in(path) if path.is_dir() else ()
    return (str(path / names[-1]), len(names)) if len(names) > 1 else (place, 1)


def show_tape(
    place: str, *, session: str = "", method: str = "", unshortened: bool = False, follow: bool = False
) -> Iterator[str]:
    """A line for each message. Raises `TapeError`, `OSError`."""
    timeline = Timeline(session=session, method=method, whole=unshortened)
    for one in followed(tapes_of(Path(place))[0], is_written) if follow else _read(place):
        line = head_line(one) if isinstance(one, Head) else timeline.line(one)
        if line is not None:
            yield line
    if timeline.passed_over and not timeline.shown:
        methods = ", ".join(sorted(timeline.methods)) or "none"
        yield on_one_line(
            f"# none of {counted(timeline.passed_over, 'message')}; the methods on it: {methods}"
        )


def _read(place: str) -> Iterator[Frame | Head]:
    with _opened(place) as files:
        for file in files:
            yield file.head
            yield from file


@dataclass(frozen=True, slots=True)
class Verdict:
    told: str
    complaints: Sequence[str]


def verify_tape(place: str) -> Verdict:
    """Raises `TapeError`, `OSError`."""
    with _opened(place) as files:
        found = verifying.verify(files)
        parts = f" in {len(files)} files" if len(files) > 1 else ""
        told = f"{counted(found.frames, 'message')}{parts}, {found.redacted} of them redacted"
        return Verdict(told + _UNFINISHED.get(end_of(files[-1], is_written), ""), found.complaints)


_UNFINISHED = {
    UNENDED: "; the recording was not ended, so what came last may be missing",
    WRITTEN: "; it is being written",
}


def diff_tapes(first: str, second: str, *, ignore: Sequence[str], strict: bool) -> Iterator[str]:
    """A line for each difference. Raises `TapeError`, `OSError`, and `ValueError` for a pointer that is none."""
    likeness = Likeness(ignore, strict=strict)
    with _opened(first) as ours, _opened(second) as theirs:
        found = differences(_items(ours, likeness), _items(theirs, likeness), likeness)
        yield from map(on_one_line, found)


def export_har(place: str) -> Iterator[bytes]:
    """Raises `TapeError`, `OSError`."""
    with _opened(place) as files:
        yield from har_of(files[0].head, _items(files, Likeness()))


def _items(files: Sequence[TapeFile], likeness: Likeness) -> Iterator[Item]:
    return items((placed.frame for placed in frames_of(files)), likeness)


@contextmanager
def _opened(place: str) -> Generator[list[TapeFile]]:
    files = open_all(tapes_of(Path(place)))
    try:
        yield files
    finally:
        for file in files:
            file.close()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
