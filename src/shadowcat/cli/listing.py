"""A group that lists each command with its whole first sentence; click would cut it short."""

from __future__ import annotations

import click

_ANY_LENGTH = 1_000


class Listing(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, found.get_short_help_str(_ANY_LENGTH)) for name, found in commands if found is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
