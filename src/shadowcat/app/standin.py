"""Started by an editor in place of a command: starts the command first, and loads our modules meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from shadowcat.errors import Fault
from shadowcat.upstream.command import Command
from shadowcat.upstream.spawn import spawned

if TYPE_CHECKING:
    from shadowcat.app.logs import LogOptions
    from shadowcat.app.plugins import Plugins
    from shadowcat.core.ports import TapSink
    from shadowcat.plugins.recording.options import RecordOptions


def stand_in(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    log: LogOptions | None = None,
    record: RecordOptions | None = None,
    plugins: Plugins | None = None,
) -> int:
    """Returns the command's exit code. Raises `CannotRecord`."""
    if record is None:
        return _stand_in(argv, env, cwd, log, (), plugins)
    # Before the command is started: what it says first is on the tape too.
    from shadowcat.app.recording import recording

    with recording(record, "stdio", {os.path.basename(argv[0]): "stdio"}) as taps:
        return _stand_in(argv, env, cwd, log, taps, plugins)


def _stand_in(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: str | None,
    log: LogOptions | None,
    taps: Sequence[TapSink],
    plugins: Plugins | None,
) -> int:
    open_what_is_closed()
    command = Command(tuple(argv), env or {}, cwd, inherits=True)
    try:
        already = spawned(command)
    except Fault:
        already = None  # it is tried once more where a failure can be told to the client

    _load_msgspec()
    from shadowcat.app.logs import LogOptions
    from shadowcat.app.stdio import serve_stdio

    options = log or LogOptions(level="warning")
    if options.level == "debug":
        from shadowcat.plugins.message_log import message_log

        taps = (*taps, *message_log(options.level))
    return serve_stdio(command, already, options, taps, plugins)


def open_what_is_closed() -> None:
    """Where stdin was closed before, the next pipe of ours would take its place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _load_msgspec() -> None:
    """Without typing_extensions, which takes as long to load as all of asyncio's half, and of which it needs nothing.

    It takes what the standard library has in its place, from Python 3.11 on.
    """
    if "typing_extensions" in sys.modules:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] - that is how an import is made to fail
    try:
        import_module("msgspec")
    finally:
        del sys.modules["typing_extensions"]
