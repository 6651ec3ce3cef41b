"""`shadowcat forward`: for a developer's machine, or a small team's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from shadowcat.cli.options import (
    CannotStart,
    Serving,
    by_name,
    log_level_option,
    serve,
    serving_options,
)
from shadowcat.cli.params import UPSTREAM, VARIABLE

if TYPE_CHECKING:
    from shadowcat.app.proxy import Command


@click.group()
def forward() -> None:
    """Stand in for a server, where its clients would have started or reached it themselves."""


_env_option = click.option(
    "--env", type=VARIABLE, multiple=True, metavar="NAME=VALUE", help="A variable that the command gets."
)
_cwd_option = click.option(
    "--cwd", type=click.Path(exists=True, file_okay=False), help="The directory that it runs in."
)


@forward.command(context_settings={"allow_interspersed_args": False})
@_env_option
@_cwd_option
@log_level_option("warning")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND [ARGS]...")
def stdio(
    command: tuple[str, ...], env: tuple[tuple[str, str], ...], cwd: str | None, log_level: str
) -> None:
    """Stand in for a command that speaks stdio, where its client would have started it.

    \b
    Examples:
      shadowcat forward stdio -- python my_server.py
      shadowcat forward stdio --log-level info -- npx -y some-server
    """
    from shadowcat.app.standin import stand_in

    raise SystemExit(stand_in(command, dict(env), cwd, log_level))


@forward.command()
@click.option(
    "--upstream",
    "upstreams",
    type=UPSTREAM,
    multiple=True,
    metavar="[NAME=]URL",
    help="A server's MCP endpoint, in place of a command.",
)
@click.option(
    "--shared", is_flag=True, help="One process for all sessions: the command keeps nothing of any."
)
@_env_option
@_cwd_option
@serving_options
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARGS]...]")
def http(
    command: tuple[str, ...],
    upstreams: tuple[tuple[str, str], ...],
    shared: bool,
    env: tuple[tuple[str, str], ...],
    cwd: str | None,
    **options: Unpack[Serving],
) -> None:
    """Serve MCP clients over HTTP in front of a command that speaks stdio, or of servers that speak HTTP.

    \b
    Examples:
      shadowcat forward http -- python my_server.py
      shadowcat forward http --shared --env API_KEY=secret -- npx -y some-server
      shadowcat forward http --upstream http://127.0.0.1:3000/mcp
    """
    if bool(command) == bool(upstreams):
        raise click.UsageError("give either --upstream or, after --, a command")
    if upstreams and (shared or env or cwd):
        raise click.UsageError("--shared, --env and --cwd are for a command")
    if not command:
        serve(by_name(upstreams), **options)
        return
    serve({Path(command[0]).name: _runnable(command, dict(env), cwd)}, shared=shared, **options)


def _runnable(argv: tuple[str, ...], env: dict[str, str], cwd: str | None) -> Command:
    from shadowcat.app.proxy import Command

    program = argv[0]
    # As the operating system will look for it: from its directory, or along its PATH.
    where = str(Path(cwd or ".") / program) if "/" in program else program
    if shutil.which(where, path=env.get("PATH")) is None:
        raise CannotStart(f"there is no program {program!r}")
    return Command(argv, env, cwd)
