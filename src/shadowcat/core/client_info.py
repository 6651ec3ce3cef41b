"""Who a client says it is: in `initialize` or, in the modern era, in each of its requests."""

from __future__ import annotations

import msgspec

from shadowcat.wire.mcp import Meta


class ClientInfo(msgspec.Struct, frozen=True, gc=False):
    name: str = ""
    version: str = ""
    title: str = ""


class _Meta(msgspec.Struct, gc=False):
    client: ClientInfo | None = msgspec.field(name=Meta.CLIENT_INFO, default=None)


class _Introduction(msgspec.Struct, gc=False):
    client: ClientInfo | None = msgspec.field(name="clientInfo", default=None)
    meta: _Meta | None = msgspec.field(name="_meta", default=None)


_decode = msgspec.json.Decoder(_Introduction).decode


def client_of(params: bytes) -> ClientInfo | None:
    """From the parameters of `initialize` or of a modern request; None where it does not say so, or not legibly."""
    try:
        found = _decode(params)
    except msgspec.MsgspecError:
        return None
    return found.client or (found.meta.client if found.meta is not None else None)
