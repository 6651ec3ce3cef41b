"""What the admin listener can be told."""

from __future__ import annotations

from typing import Annotated, Self

from msgspec import Meta, Struct, field

from shadowcat.secret import Secret
from shadowcat.wire.hosts import Address, is_loopback

MIN_TOKEN_CHARS = 16
_OFF = "off"


class AdminAddress(Address):
    """`HOST:PORT`, or `off`."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        return str.__new__(cls, text) if text == _OFF else super().__new__(cls, text)

    @property
    def is_on(self) -> bool:
        return self != _OFF


class AdminOptions(Struct, frozen=True, kw_only=True):
    listen: Annotated[
        AdminAddress,
        Meta(
            description="Where the proxy can be looked after; port 0 takes a free one, off is nowhere. "
            "`forward http` takes 127.0.0.1:0 by itself."
        ),
    ] = field(default_factory=lambda: AdminAddress("127.0.0.1:0"))
    token: Annotated[
        Secret | None,
        Meta(description="Who wants to see or do anything has to give it; 16 characters or more."),
    ] = None
    allow_hosts: Annotated[
        frozenset[str], Meta(description="Host names it may be asked for. None on an open address: any.")
    ] = frozenset()
    viewers: Annotated[int, Meta(ge=1, description="Who may watch the feed of events at a time.")] = 32
    viewer_events: Annotated[
        int, Meta(ge=1, description="Events that wait for one of them; the oldest go.")
    ] = 256
    heartbeat_s: Annotated[
        float, Meta(gt=0, description="Silence on a feed that is filled with a comment.")
    ] = 15.0
    stall_s: Annotated[
        float, Meta(gt=0, description="A client that accepts no byte for this long is cut off.")
    ] = 10.0

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token.reveal()) < MIN_TOKEN_CHARS:
            raise ValueError(f"token needs {MIN_TOKEN_CHARS} characters or more")
        if self.token is None and self.listen.is_on and not is_loopback(self.listen.host):
            raise ValueError(
                f"others than this machine reach {self.listen}, so it needs a token of {MIN_TOKEN_CHARS} characters "
                "or more: set SHADOWCAT_ADMIN_TOKEN, or name a file with it in admin.token_file"
            )
