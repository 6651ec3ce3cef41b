"""Several proxies with one store."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from shadowcat.secret import Secret

_MIN_KEY_CHARS = 16


class Cluster(Struct, frozen=True):
    """A request may reach any of the nodes, and is passed on to who has the session.

    A node that stops renewing its lease loses its sessions to whichever node is asked for them.
    """

    advertise: Annotated[
        str,
        Meta(
            title="a node's URL",
            pattern=r"^https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?/?$",
            examples=["http://10.0.0.5:8080"],
            description="The URL at which other nodes on the same Redis reach this one.",
        ),
    ]
    key: Annotated[Secret, Meta(description="The secret that all nodes share, of 16 characters or more.")]
    lease_s: Annotated[
        float, Meta(gt=0, description="How long a node may be silent before others take over its sessions.")
    ] = 5.0

    def __post_init__(self) -> None:
        if len(self.key.reveal()) < _MIN_KEY_CHARS:
            raise ValueError(f"key needs {_MIN_KEY_CHARS} characters or more, the same on each node")

    @property
    def node(self) -> str:
        return self.advertise.rstrip("/")
