"""Starts a child: no shell, pipes, a process group of its own, and an end when its parent ends.

Apart from the rest of what a process is, and without the event loop: whoever stands in for the command itself starts
it before loading anything else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shadowcat.errors import Fault, FaultKind
from shadowcat.upstream.command import Command


class Spawned(NamedTuple):
    child: subprocess.Popen[bytes]
    ends: Sequence[int]
    """Ours, of its stdin, stdout and stderr."""


def spawned(command: Command) -> Spawned:
    """Raises `Fault` for a command that cannot be run; nothing is left of it then."""
    theirs, ours = _pipes()
    try:
        child = subprocess.Popen(
            command.argv,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            cwd=command.cwd,
            env=command.environment(os.environ),
            start_new_session=True,
            preexec_fn=_dying_with_us(),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        _close(ours)
        told = "The upstream's command cannot be started"
        raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, told, reason="command_not_started") from error
    finally:
        _close(theirs)
    return Spawned(child, ours)


def _pipes() -> tuple[list[int], list[int]]:
    """The child's ends and ours, of stdin, stdout and stderr."""
    theirs: list[int] = []
    ours: list[int] = []
    try:
        for is_stdin in (True, False, False):
            reads, writes = os.pipe()
            theirs.append(reads if is_stdin else writes)
            ours.append(writes if is_stdin else reads)
    except OSError as error:
        _close(theirs + ours)
        told = "No file can be opened for the upstream's command"
        raise Fault(FaultKind.OVER_CAPACITY, told, reason="command_not_started") from error
    return theirs, ours


def _close(ends: Sequence[int]) -> None:
    for end in ends:
        os.close(end)


_PR_SET_PDEATHSIG = 1


def _dying_with_us() -> Callable[[], None] | None:
    """What makes the child die when its parent does, where the system can do that."""
    if sys.platform != "linux":
        return None
    import ctypes  # 10 ms, for who has no child only

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            # It died before we asked.
            os._exit(1)

    return in_child
