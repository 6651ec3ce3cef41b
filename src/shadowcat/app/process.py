"""What every command needs from its process: an event loop, a log, and an orderly end when told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

DRAIN_S = 10.0
_STOPPING = (signal.SIGINT, signal.SIGTERM)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs on uvloop where there is one. An interrupt that nobody handles ends the process as a shell would say it."""
    try:
        return _runner()(main)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _runner() -> Callable[[Coroutine[Any, Any, T]], T]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def until_stopped(
    drain: Callable[[], Awaitable[None]],
    begun: Callable[[], object],
    reload: Callable[[], object] | None = None,
) -> None:
    """Waits for SIGINT or SIGTERM, then drains; a second signal ends the process at once, whatever it is at.

    `begun` is called when the first will be heard: who is told earlier that we serve may stop us too early.
    `reload` is called for a SIGHUP, but for the one that comes when our terminal goes: that stops us too.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in _STOPPING:
        loop.add_signal_handler(number, stop.set)
    if reload is not None:
        terminals = _terminals()

        def hung_up() -> None:
            if terminals and not _terminals():
                stop.set()
            else:
                reload()

        loop.add_signal_handler(signal.SIGHUP, hung_up)
    begun()
    await stop.wait()
    for number in _STOPPING:
        loop.remove_signal_handler(number)
        # Not by an exception, which would have everything closed in good order first.
        signal.signal(number, lambda number, _: os._exit(128 + number))
    await drain()


def _terminals() -> list[int]:
    """Which of our standard streams are one; of those whose other end is gone, none is."""
    return [fd for fd in range(3) if os.isatty(fd)]


def allow_open_files() -> None:
    """As many as the system lets us have: the usual 1,024 are used up by 200 children with their pipes."""
    try:
        import resource
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        pass  # some systems name a limit that they do not grant
