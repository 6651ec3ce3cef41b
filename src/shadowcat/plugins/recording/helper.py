"""The recorder's side of the writing process: starts it, hands it batches, and ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO

import msgspec

from shadowcat.plugins.recording.entry import Batch, Progress, Ready, Setup, framed, framed_with, read_whole

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_START_S = 30.0
_END_S = 2.0
_MODULE = "shadowcat.plugins.recording.scribe"

_PIPE_BYTES = 1024 * 1024
"""Room for what is handed over at a time: else each 64 KiB of it take two changes of the process on the core."""

_decode_progress = msgspec.msgpack.Decoder(Progress).decode
_decode_ready = msgspec.msgpack.Decoder(Ready).decode


class HelperLost(Exception):
    """It has ended, and what it was handed last may not be written."""


class Helper:
    """Used by one thread at a time, but for `kill`."""

    def __init__(self, setup: Setup) -> None:
        """Returns once it can write. Raises `OSError` where it cannot, or cannot be started."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # The modules that run here are found there, wherever this program was started.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            # A signal that a terminal sends to all of us is the proxy's to understand.
            start_new_session=True,
        )
        _enlarge(self._process.stdin)
        # A disk may hang; a start must not.
        limit = threading.Timer(_START_S, self.kill)
        limit.daemon = True
        limit.start()
        try:
            ready = _decode_ready(self._answer_to(framed(setup)))
        except HelperLost as error:
            raise OSError(f"the process that writes does not start ({error})") from error
        finally:
            limit.cancel()
        if ready.told:
            self.end()
            raise OSError(ready.errno, ready.told, ready.file or None)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_reaped(self) -> bool:
        return self._process.returncode is not None

    def hand(self, batch: Batch, entries: bytes | bytearray) -> Progress:
        """Returns once they are written, however long the disk takes. Raises `HelperLost`."""
        return _decode_progress(self._answer_to(framed_with(batch, entries)))

    def _answer_to(self, frame: bytearray) -> bytes:
        # In one piece each way: after each the thread has to wait for Python's lock, which stops a call under way.
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            left = memoryview(frame)
            while left:
                left = left[stdin.write(left) :]
            answer = read_whole(stdout.read)
        except OSError:
            answer = None
        if answer is None:
            raise HelperLost(self._end_told())
        return answer

    def _end_told(self) -> str:
        self.end()
        code = self._process.returncode
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """It ends with its input. Killed where it does not."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def kill(self) -> None:
        """Whoever waits for it waits no longer."""
        self._process.kill()


def _enlarge(pipe: IO[bytes] | None) -> None:
    """As far as the system lets us."""
    if pipe is not None and fcntl is not None and sys.platform == "linux":
        with suppress(OSError):
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
