"""`shadowcat reverse`: in front of servers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Unpack

import click

from shadowcat.cli.options import Serving, by_name, serve, serving_options
from shadowcat.cli.params import NODE, UPSTREAM

if TYPE_CHECKING:
    from shadowcat.app.proxy import Cluster

KEY_VARIABLE = "SHADOWCAT_CLUSTER_KEY"
MIN_KEY_CHARS = 16


@click.command()
@click.option(
    "--upstream",
    "upstreams",
    type=UPSTREAM,
    multiple=True,
    required=True,
    metavar="[NAME=]URL",
    help="A server's MCP endpoint; several share the new sessions.",
)
@click.option(
    "--store",
    metavar="URL",
    envvar="SHADOWCAT_STORE",
    help="Where sessions outlive the proxy: memory:, sqlite:///PATH, redis://HOST. "
    "Without it, a file in the state directory that belongs to the address of --listen.",
)
@click.option(
    "--durability",
    type=click.Choice(("async", "strict")),
    default="async",
    show_default=True,
    help="Whether an event may leave some milliseconds before the store has it.",
)
@click.option(
    "--advertise",
    type=NODE,
    metavar="URL",
    help=f"Where other nodes with the same Redis reach this one; they share the key in {KEY_VARIABLE}.",
)
@serving_options
def reverse(
    upstreams: tuple[tuple[str, str], ...],
    store: str | None,
    durability: str,
    advertise: str | None,
    **options: Unpack[Serving],
) -> None:
    """Serve MCP clients in front of one or more servers that speak HTTP.

    \b
    Examples:
      shadowcat reverse --listen 127.0.0.1:8080 --upstream http://127.0.0.1:3000/mcp
      shadowcat reverse --upstream a=http://127.0.0.1:3001/mcp --upstream b=http://127.0.0.1:3002/mcp
    """
    from shadowcat.app.reverse import default_store

    serve(
        by_name(upstreams),
        store=store or default_store(*options["listen"]),
        strict=durability == "strict",
        cluster=_cluster(advertise, store or ""),
        **options,
    )


def _cluster(advertise: str | None, store: str) -> Cluster | None:
    if advertise is None:
        return None
    from shadowcat.app.proxy import Cluster

    if not store.startswith("redis"):
        raise click.UsageError("--advertise is for nodes that share a Redis: give --store redis://HOST too")
    key = os.environ.get(KEY_VARIABLE, "")
    if len(key) < MIN_KEY_CHARS:
        raise click.UsageError(
            f"--advertise needs a secret of {MIN_KEY_CHARS} characters or more in {KEY_VARIABLE}, the same on each node"
        )
    return Cluster(advertise, key.encode())
