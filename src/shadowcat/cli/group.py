"""The command line. Each command imports what it runs when it runs: a stdio proxy starts with every IDE window."""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = ("echo", "forward", "reverse", "session")
"""Each in a module of its own, under its own name."""


class Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return getattr(import_module(f"shadowcat.cli.{cmd_name}"), cmd_name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shadowcat")
def main() -> None:
    """A proxy for the Model Context Protocol."""
