"""The command line. Each command imports what it runs when it runs: a stdio proxy starts with every IDE window."""

from __future__ import annotations

from importlib import import_module
from typing import Unpack

import click

from shadowcat.cli.options import Serving, by_name, cannot_listen, listen_option, serve, serving_options
from shadowcat.cli.params import UPSTREAM


class Commands(click.Group):
    """Knows the names of commands that stand in modules of their own, and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "forward"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "forward":
            return import_module("shadowcat.cli.forward").forward
        return super().get_command(ctx, cmd_name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shadowcat")
def main() -> None:
    """A proxy for the Model Context Protocol."""


@main.command()
@listen_option
def echo(listen: tuple[str, int]) -> None:
    """Answer every HTTP request with its own body: the engine alone, to try it or to measure it.

    \b
    Example:
      shadowcat echo --listen 127.0.0.1:8080
    """
    from shadowcat import app

    try:
        app.run(app.echo(*listen, click.echo))
    except OSError as error:
        raise cannot_listen(listen, error) from error


@main.command()
@click.option(
    "--upstream",
    "upstreams",
    type=UPSTREAM,
    multiple=True,
    required=True,
    metavar="[NAME=]URL",
    help="A server's MCP endpoint; several share the new sessions.",
)
@serving_options
def reverse(upstreams: tuple[tuple[str, str], ...], **options: Unpack[Serving]) -> None:
    """Serve MCP clients in front of one or more Streamable HTTP servers.

    \b
    Examples:
      shadowcat reverse --listen 127.0.0.1:8080 --upstream http://127.0.0.1:3000/mcp
      shadowcat reverse --upstream a=http://127.0.0.1:3001/mcp --upstream b=http://127.0.0.1:3002/mcp
    """
    serve(by_name(upstreams), **options)
