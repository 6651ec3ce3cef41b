"""`shadowcat doctor`: what is right and what is wrong with a server, for a person."""

from __future__ import annotations

import json
import os
from typing import Any, cast

import click

from shadowcat.wire.text import on_one_line


@click.command()
@click.option("--call", metavar="NAME", help="A tool to call as well; by default none is called.")
@click.option("--arguments", metavar="JSON", help="Arguments for that tool.")
@click.option(
    "--token-from", metavar="VARIABLE", help="Environment variable that holds the bearer token to send."
)
@click.option(
    "--deadline",
    "deadline_s",
    type=click.IntRange(1, 3600),
    default=90,
    show_default=True,
    metavar="SECONDS",
    help="How long the whole run may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print findings and facts as JSON.")
@click.argument("server", nargs=-1, required=True, metavar="URL | -- COMMAND [ARGS]...")
def doctor(
    server: tuple[str, ...],
    call: str | None,
    arguments: str | None,
    token_from: str | None,
    deadline_s: int,
    as_json: bool,
) -> None:
    """Find out what is wrong with an MCP server, or with the proxies in front of one.

    It opens a session, lists and pings, and ends the session; it calls no tool but the one that --call names. The exit
    code is 0 if all is fine, 1 if there are problems, 2 if nobody could use the server.

    \b
    Examples:
      shadowcat doctor http://127.0.0.1:8080/mcp
      shadowcat doctor --call count --arguments '{"to": 3}' http://127.0.0.1:8080/mcp
      shadowcat doctor -- python my_server.py
    """
    is_url = len(server) == 1 and "://" in server[0]
    if not is_url and (call or token_from):
        raise click.UsageError("--call and --token-from are for a URL")
    if arguments is not None and call is None:
        raise click.UsageError("--arguments are those of --call")
    url = _url(server[0]) if is_url else ""
    called = (call, _object(arguments)) if call else None
    token = _variable(token_from) if token_from else None

    from shadowcat.app.doctor import examine_command, examine_url
    from shadowcat.app.process import run

    examined = (
        examine_url(url, deadline_s, token, called, _tell)
        if is_url
        else examine_command(server, deadline_s, _tell)
    )
    report = run(examined)
    click.echo(report.as_json() if as_json else report.as_text())
    raise SystemExit(report.exit_code)


def _tell(line: str) -> None:
    click.echo(on_one_line(f"shadowcat doctor: {line}"), err=True)


def _url(text: str) -> str:
    from shadowcat.app.upstreams import ServerUrl

    try:
        return str(ServerUrl(text))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise click.UsageError(f"--arguments is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise click.UsageError("--arguments is an object, for example '{\"to\": 3}'")
    return cast("dict[str, Any]", value)


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value or not value.isascii() or not value.isprintable():
        raise click.UsageError(f"there is no token in the variable {name}")
    return value
