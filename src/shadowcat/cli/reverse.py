"""`shadowcat reverse`: in front of servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shadowcat.cli.options import SERVING, STORING, UPSTREAM, config_option, serve, with_flags

if TYPE_CHECKING:
    from shadowcat.config.load import Flag


@click.command(cls=with_flags(UPSTREAM, *STORING, *SERVING, profile="reverse"))
@config_option
def reverse(config: Path | None, flags: list[Flag]) -> None:
    """Serve MCP clients in front of one or more HTTP servers.

    \b
    Examples:
      shadowcat reverse --listen 127.0.0.1:8080 --upstream http://127.0.0.1:3000/mcp
      shadowcat reverse --upstream a=http://127.0.0.1:3001/mcp --upstream b=http://127.0.0.1:3002/mcp
      shadowcat reverse --config shadowcat.toml
    """
    serve("reverse", config, flags)
