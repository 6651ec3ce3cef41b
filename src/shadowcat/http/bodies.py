"""How much of the bodies of requests is held at a time, of all connections together."""

from __future__ import annotations

from shadowcat.http.check import Refusal

_SMALL_BYTES = 64 * 1024
_SMALL_SHARE = 4
"""This part is kept for small bodies: a few clients that send large ones slowly must not shut out everybody else."""


class Bodies:
    """Counted from when they arrive until their request is answered."""

    __slots__ = ("_for_large", "_limit", "held")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._for_large = limit - limit // _SMALL_SHARE
        self.held = 0

    def try_take(self, size: int, of_body: int) -> bool:
        """False, and nothing is taken, where there is no room. `of_body`: how large the body is with it."""
        held = self.held + size
        if held > (self._limit if of_body <= _SMALL_BYTES else self._for_large):
            return False
        self.held = held
        return True

    def take(self, size: int, of_body: int) -> None:
        """Raises `Refusal`."""
        if not self.try_take(size, of_body):
            raise Refusal(503, "too much is being sent by all clients together")

    def give_back(self, size: int) -> None:
        self.held -= size
