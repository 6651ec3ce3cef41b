"""Whether a proxy is the only one that uses a session file: while it runs, it locks a file next to it."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole_user(path: Path) -> Generator[bool]:
    """True but where another process is known to use it. Nobody is kept from it: that one may be about to end."""
    beside = path.with_name(path.name + "-user")
    try:
        # As the store would make it with its first session.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        # What is wrong with that place is the store's to say.
        yield True
        return
    try:
        yield _is_locked_by_us(descriptor)
    finally:
        # The file stays: who opened it just before would have a lock on another than who comes next.
        os.close(descriptor)


def _is_locked_by_us(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some file systems have no locks.
        return True
    return True
