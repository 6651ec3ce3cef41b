"""A glance at a line that passes unchanged: which kind of message it holds, under which id, and nothing else.

`jsonrpc.parse` judges a message; this tells who waits for what. The line stays what it was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

RequestId = int | str  # jsonrpc's, which takes longer to load than this


class _Params(msgspec.Struct, gc=False):
    requestId: Any = None  # noqa: N815 - its name on the wire


class Glance(msgspec.Struct, gc=False):
    jsonrpc: str
    id: RequestId | UnsetType | None = UNSET
    method: str | UnsetType = UNSET

    @property
    def asks(self) -> RequestId | None:
        """The id of a request."""
        return None if self.method is UNSET or self.id is UNSET else self.id

    @property
    def answers(self) -> RequestId | None:
        """The id of a response."""
        return None if self.method is not UNSET or self.id is UNSET else self.id


class _Cancellation(msgspec.Struct, gc=False):
    params: _Params


_decode = msgspec.json.Decoder(Glance).decode
_decode_batch = msgspec.json.Decoder(list[Glance]).decode
_decode_cancellation = msgspec.json.Decoder(_Cancellation).decode

# As most write it: the id before what may be long, behind nothing but the version or the method.
_EARLY_ID = re.compile(
    rb'\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?(?:"method"\s*:\s*"[^"\\]*"\s*,\s*)?'
    rb'"id"\s*:\s*(-?[0-9]{1,18}|"[^"\\]{0,256}")\s*,'
)

_DECISIVE_MEMBER = re.compile(rb'"(method|result|error)"\s*:')


def glance(line: bytes) -> Sequence[Glance]:
    """The message of a line, or those of a batch; nothing for what is no JSON-RPC."""
    try:
        found = _decode_batch(line) if line.lstrip()[:1] == b"[" else (_decode(line),)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        found = _leniently(line)
    return found if all(one.jsonrpc == "2.0" for one in found) else ()


def _leniently(line: bytes) -> Sequence[Glance]:
    """What peers write and read though it is no JSON, such as NaN and half of a surrogate pair, is theirs to judge."""
    import json  # seldom, and not for a start

    try:
        found: Any = json.loads(line)
        return msgspec.convert(found if line.lstrip()[:1] == b"[" else [found], list[Glance])
    except (ValueError, RecursionError):
        return ()


def cancelled_id(line: bytes) -> RequestId | None:
    """The request that a `notifications/cancelled` is about."""
    try:
        id = _decode_cancellation(line).params.requestId
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return id if isinstance(id, int | str) else None


def tells_or_asks(broken: bytes) -> bool:
    """Whether what cannot be read is most likely a notification or a request: its method comes before any outcome."""
    found = _DECISIVE_MEMBER.search(broken)
    return found is not None and found[1] == b"method"


def early_id(broken: bytes) -> RequestId | None:
    """The id of what is no whole message, where it stands at the beginning."""
    found = _EARLY_ID.match(broken)
    return None if found is None else msgspec.json.decode(found[1])
