"""Tapes in files: which ones are meant, and their frames one after another, however long a file is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from shadowcat.wire.tape import SUFFIX, Frame, Head, Tape, TapeError

MAX_LINE_BYTES = 128 * 1024 * 1024
"""Longer than any message with its escapes."""
_MAX_HEAD_BYTES = 64 * 1024
_TOLD = 3
"""How many recordings are named to who has to choose."""
_NUMBER = re.compile(r"-\d{4,}$")


def tapes_of(path: Path) -> Sequence[Path]:
    """The parts of one recording, in order: a file, a directory with one recording, or a recording's path and name.

    Raises `TapeError`.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        names = recordings_in(path)
        if len(names) > 1:
            told = ", ".join(str(path / name) for name in names[-_TOLD:])
            more = f"the newest are {told}" if len(names) > _TOLD else told
            raise TapeError(f"{path} has {len(names)} recordings; name one of them: {more}")
        if names:
            return tapes_in(path)
        raise TapeError(f"there is no tape in {path}")
    found = sorted(path.parent.glob(f"{path.name}-*{SUFFIX}")) if path.parent.is_dir() else []
    if not found:
        raise TapeError(f"there is no tape {path}")
    return found


def tapes_in(directory: Path) -> Sequence[Path]:
    """Raises `OSError` where that cannot be looked into: a glob finds nothing then."""
    return sorted(file for file in directory.iterdir() if file.name.endswith(SUFFIX) and file.is_file())


def recordings_in(directory: Path) -> Sequence[str]:
    """Their names, the newest last."""
    return list(dict.fromkeys(map(recording_of, tapes_in(directory))))


def recording_of(file: Path) -> str:
    """The name of the recording that a part is of; its own where it has no number."""
    return _NUMBER.sub("", file.name.removesuffix(SUFFIX))


class Lines:
    """The lines of a file, with their ends; a file that is no text cannot make one endless."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset = 0
        """Where the last line began."""
        self.end = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> bytes:
        limit = MAX_LINE_BYTES if self.end else _MAX_HEAD_BYTES
        line = self._file.readline(limit)
        if not line:
            raise StopIteration
        if len(line) == limit and not line.endswith(b"\n"):
            raise TapeError("a line is longer than any of a tape's" if self.end else "this is no tape")
        self.offset, self.end = self.end, self.end + len(line)
        return line


class TapeFile:
    """One file, open. Raises `TapeError` for what is no tape, `OSError` for what cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        try:
            self.lines = Lines(self._file)
            self.tape = Tape(self.lines)
        except BaseException:
            self._file.close()
            raise

    @property
    def head(self) -> Head:
        return self.tape.head

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.tape)

    def frame_at(self, offset: int) -> Frame:
        """Reads one again; not while the file is gone through."""
        self._file.seek(offset)
        return self.tape.read(self._file.readline(MAX_LINE_BYTES))

    def __enter__(self) -> TapeFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def close(self) -> None:
        self._file.close()


class Placed(NamedTuple):
    frame: Frame
    part: int
    """Which file, counted from 0."""
    offset: int


def frames_of(files: Sequence[TapeFile]) -> Iterator[Placed]:
    """All frames in order. Raises `TapeError` with the file's name."""
    for part, file in enumerate(files):
        try:
            for frame in file:
                yield Placed(frame, part, file.lines.offset)
        except TapeError as error:
            raise TapeError(f"{file.path}: {error}") from error


def open_all(paths: Sequence[Path]) -> list[TapeFile]:
    """Raises `TapeError` with the file's name, `OSError`."""
    files: list[TapeFile] = []
    try:
        for path in paths:
            try:
                files.append(TapeFile(path))
            except TapeError as error:
                raise TapeError(f"{path}: {error}") from error
    except BaseException:
        for file in files:
            file.close()
        raise
    return files
