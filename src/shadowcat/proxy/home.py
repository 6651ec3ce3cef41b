"""What the streams of one session share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from shadowcat.wire.jsonrpc import RequestId

S = TypeVar("S")
Kept = TypeVar("Kept", contravariant=True)


class Keeper(Protocol[Kept]):
    """Who sees to it that a stream gets into a store."""

    @property
    def has_store(self) -> bool: ...

    @property
    def is_strict(self) -> bool: ...

    @property
    def is_lenient(self) -> bool: ...

    def stream_changed(self, stream: Kept, /) -> None: ...

    def hurry(self) -> None: ...


class Home(NamedTuple, Generic[S]):
    """What a stream knows of its session. `S` is the stream, which is not known here."""

    epoch: str
    keeper: Keeper[S]
    now: Callable[[], float]
    primed: bool
    """Whether readers start with a priming event: a client resumes from it if nothing else came."""
    is_current: Callable[[RequestId], bool]
    make_room: Callable[[], object]
    """Lets go of what others hold, before a stream has to."""
