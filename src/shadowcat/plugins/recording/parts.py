"""The files of a recording, written one after another, each closed when it is large or old.

A file is locked as long as it is written, so that whoever makes room in the directory leaves it alone, whichever
process has it; the lock goes with the process.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from shadowcat.clock import Clock
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.wire.tape import SUFFIX, Head, Sidecar, WrittenPart, encode_head

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

log = logging.getLogger("shadowcat.record")

PART = re.compile(r"(?P<recording>\d{8}T\d{6}Z-[0-9a-f]{6})-(?P<part>\d{4,})" + re.escape(SUFFIX))


class Parts:
    """Not for several threads at a time. What is called raises `OSError`, and may be called again after that."""

    def __init__(self, options: RecordOptions, head: Head, clock: Clock) -> None:
        self._options = options
        self._directory = Path(options.directory)
        self._clock = clock
        self._head = head
        self._parts: list[WrittenPart] = []
        self._number = 0
        self._fd: int | None = None
        self._size = 0
        self._opened_s = 0.0

    def prepare(self) -> None:
        """Makes the directory and the next file: the first one, unless another process was at it before."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = filter(None, map(PART.fullmatch, os.listdir(self._directory)))
        mine = [int(match["part"]) for match in found if match["recording"] == self._head.recording]
        if mine:
            self._number = max(mine)
            self._parts = self._parts_before()
        self._open()

    def _parts_before(self) -> list[WrittenPart]:
        path = sidecar_path(self._directory, self._head.recording)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Sidecar).parts
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return []

    def append(self, data: bytes, frames: int) -> None:
        """All of it, or nothing: a line that is cut off would spoil the next one."""
        if self._fd is None or self._is_gone(self._fd):
            self._open()
        elif self._is_full(len(data)):
            self._close()
            self._open()
        assert self._fd is not None
        try:
            _write_all(self._fd, data)
        except OSError:
            self._take_back(self._fd)
            raise
        self._size += len(data)
        part = self._parts[-1]
        part.bytes, part.frames = self._size, part.frames + frames

    def close(self, finish: Callable[[Sidecar], None]) -> None:
        """Ends the recording; `finish` says in the sidecar how it went."""
        self._close()
        with suppress(OSError):
            self._write_sidecar(finish)

    def remove(self) -> None:
        """Ends a recording of nothing as if it had not been."""
        self._close()
        for file in [part.file for part in self._parts] + [
            sidecar_path(self._directory, self._head.recording).name
        ]:
            with suppress(OSError):
                (self._directory / file).unlink()

    def _is_full(self, more: int) -> bool:
        is_old = self._clock.monotonic() - self._opened_s >= self._options.part_s
        has_frames = self._parts[-1].frames > 0
        return has_frames and (is_old or self._size + more > self._options.part_bytes)

    def _is_gone(self, fd: int) -> bool:
        """Deleted, perhaps with its directory: what is written to it nobody will ever read."""
        if os.fstat(fd).st_nlink:
            return False
        self._close()
        return True

    def _take_back(self, fd: int) -> None:
        try:
            os.ftruncate(fd, self._size)
        except OSError:
            # Nothing can be said about its end any more: the next one is another file.
            self._close()

    # Files.

    def _open(self) -> None:
        self._make_room()
        self._number += 1
        name = f"{self._head.recording}-{self._number:04}{SUFFIX}"
        path = self._directory / name
        flags = (
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        )
        fd = os.open(path, flags, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            head = encode_head(msgspec.structs.replace(self._head, part=self._number))
            _write_all(fd, head)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                path.unlink()
            raise
        self._fd = fd
        self._size = len(head)
        self._opened_s = self._clock.monotonic()
        self._parts.append(WrittenPart(file=name, bytes=self._size, opened=self._clock.wall()))
        with suppress(OSError):
            # It only repeats what the tapes say.
            self._write_sidecar(lambda _: None)

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _write_sidecar(self, finish: Callable[[Sidecar], None]) -> None:
        self._parts = [part for part in self._parts if (self._directory / part.file).exists()]
        head = self._head
        sidecar = Sidecar(
            recording=head.recording,
            program=head.program,
            clients=head.clients,
            upstreams=head.upstreams,
            started=head.started,
            ring_s=head.ring_s,
            parts=self._parts,
        )
        finish(sidecar)
        path = sidecar_path(self._directory, head.recording)
        fresh = path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, msgspec.json.format(msgspec.json.encode(sidecar)) + b"\n")
        finally:
            os.close(fd)
        os.replace(fresh, path)

    def _make_room(self) -> None:
        """Removes the oldest tapes, of whichever recording, so that a whole part more has room."""
        found = sorted(path for path in self._directory.iterdir() if PART.fullmatch(path.name))
        sizes = {path: _size_of(path) for path in found}
        surplus = sum(sizes.values()) + self._options.part_bytes - self._options.total_bytes
        for path, size in sizes.items():
            if surplus <= 0:
                return
            if not is_written(path):
                log.info("removing %s to make room", path.name)
                path.unlink(missing_ok=True)
                self._forget(path)
                surplus -= size

    def _forget(self, path: Path) -> None:
        """A recording without tapes needs no sidecar."""
        match = PART.fullmatch(path.name)
        assert match is not None
        recording = match["recording"]
        if recording != self._head.recording and not any(self._directory.glob(f"{recording}-*{SUFFIX}")):
            sidecar_path(self._directory, recording).unlink(missing_ok=True)


def sidecar_path(directory: Path, recording: str) -> Path:
    return directory / f"{recording}.json"


def is_written(path: Path) -> bool:
    """Whether a process has it open to write it."""
    if fcntl is None:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
