"""What an editor starts in place of a command: that begins at once, and what we need is loaded while it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shadowcat.errors import Fault
from shadowcat.upstream.command import Command
from shadowcat.upstream.spawn import spawned


def stand_in(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    log_level: str = "warning",
) -> int:
    """Returns the command's exit code."""
    command = Command(tuple(argv), env or {}, cwd, inherits=True)
    try:
        already = spawned(command)
    except Fault:
        already = None  # it is tried once more where a failure can be told to the client

    from shadowcat.app.stdio import serve_stdio

    return serve_stdio(command, already, log_level)
