"""`shadowcat session`: looks into a store, whether the proxy runs or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import click

from shadowcat.cli.listing import Listing
from shadowcat.cli.options import CannotStart
from shadowcat.cli.said import say, until_enough
from shadowcat.errors import StoreUnusable
from shadowcat.wire.text import on_one_line

T = TypeVar("T")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _store(command: Decorated) -> Decorated:
    return click.option(
        "--store",
        metavar="URL",
        envvar="SHADOWCAT_STORE",
        help="The store; by default that of `shadowcat reverse` on 127.0.0.1:8080.",
    )(command)


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each session.")


@click.group(cls=Listing)
def session() -> None:
    """List, show and end the sessions in a store.

    \b
    Example:
      shadowcat session list
    """


@session.command("list")
@_store
@_as_json
def list_(store: str | None, as_json: bool) -> None:
    """List the sessions.

    \b
    Example:
      shadowcat session list --store redis://127.0.0.1:6379
    """
    from shadowcat.app.stored import list_sessions

    def tell(row: dict[str, Any]) -> None:
        with until_enough():
            click.echo(json.dumps(row) if as_json else _in_a_line(row))

    if none := _asked(list_sessions(_url(store), tell)):
        click.echo(none if store else f"{none}; --store names another", err=True)


@session.command()
@_store
@_as_json
@click.argument("id")
def show(id: str, store: str | None, as_json: bool) -> None:
    """Show what the store keeps of a session.

    The first characters of the ID are enough. Messages are not shown.

    \b
    Example:
      shadowcat session show 5f2c81aa
    """
    from shadowcat.app.stored import show_session

    found = _asked(show_session(_url(store), id))
    with until_enough():
        for line in [json.dumps(found)] if as_json else _lines_of(found):
            click.echo(line)


def _lines_of(found: dict[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        if name == "streams":
            yield from map(_in_a_line, value)
        else:
            yield on_one_line(f"{name}: {value}")


@session.command()
@_store
@click.argument("id")
def end(id: str, store: str | None) -> None:
    """End a session.

    A running proxy that has the session ends it within a few seconds.

    \b
    Example:
      shadowcat session end 5f2c81aa
    """
    from shadowcat.app.stored import end_session

    ended, node = _asked(end_session(_url(store), id))
    say(f"ended {ended}")
    if node:
        click.echo(f"a proxy that still has it (node {node}) ends it within a few seconds", err=True)


def _in_a_line(row: dict[str, Any]) -> str:
    """What clients and servers call things is in it: nothing of that may steer a terminal."""
    return on_one_line("  ".join(f"{name}={value}" for name, value in row.items()))


def _url(store: str | None) -> str:
    from shadowcat.app.reverse import default_store
    from shadowcat.wire.hosts import Address

    return store or default_store(Address("127.0.0.1:8080"))


def _asked(work: Coroutine[Any, Any, T]) -> T:
    from shadowcat.app.process import run
    from shadowcat.app.stored import NoSuchSession, OfAnotherVersion

    try:
        return run(work)
    except NoSuchSession as error:
        raise click.ClickException(str(error)) from error
    except OfAnotherVersion as error:
        raise click.ClickException(
            "another version of Shadowcat has written it; this one can list it and end it"
        ) from error
    except StoreUnusable as error:
        raise CannotStart(f"the store cannot be used: {error}") from error
    except OSError as error:
        raise click.ClickException(f"the store cannot be asked: {error}") from error
