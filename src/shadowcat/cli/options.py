"""The options of every command that serves MCP clients, and what they come to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import click

from shadowcat.cli.params import HOST, HOST_PORT, ORIGIN, Seconds
from shadowcat.errors import StoreUnusable

if TYPE_CHECKING:
    from shadowcat.app.proxy import Cluster, Command

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

LOG_LEVELS = ("debug", "info", "warning", "error")

listen_option = click.option(
    "--listen", type=HOST_PORT, default="127.0.0.1:8080", show_default=True, help="Address to serve on."
)


def log_level_option(default: str) -> Callable[[Decorated], Decorated]:
    return click.option("--log-level", type=click.Choice(LOG_LEVELS), default=default, show_default=True)


_SERVING = (
    listen_option,
    click.option("--path", default="/mcp", show_default=True, help="Path of the endpoint."),
    click.option(
        "--sse-path",
        default="/sse",
        show_default=True,
        help="Path of the endpoint for clients that speak HTTP+SSE.",
    ),
    click.option(
        "--allow-origin",
        type=ORIGIN,
        multiple=True,
        metavar="ORIGIN",
        help="A web page's origin that may use the proxy.",
    ),
    click.option(
        "--allow-host", type=HOST, multiple=True, metavar="HOST", help="A host name clients may ask for."
    ),
    click.option("--max-sessions", type=click.IntRange(1), default=10_000, show_default=True),
    click.option(
        "--session-idle",
        "session_idle_s",
        type=Seconds(1),
        default=1800,
        show_default=True,
        metavar="SECONDS",
    ),
    click.option(
        "--call-deadline",
        "call_deadline_s",
        type=Seconds(1),
        default=300,
        show_default=True,
        metavar="SECONDS",
        help="How long a server may be silent during a call.",
    ),
    click.option(
        "--max-body",
        "max_body_bytes",
        type=click.IntRange(1),
        default=4 * 1024 * 1024,
        show_default=True,
        metavar="BYTES",
        help="The largest request a client may send.",
    ),
    click.option(
        "--upgrade-after",
        "upgrade_after_s",
        type=Seconds(0),
        metavar="SECONDS",
        help="Answer a longer call as a stream, which a 2025-11-25 client can resume.",
    ),
    log_level_option("info"),
)


class Serving(TypedDict):
    """What the options come to."""

    listen: tuple[str, int]
    path: str
    sse_path: str
    allow_origin: tuple[str, ...]
    allow_host: tuple[str, ...]
    max_sessions: int
    session_idle_s: float
    call_deadline_s: float
    max_body_bytes: int
    upgrade_after_s: float | None
    log_level: str


def serving_options(command: Decorated) -> Decorated:
    for option in reversed(_SERVING):
        command = option(command)
    return command


def serve(
    upstreams: Mapping[str, str | Command],
    *,
    shared: bool = False,
    store: str = "memory:",
    strict: bool = False,
    cluster: Cluster | None = None,
    **options: Unpack[Serving],
) -> None:
    """Serves until told to stop."""
    from shadowcat.app.process import run, set_up_logging
    from shadowcat.app.reverse import ReverseSettings, serve_reverse

    path, sse_path = options["path"], options["sse_path"]
    _check_paths(path, sse_path)
    listen = options["listen"]
    settings = ReverseSettings(
        upstreams=upstreams,
        shared=shared,
        store=store,
        strict=strict,
        cluster=cluster,
        host=listen[0],
        port=listen[1],
        path=path,
        sse_path=sse_path,
        allowed_origins=frozenset(options["allow_origin"]),
        allowed_hosts=frozenset(options["allow_host"]),
        max_sessions=options["max_sessions"],
        session_idle_s=options["session_idle_s"],
        call_deadline_s=options["call_deadline_s"],
        max_body_bytes=options["max_body_bytes"],
        upgrade_after_s=options["upgrade_after_s"],
    )
    set_up_logging(options["log_level"])
    try:
        run(serve_reverse(settings, click.echo))
    except StoreUnusable as error:
        raise CannotStart(f"the store cannot be used: {error}") from error
    except OSError as error:
        raise cannot_listen(listen, error) from error


def _check_paths(path: str, sse_path: str) -> None:
    for option, value in (("--path", path), ("--sse-path", sse_path)):
        if not value.startswith("/"):
            raise click.UsageError(f"{option} begins with a slash")
    if not sse_path.isascii() or set(sse_path) & set(" ?#"):
        raise click.UsageError("--sse-path is a path only, with spaces and other letters written as %XX")
    if path in (sse_path, f"{sse_path.rstrip('/')}/messages"):
        raise click.UsageError(f"--path {path} and --sse-path {sse_path} get in each other's way")


class CannotStart(click.ClickException):
    """What was asked for can never work."""

    exit_code = 2


def by_name(upstreams: tuple[tuple[str, str], ...]) -> dict[str, str]:
    if len(dict(upstreams)) != len(upstreams):
        raise click.UsageError("two upstreams have one name; write --upstream NAME=URL with a name for each")
    return dict(upstreams)


def cannot_listen(listen: tuple[str, int], error: OSError) -> click.ClickException:
    because = os.strerror(error.errno) if error.errno else str(error)
    return click.ClickException(
        f"cannot listen on {listen[0]}:{listen[1]}: {because}; choose another with --listen"
    )
