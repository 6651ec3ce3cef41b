"""The options of the admin listener."""

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
            description="Address of the admin listener; port 0 takes a free port, off starts none. By "
            "default `forward http` uses 127.0.0.1:0."
        ),
    ] = field(default_factory=lambda: AdminAddress("127.0.0.1:0"))
    token: Annotated[
        Secret | None,
        Meta(description="The token that requests must carry, of 16 characters or more."),
    ] = None
    allow_hosts: Annotated[
        frozenset[str],
        Meta(
            description="Host names that it answers to. If none are given, an address other than loopback "
            "answers to any."
        ),
    ] = frozenset()
    viewers: Annotated[
        int, Meta(ge=1, description="How many clients may watch the event feed at a time.")
    ] = 32
    viewer_events: Annotated[
        int,
        Meta(
            ge=1,
            description="How many events may wait for a slow viewer; beyond that the oldest are dropped.",
        ),
    ] = 256
    heartbeat_s: Annotated[
        float, Meta(gt=0, description="How long the feed may be silent before a comment is sent.")
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
