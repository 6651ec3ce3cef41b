"""The command line. Each command imports its code only when it runs: a stdio proxy starts with every IDE window."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from shadowcat.cli.shortcut import command_of, written_out

if TYPE_CHECKING:
    from shadowcat.cli.group import main

__all__ = ["main", "run"]

_INTERRUPTED = 130
"""128 and the number of SIGINT; loading its name is not for a program that starts with every window of an editor."""


def run() -> None:
    """The program. An interrupt ends it as a shell would say it, whatever it is at."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _run() -> None:
    args = sys.argv[1:]
    if (found := written_out(args, is_terminal=os.isatty(0), is_pipe=_is_pipe(0))) is not None:
        print(f"shadowcat: this is short for: {found.told}", file=sys.stderr)
        args = found.args
    # Settings of the environment are read with what click is loaded for.
    if (argv := command_of(args)) is not None and not any(
        name.startswith("SHADOWCAT_") for name in os.environ
    ):
        from shadowcat.app.standin import stand_in

        sys.exit(stand_in(argv))

    from shadowcat.cli.group import main

    main(args)


def _is_pipe(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def __getattr__(name: str) -> Any:
    if name == "main":
        from shadowcat.cli.group import main

        return main
    raise AttributeError(f"module 'shadowcat.cli' has no attribute {name!r}")
