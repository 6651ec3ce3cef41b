"""The commands."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from typing import Any

import click
from click.exceptions import NoSuchCommand

from shadowcat.cli.shortcut import played, url_without_scheme

_COMMANDS = {
    "config": "Check settings, and show where they come from.",
    "demo": "Start a small server with the proxy in front of it.",
    "doctor": "Find out what is wrong with a server.",
    "forward": "Stand in for a server on a developer's machine.",
    "replay": "Play a tape, as the server or as the client.",
    "reverse": "Serve clients in front of HTTP servers.",
    "session": "List, show and end the sessions in a store.",
    "tape": "Look at the tapes that --record writes.",
}
"""Each in a module of its own, under its own name, which a list of them need not load."""


class Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return getattr(import_module(f"shadowcat.cli.{cmd_name}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # click would say "Aborted!" and give the exit code of what did not work.
            raise SystemExit(128 + signal.SIGINT) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            if os.path.isdir(args[0]):
                # Not before: there may be a directory that is called as a command is.
                found = played(args, is_terminal=os.isatty(0))
                click.echo(f"shadowcat: this is short for: {found.told}", err=True)
                return super().resolve_command(ctx, found.args)
            if (url := url_without_scheme(args[0])) is not None:
                raise click.UsageError(
                    f"a URL begins with http:// or https://; did you mean {url}?", ctx
                ) from None
            # click looks for what was meant among commands that are loaded.
            raise NoSuchCommand(error.command_name, possibilities=_COMMANDS, ctx=ctx) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shadowcat")
def main() -> None:
    """A proxy for the Model Context Protocol.

    \b
    Shortcuts:
      shadowcat -- CMD [ARGS]   proxy a stdio server: over stdio or, from a terminal, over HTTP
      shadowcat URL             the same for an HTTP server
      shadowcat TAPE            play a recorded server from a file or a directory

    \b
    Example:
      shadowcat reverse --listen 127.0.0.1:8080 --upstream http://127.0.0.1:3000/mcp
    """
