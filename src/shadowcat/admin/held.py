"""Messages held for a person: list them, look at them, release them as they are or edited, drop them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from shadowcat.admin.answers import Problem, answer, problem
from shadowcat.admin.body import BadBody, body_of
from shadowcat.admin.handles import handle_of
from shadowcat.admin.operations import Operation, Parameter, Reply
from shadowcat.admin.views import time_of
from shadowcat.core.exchange import Context
from shadowcat.errors import Fault
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.text import printable

T = TypeVar("T")


class HeldMessage(Protocol):
    @property
    def id(self) -> int: ...

    @property
    def message(self) -> Message: ...

    @property
    def context(self) -> Context: ...

    @property
    def reason(self) -> str: ...

    @property
    def since_wall(self) -> float: ...


class Holding(Protocol):
    """Who holds them."""

    def held(self) -> Sequence[HeldMessage]: ...

    def release(self, id: int, edited: bytes | None = None) -> bool:
        """False where it is not held any more. Raises `Fault` for what is no message that could take its place."""
        ...

    def drop(self, id: int) -> bool:
        """Refuses it, as an interceptor would."""
        ...


class Nobody:
    """Holds none: where that is so, the same can be asked all the same."""

    def held(self) -> Sequence[HeldMessage]:
        return ()

    def release(self, id: int, edited: bytes | None = None) -> bool:
        return False

    def drop(self, id: int) -> bool:
        return False


class HeldView(msgspec.Struct, kw_only=True):
    id: int
    reason: str
    """Why it is held."""
    direction: str
    method: str
    upstream: str
    session: str | None
    bytes: int
    held_since: str


class HeldDetail(HeldView, kw_only=True):
    message: msgspec.Raw
    """The whole of it: this is the one place where the listener shows what passes."""


class HeldList(msgspec.Struct, kw_only=True):
    held: list[HeldView]


class Release(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    message: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    """What is to go on in its place; without it, it goes on as it is."""


class Drop(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing needs to be said."""


class Settled(msgspec.Struct, kw_only=True):
    id: int


_ID = Parameter("id", "From the list.", {"type": "integer", "minimum": 1, "maximum": 10**15}, where="path")
_UNKNOWN = Reply("It is not held, or not any more.", Problem)
_DONE = Reply("It is held no longer.", Settled)
_JSON_REPLIES = {
    411: Reply("A length is needed.", Problem),
    413: Reply("The body is too large.", Problem),
    415: Reply("The body is not said to be JSON.", Problem),
}


class HeldApi:
    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation(
                "GET", "/api/held", "list_held", "The messages that wait for somebody.", self.list,
                {200: Reply("As it is now.", HeldList)},
            ),
            Operation(
                "GET", "/api/held/{id}", "show_held", "One of them, whole.", self.show,
                {200: Reply("As it is now.", HeldDetail), 404: _UNKNOWN}, (_ID,),
            ),
            Operation(
                "POST", "/api/held/{id}/release", "release_held", "Lets it go on, as it is or changed.",
                self.release,
                {200: _DONE, 400: Reply("The body is no JSON-RPC message in JSON.", Problem), 404: _UNKNOWN,
                 **_JSON_REPLIES},
                (_ID,), Release,
            ),
            Operation(
                "POST", "/api/held/{id}/drop", "drop_held", "Refuses it.", self.drop,
                {200: _DONE, 400: Reply("The body is no empty object.", Problem), 404: _UNKNOWN, **_JSON_REPLIES},
                (_ID,), Drop,
            ),
        )  # fmt: skip

    async def list(self, request: Request) -> Response:
        return answer(HeldList(held=[HeldView(**_of(each)) for each in self._holding.held()]))

    async def show(self, request: Request) -> Response:
        found = self._found(request)
        if found is None:
            return _unknown()
        return answer(HeldDetail(**_of(found), message=msgspec.Raw(found.message.raw)))

    async def release(self, request: Request) -> Response:
        found = self._found(request)
        if found is None:
            return _unknown()
        edited = bytes(_decoded(await body_of(request), Release).message)
        try:
            is_done = self._holding.release(found.id, edited or None)
        except Fault as fault:
            raise BadBody(400, "bad_message", f"That cannot take its place: {fault.message}") from fault
        return answer(Settled(id=found.id)) if is_done else _unknown()

    async def drop(self, request: Request) -> Response:
        found = self._found(request)
        if found is None:
            return _unknown()
        _decoded(await body_of(request), Drop)
        return answer(Settled(id=found.id)) if self._holding.drop(found.id) else _unknown()

    def _found(self, request: Request) -> HeldMessage | None:
        id = request.path_params["id"]
        return next((each for each in self._holding.held() if str(each.id) == id), None)


def _of(held: HeldMessage) -> dict[str, Any]:
    context = held.context
    return {
        "id": held.id,
        "reason": printable(held.reason.encode(errors="backslashreplace"), 64),
        "direction": context.direction.value,
        "method": printable(held.message.method.encode(errors="backslashreplace"), 64),
        "upstream": context.upstream,
        "session": None if context.session_id is None else handle_of(context.session_id),
        "bytes": len(held.message.raw),
        "held_since": time_of(held.since_wall),
    }


def _decoded(body: bytes, type: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(400, "bad_body", f"The body is not what it should be: {error}") from error


def _unknown() -> Response:
    return problem(404, "not_held", "That is not held, or not any more")
