"""The process that writes, as the recorder has it: started, handed batches, and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import msgspec

from shadowcat.plugins.recording.entry import Batch, Progress, Ready, Setup, framed, read_frame

_START_S = 30.0
_END_S = 2.0
_MODULE = "shadowcat.plugins.recording.scribe"

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
        # A disk may hang; a start must not.
        limit = threading.Timer(_START_S, self.kill)
        limit.daemon = True
        limit.start()
        try:
            ready = _decode_ready(self._answer_to(setup))
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

    def hand(self, batch: Batch) -> Progress:
        """Returns once it is written, however long the disk takes. Raises `HelperLost`."""
        return _decode_progress(self._answer_to(batch))

    def _answer_to(self, value: Setup | Batch) -> bytes:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            left = memoryview(framed(value))
            while left:
                left = left[stdin.write(left) :]
            answer = read_frame(stdout.read)
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
