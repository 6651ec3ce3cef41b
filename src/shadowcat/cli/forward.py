"""`shadowcat forward`: for a developer's machine, or a small team's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shadowcat.cli.listing import Listing
from shadowcat.cli.options import (
    ALLOW_TARGET,
    INTERCEPTING,
    LOG,
    RECORDING,
    SERVING,
    UPSTREAM,
    CannotStart,
    cannot_record,
    config_option,
    serve,
    settings_from,
    with_flags,
)
from shadowcat.cli.params import VARIABLE
from shadowcat.errors import CannotRecord, PluginError

if TYPE_CHECKING:
    from msgspec import Struct

    from shadowcat.config.load import Flag


@click.group(cls=Listing)
def forward() -> None:
    """Stand in for a server on a developer's machine: clients start or reach the proxy instead.

    \b
    Examples:
      shadowcat forward stdio -- python my_server.py
      shadowcat forward stdio --upstream https://example.com/mcp
      shadowcat forward http -- python my_server.py
    """


_env_option = click.option(
    "--env",
    type=VARIABLE,
    multiple=True,
    metavar="NAME=VALUE",
    help="An environment variable for the command.",
)
_cwd_option = click.option(
    "--cwd", type=click.Path(exists=True, file_okay=False), help="The directory to run the command in."
)


def _stdio_settings() -> type[Struct]:
    from shadowcat.app.stdio_settings import StdioSettings

    return StdioSettings


@forward.command(
    cls=with_flags(*INTERCEPTING, *RECORDING, *LOG, tree=_stdio_settings),
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    UPSTREAM.name,
    "urls",
    multiple=True,
    metavar=UPSTREAM.metavar,
    help="The MCP endpoint of an HTTP server, instead of a command.",
)
@_env_option
@_cwd_option
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARGS]...]")
def stdio(
    command: tuple[str, ...],
    urls: tuple[str, ...],
    env: tuple[tuple[str, str], ...],
    cwd: str | None,
    flags: list[Flag],
) -> None:
    """Stand in for a stdio server: clients start the proxy, which starts the server's command.

    With --upstream, serve an HTTP server over stdio instead.

    \b
    Examples:
      shadowcat forward stdio -- python my_server.py
      shadowcat forward stdio --log-level info -- npx -y some-server
      shadowcat forward stdio --upstream https://example.com/mcp
    """
    if bool(command) == bool(urls):
        raise click.UsageError("give either --upstream or, after --, a command")
    if urls and (env or cwd):
        raise click.UsageError("--env and --cwd are for a command")
    try:
        raise SystemExit(_bridge(urls, flags) if urls else _stand_in(command, dict(env), cwd, flags))
    except PluginError as error:
        raise CannotStart(str(error)) from error
    except CannotRecord as error:
        raise cannot_record(error) from error


def _stand_in(command: tuple[str, ...], env: dict[str, str], cwd: str | None, flags: list[Flag]) -> int:
    from shadowcat.app.standin import stand_in
    from shadowcat.app.stdio_settings import load_stdio_settings

    settings = settings_from(lambda: load_stdio_settings(os.environ, flags)).settings
    plugins = None
    if settings.rules is not None or settings.plugins:
        from shadowcat.app.plugins import load_plugins

        plugins = load_plugins(tuple(settings.plugins.values()), rules=settings.rules, hold=settings.hold)
    return stand_in(command, env, cwd, settings.log, settings.record, plugins)


def _bridge(urls: tuple[str, ...], flags: list[Flag]) -> int:
    from shadowcat.app.bridge import serve_bridge
    from shadowcat.app.bridge_settings import load_bridge_settings
    from shadowcat.app.plugins import load_plugins
    from shadowcat.config.load import Flag

    assert UPSTREAM.made is not None
    given = [Flag(UPSTREAM.name, UPSTREAM.path, UPSTREAM.made(urls)), *flags]
    settings = settings_from(lambda: load_bridge_settings(os.environ, given)).settings
    plugins = load_plugins(
        tuple(settings.plugins.values()),
        rules=settings.rules,
        hold=settings.hold,
        upstreams=tuple(settings.upstreams),
    )
    return serve_bridge(settings, plugins)


@forward.command(cls=with_flags(UPSTREAM, ALLOW_TARGET, *SERVING, profile="forward http"))
@config_option
@click.option(
    "--shared",
    is_flag=True,
    help="Use one process for all sessions; for a command that keeps no state per session.",
)
@_env_option
@_cwd_option
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARGS]...]")
def http(
    config: Path | None,
    command: tuple[str, ...],
    shared: bool,
    env: tuple[tuple[str, str], ...],
    cwd: str | None,
    flags: list[Flag],
) -> None:
    """Serve MCP clients over HTTP, in front of a stdio server's command or of HTTP servers.

    With neither, act as an HTTP proxy for clients that name the server themselves (http_proxy=).

    \b
    Examples:
      shadowcat forward http
      shadowcat forward http -- python my_server.py
      shadowcat forward http --shared --env API_KEY=secret -- npx -y some-server
      shadowcat forward http --upstream http://127.0.0.1:3000/mcp
    """
    has_upstream = any(flag.path == UPSTREAM.path for flag in flags)
    if has_upstream and command:
        raise click.UsageError(
            f"--upstream already names the server, and {command[0]!r} would be another one; give only one of them"
        )
    if not command and (shared or env or cwd):
        raise click.UsageError("--shared, --env and --cwd are for a command")
    if command:
        flags.append(_command(command, shared, dict(env), cwd))
    serve("forward http", config, flags)


def _command(words: tuple[str, ...], shared: bool, env: dict[str, str], cwd: str | None) -> Flag:
    from shadowcat.config.load import Flag

    server = {"command": words, "shared": shared, "env": env}
    return Flag("--", UPSTREAM.path, {Path(words[0]).name: server | ({} if cwd is None else {"cwd": cwd})})
