"""The command line. Each command imports what it runs when it runs: a stdio proxy starts with every IDE window."""

from __future__ import annotations

import click

from shadowcat.cli.params import HOST_PORT


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shadowcat")
def main() -> None:
    """A proxy for the Model Context Protocol."""


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
        raise click.ClickException(f"cannot listen on {listen[0]}:{listen[1]}: {error.strerror}") from error
