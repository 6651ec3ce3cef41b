"""`shadowcat replay`: a tape plays the server, or the client."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from shadowcat.cli.options import CannotStart, cannot_listen
from shadowcat.cli.said import say
from shadowcat.cli.tape import ignore_option, strict_option, usable
from shadowcat.errors import Fault
from shadowcat.secret import shown_url
from shadowcat.wire.hosts import Address
from shadowcat.wire.text import counted

if TYPE_CHECKING:
    from shadowcat.app.replay import Command, ReplayOptions


@click.command(context_settings={"allow_interspersed_args": True})
@click.argument("tape")
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARGS]...]")
@click.option("--listen", metavar="HOST:PORT", help="Play the server over HTTP, on this address.")
@click.option("--stdio", is_flag=True, help="Play the server over stdio, in place of its command.")
@click.option(
    "--against", metavar="URL", help="Play the client against this server, and compare its answers."
)
@ignore_option
@strict_option
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=0.0,
    help="1 plays as fast as recorded, 10 ten times as fast, 0 without waiting.",
)
@click.option("--session", default="", help="Only the session whose name begins with this.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for what the other side did on the tape, not counting the start of a command.",
)
def replay(
    tape: str,
    command: tuple[str, ...],
    listen: str | None,
    stdio: bool,
    against: str | None,
    ignore: tuple[str, ...],
    strict: bool,
    speed: float,
    session: str,
    wait_s: float,
) -> None:
    """Play a tape: as the server, or as the client against a server.

    As the client, it prints what the server answers differently than on the tape. The exit code is 1 if anything
    differs, 2 if the tape or the server cannot be used. Requests that the proxy itself answered on the tape are
    counted, but not compared.

    \b
    Examples:
      shadowcat replay tapes --listen 127.0.0.1:8080
      shadowcat replay tapes --stdio
      shadowcat replay tapes --against http://127.0.0.1:3000/mcp
      shadowcat replay tapes -- python my_server.py
    """
    if sum(map(bool, (listen, stdio, against, command))) != 1:
        raise click.UsageError("give one of --listen, --stdio, --against, or, after --, a command")
    from shadowcat.app import logs
    from shadowcat.app.process import run
    from shadowcat.app.replay import Command, ReplayOptions, pipe_tape

    options = ReplayOptions(ignore=ignore, strict=strict, speed=speed, session=session, wait_s=wait_s)
    logs.set_up(logs.LogOptions("warning"))
    with usable():
        if listen is not None:
            _serve(tape, options, Address(listen))
        elif stdio:
            run(pipe_tape(tape, options))
        else:
            _play(tape, options, against or Command(command))


def _serve(tape: str, options: ReplayOptions, listen: Address) -> None:
    from shadowcat.app.process import run
    from shadowcat.app.replay import serve_tape

    try:
        run(serve_tape(tape, options, listen, say))
    except OSError as error:
        if error.filename is not None:
            raise
        raise cannot_listen(listen, error) from error


def _play(tape: str, options: ReplayOptions, server: str | Command) -> None:
    from shadowcat.app.process import run
    from shadowcat.app.replay import play_client
    from shadowcat.app.upstreams import named_url

    if isinstance(server, str):
        _, server = named_url(server)
    try:
        found = run(play_client(tape, options, server, click.echo))
    except Fault as fault:
        raise _cannot_ask(server, fault) from fault
    aside = f", {found.uncompared} of them not compared" if found.uncompared else ""
    click.echo(f"{counted(found.exchanges, 'request')}{aside}, {counted(found.differences, 'difference')}")
    sys.exit(1 if found.differences else 0)


def _cannot_ask(server: str | Command, fault: Fault) -> CannotStart:
    because = fault.reason.replace("_", " ")
    if isinstance(server, str):
        named = shown_url(server)
    else:
        named = f"-- {server.argv[0]}{' …' if server.argv[1:] else ''}"
        if fault.reason == "command_not_started":
            because = server.why_not_started(fault)
    return CannotStart(
        f"the server cannot be asked: {fault.message} ({because}); `shadowcat doctor {named}` says more"
    )
