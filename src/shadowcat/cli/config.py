"""`shadowcat config`: check and show settings before anything is started with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from shadowcat.cli.listing import Listing
from shadowcat.cli.options import config_option, settings_from

PROFILES = click.option(
    "--for",
    "profile",
    type=click.Choice(("reverse", "forward http")),
    default="reverse",
    show_default=True,
    help="The command whose defaults to use.",
)


@click.group(cls=Listing)
def config() -> None:
    """Check and show the settings of `reverse` and `forward http`: file, environment and defaults.

    \b
    Example:
      shadowcat config check shadowcat.toml
    """


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@PROFILES
def check(file: Path, profile: str) -> None:
    """Check a file and the environment.

    Prints a line for each setting that is wrong or has no effect.

    \b
    Example:
      shadowcat config check shadowcat.toml
    """
    from shadowcat.app.loading import load_settings

    loaded = settings_from(lambda: load_settings(profile, file=file, environment=os.environ))
    for warning in loaded.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if profile == "reverse" and not loaded.settings.upstreams:
        click.echo(
            "Warning: it names no server: `reverse` needs upstreams there, or --upstream URL", err=True
        )
    click.echo(f"{file}: good")


@config.command()
@config_option
@PROFILES
def show(config: Path | None, profile: str) -> None:
    """Show all settings, and where each comes from.

    The output is itself a settings file, but without the secrets.

    \b
    Examples:
      shadowcat config show
      shadowcat config show --config shadowcat.toml
    """
    from shadowcat.app.loading import load_settings
    from shadowcat.config.show import shown

    click.echo(
        shown(settings_from(lambda: load_settings(profile, file=config, environment=os.environ))), nl=False
    )


@config.command()
def schema() -> None:
    """Print the JSON Schema of the settings file, for editors that check what you type.

    \b
    Example:
      shadowcat config schema > shadowcat.schema.json
    """
    from shadowcat.app.settings import Settings
    from shadowcat.config.schema import schema_of

    click.echo(json.dumps(schema_of(Settings), indent=2))
