"""The command line. Each command imports what it runs when it runs: a stdio proxy starts with every IDE window."""

from __future__ import annotations

import os

import click

from shadowcat.cli.params import HOST, HOST_PORT, ORIGIN, UPSTREAM, Seconds

LOG_LEVELS = ("debug", "info", "warning", "error")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shadowcat")
def main() -> None:
    """A proxy for the Model Context Protocol."""


def _cannot_listen(listen: tuple[str, int], error: OSError) -> click.ClickException:
    because = os.strerror(error.errno) if error.errno else str(error)
    return click.ClickException(
        f"cannot listen on {listen[0]}:{listen[1]}: {because}; choose another with --listen"
    )


@main.command()
@click.option(
    "--listen", type=HOST_PORT, default="127.0.0.1:8080", show_default=True, help="Address to serve on."
)
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
        raise _cannot_listen(listen, error) from error


@main.command()
@click.option(
    "--listen", type=HOST_PORT, default="127.0.0.1:8080", show_default=True, help="Address to serve on."
)
@click.option(
    "--upstream",
    "upstreams",
    type=UPSTREAM,
    multiple=True,
    required=True,
    metavar="[NAME=]URL",
    help="A server's MCP endpoint; several share the new sessions.",
)
@click.option("--path", default="/mcp", show_default=True, help="Path of the endpoint.")
@click.option(
    "--allow-origin",
    type=ORIGIN,
    multiple=True,
    metavar="ORIGIN",
    help="A web page's origin that may use the proxy.",
)
@click.option(
    "--allow-host", type=HOST, multiple=True, metavar="HOST", help="A host name clients may ask for."
)
@click.option("--max-sessions", type=click.IntRange(1), default=10_000, show_default=True)
@click.option(
    "--session-idle",
    "session_idle_s",
    type=Seconds(1),
    default=1800,
    show_default=True,
    metavar="SECONDS",
)
@click.option(
    "--call-deadline",
    "call_deadline_s",
    type=Seconds(1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long a server may be silent during a call.",
)
@click.option(
    "--max-body",
    "max_body_bytes",
    type=click.IntRange(1),
    default=4 * 1024 * 1024,
    show_default=True,
    metavar="BYTES",
    help="The largest request a client may send.",
)
@click.option(
    "--upgrade-after",
    "upgrade_after_s",
    type=Seconds(0),
    metavar="SECONDS",
    help="Answer a longer call as a stream, which a 2025-11-25 client can resume.",
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True)
def reverse(
    listen: tuple[str, int],
    upstreams: tuple[tuple[str, str], ...],
    path: str,
    allow_origin: tuple[str, ...],
    allow_host: tuple[str, ...],
    max_sessions: int,
    session_idle_s: float,
    call_deadline_s: float,
    max_body_bytes: int,
    upgrade_after_s: float | None,
    log_level: str,
) -> None:
    """Serve MCP clients in front of one or more Streamable HTTP servers.

    \b
    Examples:
      shadowcat reverse --listen 127.0.0.1:8080 --upstream http://127.0.0.1:3000/mcp
      shadowcat reverse --upstream a=http://127.0.0.1:3001/mcp --upstream b=http://127.0.0.1:3002/mcp
    """
    from shadowcat import app

    if len(dict(upstreams)) != len(upstreams):
        raise click.UsageError("two upstreams have one name; write --upstream NAME=URL with a name for each")
    if not path.startswith("/"):
        raise click.UsageError("--path begins with a slash")
    settings = app.ReverseSettings(
        upstreams=dict(upstreams),
        host=listen[0],
        port=listen[1],
        path=path,
        allowed_origins=frozenset(allow_origin),
        allowed_hosts=frozenset(allow_host),
        max_sessions=max_sessions,
        session_idle_s=session_idle_s,
        call_deadline_s=call_deadline_s,
        max_body_bytes=max_body_bytes,
        upgrade_after_s=upgrade_after_s,
    )
    app.set_up_logging(log_level)
    try:
        app.run(app.serve_reverse(settings, click.echo))
    except OSError as error:
        raise _cannot_listen(listen, error) from error
