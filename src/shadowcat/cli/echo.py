"""`shadowcat echo`: the engine alone."""

from __future__ import annotations

import click

from shadowcat.cli.options import cannot_listen, listen_option


@click.command()
@listen_option
def echo(listen: tuple[str, int]) -> None:
    """Answer every HTTP request with its own body: the engine alone, to try it or to measure it.

    \b
    Example:
      shadowcat echo --listen 127.0.0.1:8080
    """
    from shadowcat.app.echo import echo as serve
    from shadowcat.app.process import run

    try:
        run(serve(*listen, click.echo))
    except OSError as error:
        raise cannot_listen(listen, error) from error
