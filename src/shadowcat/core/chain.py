"""Which interceptors see which message: worked out once, so that asking is a table lookup."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from shadowcat.core.exchange import TO_SERVER, Context, Direction
from shadowcat.core.interceptor import Interceptor, Judgement, Phase
from shadowcat.wire.jsonrpc import NOTIFICATION, REQUEST, Kind, Message


class Step(NamedTuple):
    place: int
    """Of the interceptor, in their order."""
    interceptor: Interceptor
    phase: Phase
    hook: Callable[[Message, Context], Judgement]


Steps = tuple[Step, ...]


_Table = tuple[Steps, dict[str, Steps]]
"""For one phase: who wants every method, and what is different for those that some want by name."""


class Chain:
    """The interceptors, in order. It never changes: a message under way keeps the one that it began with."""

    __slots__ = ("_to_client", "_to_server", "interceptors")

    def __init__(self, interceptors: Sequence[Interceptor] = ()) -> None:
        self.interceptors = tuple(interceptors)
        self._to_server = tuple(map(self._table, (Phase.REQUEST, Phase.NOTIFICATION, Phase.SERVER_RESPONSE)))
        self._to_client = tuple(
            map(self._table, (Phase.SERVER_REQUEST, Phase.SERVER_NOTIFICATION, Phase.RESPONSE))
        )

    def steps(self, kind: Kind, method: str, direction: Direction) -> Steps:
        """`method` is the message's or, for a response, that of the request it answers."""
        tables = self._to_server if direction is TO_SERVER else self._to_client
        table = tables[0 if kind is REQUEST else 1 if kind is NOTIFICATION else 2]
        return table[1].get(method, table[0])

    def _table(self, phase: Phase) -> _Table:
        steps: list[tuple[Step, Collection[str] | None]] = []
        for place, interceptor in enumerate(self.interceptors):
            if isinstance(interceptor, type):
                name = interceptor.__name__
                raise TypeError(f"{name} is a class, and no interceptor: hand over {name}()")
            wanted = interceptor.wanted(phase)
            if isinstance(wanted, str):
                raise TypeError(f"the methods that {interceptor.name} wants are a list, and not {wanted!r}")
            if wanted is None or wanted:
                hook = getattr(interceptor, f"on_{phase.value}")
                steps.append((Step(place, interceptor, phase, hook), wanted))
        named = {method for _, wanted in steps for method in wanted or ()}
        by_method = {
            method: tuple(step for step, wanted in steps if wanted is None or method in wanted)
            for method in named
        }
        # Nobody knows what it answers, so it may be what somebody wants.
        by_method[""] = tuple(step for step, _ in steps)
        return tuple(step for step, wanted in steps if wanted is None), by_method
