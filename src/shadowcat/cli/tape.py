"""`shadowcat tape`: look at what was recorded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from shadowcat.cli.listing import Listing
from shadowcat.cli.options import CannotStart
from shadowcat.cli.said import until_enough
from shadowcat.wire.tape import TapeError
from shadowcat.wire.text import counted

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

ignore_option = click.option(
    "--ignore",
    multiple=True,
    metavar="POINTER",
    help="A JSON pointer into messages, such as /result/content/*/text, to ignore when comparing.",
)
strict_option = click.option(
    "--strict", is_flag=True, help="Also compare _meta and timestamps, which differ from day to day."
)
_tape = click.argument("tape")


@click.group(cls=Listing)
def tape() -> None:
    """Look at the tapes that --record writes.

    TAPE is a file, a directory with a recording, or a recording's path without its -0001.tape.

    \b
    Example:
      shadowcat tape list tapes
    """


@tape.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each tape.")
@click.argument("place", default=".")
def list_(place: str, as_json: bool) -> None:
    """List the tapes in a directory, and how each one ends.

    \b
    Example:
      shadowcat tape list tapes
    """
    from shadowcat.app.tapes import list_tapes

    with usable():
        for row in list_tapes(place):
            told = "  ".join(f"{name}={value}" for name, value in row.items())
            click.echo(json.dumps(row) if as_json else told)


@tape.command()
@_tape
@click.option("--session", default="", help="Only the session whose name begins with this.")
@click.option(
    "--method", default="", help="Only requests with this method, and the messages that belong to them."
)
@click.option("--full", is_flag=True, help="Show messages in full.")
@click.option("-f", "--follow", is_flag=True, help="Keep going while the tape is written.")
def show(tape: str, session: str, method: str, full: bool, follow: bool) -> None:
    """Show a tape, one line for each message.

    If a directory has several recordings, the newest is shown.

    \b
    Examples:
      shadowcat tape show tapes --method tools/call
      shadowcat tape show -f tapes
    """
    from shadowcat.app.tapes import newest_in, show_tape

    with usable():
        place, count = newest_in(tape)
        if count > 1:
            click.echo(f"the newest of {count} recordings in {tape}: {place}", err=True)
        for line in show_tape(place, session=session, method=method, unshortened=full, follow=follow):
            click.echo(line)


@tape.command()
@_tape
def verify(tape: str) -> None:
    """Check that a tape is complete and holds nothing that looks like a secret.

    The exit code is 1 if it is not, 2 if it cannot be read.

    \b
    Example:
      shadowcat tape verify tapes
    """
    from shadowcat.app.tapes import verify_tape

    with usable():
        verdict = verify_tape(tape)
    click.echo(verdict.told)
    for complaint in verdict.complaints:
        click.echo(complaint)
    sys.exit(1 if verdict.complaints else 0)


@tape.command()
@click.argument("first")
@click.argument("second")
@ignore_option
@strict_option
def diff(first: str, second: str, ignore: tuple[str, ...], strict: bool) -> None:
    """Compare what was said on two tapes.

    The exit code is 1 if they differ, 2 if a tape cannot be read.

    \b
    Example:
      shadowcat tape diff before after --ignore /result/content/0/text
    """
    from shadowcat.app.tapes import diff_tapes

    count = 0
    with usable():
        for line in diff_tapes(first, second, ignore=ignore, strict=strict):
            count += 1
            click.echo(line)
    click.echo(counted(count, "difference"))
    sys.exit(1 if count else 0)


@tape.command()
@_tape
@click.option("--format", "form", type=click.Choice(("har",)), default="har", show_default=True)
def export(tape: str, form: str) -> None:
    """Write the calls on a tape, with their answers, as an HTTP archive to stdout.

    \b
    Example:
      shadowcat tape export tapes > calls.har
    """
    from shadowcat.app.tapes import export_har

    with usable():
        for piece in export_har(tape):
            sys.stdout.buffer.write(piece)


@contextmanager
def usable() -> Generator[None]:
    """One line and an exit code of its own for a tape that cannot be used."""
    try:
        with until_enough():
            yield
    except TapeError as error:
        raise CannotStart(str(error)) from error
    except OSError as error:
        raise CannotStart(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
