"""`shadowcat reverse`: in front of servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shadowcat.cli.options import SERVING, STORING, UPSTREAM, config_option, serve, with_flags

if TYPE_CHECKING:
    from shadowcat.config.load import Flag


@click.command(
    cls=with_flags(UPSTREAM, *STORING, *SERVING, profile="reverse"),
    context_settings={"allow_extra_args": True},
)
@config_option
@click.pass_context
def reverse(ctx: click.Context, config: Path | None, flags: list[Flag]) -> None:
    """Serve MCP clients in front of one or more HTTP servers.

    \b
    Examples:
      shadowcat reverse --listen 127.0.0.1:8080 --upstream http://127.0.0.1:3000/mcp
      shadowcat reverse --upstream a=http://127.0.0.1:3001/mcp --upstream b=http://127.0.0.1:3002/mcp
      shadowcat reverse --config shadowcat.toml
    """
    if ctx.args:
        given = ctx.args[0]
        meant = f"--upstream {given}" if "://" in given else f"shadowcat forward http -- {given} …"
        raise click.UsageError(f"{given!r} is no option; did you mean {meant}?")
    serve("reverse", config, flags)
