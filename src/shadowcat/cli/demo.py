"""`shadowcat demo`: something to try a proxy with, and the proxy in front of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shadowcat.cli.options import LISTEN, LOG, CannotStart, cannot_listen, settings_from, with_flags
from shadowcat.cli.said import say
from shadowcat.errors import StoreUnusable
from shadowcat.wire.hosts import Address

if TYPE_CHECKING:
    from msgspec import Struct

    from shadowcat.config.load import Flag

FAILED = 1


def _settings() -> type[Struct]:
    from shadowcat.app.demo import DemoSettings

    return DemoSettings


@click.command(cls=with_flags(LISTEN, *LOG, tree=_settings))
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIRECTORY",
    help="Directory to keep sessions in; by default they end with the demo.",
)
@click.option(
    "--server", type=click.Choice(("http", "stdio")), help="Start only the demo's server, without the proxy."
)
@click.option(
    "--crash", is_flag=True, help="Kill the server and the proxy under a client, and count what it sees."
)
def demo(state: Path | None, server: str | None, crash: bool, flags: list[Flag]) -> None:
    """Start a small MCP server with the proxy in front of it, and print how to try them.

    The server has tools that answer, report progress, ask the user and the model, fail and sleep, a resource that
    changes, and a prompt. With --crash, the exit code is 0 if the client lost nothing and saw nothing twice, and 1 if
    not.

    \b
    Examples:
      shadowcat demo
      shadowcat demo --crash
      shadowcat forward stdio -- shadowcat demo --server stdio
    """
    from shadowcat.app import logs
    from shadowcat.app.demo import DemoSettings
    from shadowcat.config.load import load

    settings = settings_from(lambda: load(DemoSettings, flags=flags)).settings
    listen = settings.listen
    if crash and (server or listen or state):
        raise click.UsageError("--crash takes no other option: it starts and ends everything by itself")
    if server == "stdio" and (listen or state):
        raise click.UsageError("--listen and --state are for a server that speaks HTTP")

    logs.set_up(settings.log)
    if crash:
        raise SystemExit(_show_crash())
    try:
        _serve(server, listen, state)
    except StoreUnusable as error:
        raise CannotStart(f"the store cannot be used: {error}") from error
    except OSError as error:
        raise cannot_listen(listen or "127.0.0.1:8080", error) from error


def _serve(server: str | None, listen: Address | None, state: Path | None) -> None:
    from shadowcat.app.process import run

    if server == "stdio":
        from shadowcat.app.demo_stdio import serve_stdio

        run(serve_stdio())
        return
    from shadowcat.app import demo

    if server == "http":
        run(demo.serve_server(listen or Address("127.0.0.1:3000"), state, say))
    else:
        run(demo.serve_demo(listen, state, say))


def _show_crash() -> int:
    from shadowcat.app.demo_crash import CannotShow, show_crash
    from shadowcat.app.process import run

    began = time.monotonic()

    def tell(who: str, what: str) -> None:
        click.echo(f"{time.monotonic() - began:5.1f} s  {who:<6}  {what}")

    try:
        verdict = run(show_crash(tell))
    except CannotShow as error:
        raise click.ClickException(str(error)) from error
    click.echo(verdict.told)
    return 0 if verdict.is_good else FAILED
