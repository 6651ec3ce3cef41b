"""Which requests of a client are unanswered on a connection that passes messages as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from shadowcat.errors import Fault, FaultKind

if TYPE_CHECKING:
    from shadowcat.wire.jsonrpc import RequestId

MAX_WAITING = 10_000

T = TypeVar("T")


class Waiting(Generic[T]):
    """Requests by id, with its JSON type, and something kept for each."""

    def __init__(self) -> None:
        self._requests: dict[tuple[type, RequestId], T] = {}
        self.has_been_asked = False
        self.has_answered = False

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, id: RequestId) -> bool:
        return (type(id), id) in self._requests

    def ask(self, id: RequestId, kept: T) -> None:
        """Raises `Fault` where too many wait already; an id that is used twice at a time counts once."""
        self.has_been_asked = True
        if len(self._requests) >= MAX_WAITING:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_requests_in_flight")
        self._requests[type(id), id] = kept

    def answered(self, id: RequestId) -> T | None:
        self.has_answered = True
        return self._requests.pop((type(id), id), None)

    def forget(self, id: RequestId) -> T | None:
        """It was cancelled, or is answered from here."""
        return self._requests.pop((type(id), id), None)

    def kept(self) -> Iterable[T]:
        return self._requests.values()

    def only(self) -> RequestId | None:
        """The one that waits, if it is one."""
        return next(iter(self._requests))[1] if len(self._requests) == 1 else None

    def close(self) -> Sequence[tuple[RequestId, T]]:
        """Those that will not be answered any more."""
        left = [(id, kept) for (_, id), kept in self._requests.items()]
        self._requests.clear()
        return left
