"""Our stderr, shared by the child's words, as they came, and the log, each line of which says that it is ours.

A thread writes it: whoever is at its other end may be slow, or read nothing, and nobody else may wait for that. Made
non-blocking it would stay so for those who share it with us.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque

MARK = "shadowcat: "
MAX_BYTES = 1024 * 1024
"""What waits for a reader; more is left out, and that is said."""
BEHIND_BYTES = 256 * 1024
_CHUNK = 16 * 1024


class StderrWriter:
    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._left_out = 0
        self._ends_line = True
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.written = 0
        """Bytes so far: whether its reader reads."""

    @property
    def is_behind(self) -> bool:
        return self._size > BEHIND_BYTES

    def write(self, data: bytes) -> None:
        """Waits for nobody, in any thread."""
        if not data:
            return
        with self._changed:
            if self._size + len(data) > MAX_BYTES:
                self._left_out += len(data)
                return
            if self._left_out:
                told, self._left_out = b"%d bytes on stderr are left out" % self._left_out, 0
                self._say(told)
            self._put(data)

    def say(self, text: str, mark: str = MARK) -> None:
        """A text of ours, on lines of its own."""
        with self._changed:
            if self._size <= MAX_BYTES:
                self._say(text.encode(errors="backslashreplace"), mark.encode())

    def close(self, within_s: float = 1.0) -> None:
        """Returns when all of it is written, or time is up."""
        if self._thread is None:
            return
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(within_s)

    def _say(self, text: bytes, mark: bytes = MARK.encode()) -> None:
        start = b"" if self._ends_line else b"\n"
        self._put(start + mark + text.replace(b"\n", b"\n" + mark) + b"\n")

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        self._ends_line = data.endswith(b"\n")
        if self._thread is None:
            # A daemon: nothing ends a write that nobody reads.
            self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closing:
                        return
                    self._changed.wait()
                data = b"".join(self._waiting)
                self._waiting.clear()
            self._write_all(data)

    def _write_all(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                count = os.write(self._fd, left[:_CHUNK])
            except BlockingIOError:
                # Somebody who shares it made it non-blocking.
                threading.Event().wait(0.01)
                continue
            except OSError:
                count = len(left)  # nobody is there to read it
            left = left[count:]
            with self._changed:
                self._size -= count
            self.written += count


class StderrLog(logging.Handler):
    """The log, for a process whose stderr is not its own. An object for a program bears no mark."""

    def __init__(self, stderr: StderrWriter, formatter: logging.Formatter, *, marks: bool) -> None:
        super().__init__()
        self._stderr = stderr
        self._mark = MARK if marks else ""
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        self._stderr.say(self.format(record), self._mark)
