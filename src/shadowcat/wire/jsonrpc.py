"""JSON-RPC messages over the bytes they came in.

`parse` decides what a message is (kind, id, method) and that it is unambiguous; `params`, `result` and `error`
stay the bytes they were until somebody asks. A message that is changed is built anew from its members, so what
nobody touched stays identical to the byte.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from shadowcat.errors import Fault, FaultKind, without_frames
from shadowcat.wire import json_strict
from shadowcat.wire.json_strict import JsonError

RequestId = int | str

MAX_ID_CHARS = 256
BoundedId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(max_length=MAX_ID_CHARS)]


class Kind(Enum):
    REQUEST = "request"
    NOTIFICATION = "notification"
    RESULT = "result"
    ERROR = "error"


REQUEST, NOTIFICATION, RESULT, ERROR = Kind
"""Under names of their own: before Python 3.12 a member that is looked up on its enumeration costs as much as a call,
and on the way of each message there were twenty."""


class _Envelope(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    jsonrpc: Literal["2.0"]
    id: BoundedId | UnsetType | None = UNSET
    method: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _RawEnvelope(msgspec.Struct, gc=False):
    """The same members with their exact text: to tell white space and escaped values from a second key."""

    jsonrpc: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _JustId(msgspec.Struct, gc=False):
    id: BoundedId | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_raw_envelope = msgspec.json.Decoder(_RawEnvelope).decode
_decode_id = msgspec.json.Decoder(_JustId).decode
_encode = msgspec.json.encode


class Message(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One JSON-RPC message. Immutable: the `with_…` methods return another one."""

    kind: Kind
    id: RequestId | None
    """The id with its JSON type: 7 is not "7". None for a notification, or an error that names no request."""
    method: str
    """Empty for results and errors."""
    raw: bytes
    raw_params: bytes = b""
    """The bytes of `params`, or b"" where there is none; likewise the next two."""
    raw_result: bytes = b""
    raw_error: bytes = b""

    def __repr__(self) -> str:
        return f"<{self.kind.value} {self.method!r} id={self.id!r} {len(self.raw)} bytes>"

    @property
    def is_request(self) -> bool:
        return self.kind is REQUEST

    @property
    def is_notification(self) -> bool:
        return self.kind is NOTIFICATION

    @property
    def is_response(self) -> bool:
        return self.kind is RESULT or self.kind is ERROR

    def params(self) -> dict[str, Any]:
        """`params`, decoded strictly: a duplicate key anywhere inside is a fault, not a guess."""
        return _decoded(self.raw_params)

    def result(self) -> Any:
        return _decoded(self.raw_result)

    def error(self) -> dict[str, Any]:
        return _decoded(self.raw_error)

    def param_members(self) -> dict[str, Raw]:
        """The members of `params` with their values untouched; duplicate keys are a fault."""
        return members(self.raw_params) if self.raw_params else {}

    def with_id(self, id: RequestId | None) -> Message:
        kind = self.kind
        # The usual ones in one step; what `_build` makes of them is the same.
        if kind is RESULT:
            result = self.raw_result
            raw = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (_encode(id), result)
            return Message(RESULT, id, "", raw, b"", result)
        method, params = self.method, self.raw_params
        if kind is REQUEST and params:
            raw = b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (
                _encode(id),
                _encode(method),
                params,
            )
            return Message(REQUEST, id, method, raw, params)
        return _build(kind, id, method, params, self.raw_result, self.raw_error)

    def with_params(self, params: dict[str, Any] | Raw) -> Message:
        raw = bytes(params) if isinstance(params, Raw) else _encode(params)
        return _build(self.kind, self.id, self.method, raw)

    def line(self) -> bytes:
        """One line for stdio, newline included."""
        return line_of(self.raw)


def line_of(raw: bytes) -> bytes:
    """A message's bytes as `Message.line`: a pretty-printed body must not break the framing."""
    if b"\n" in raw or b"\r" in raw:
        raw = json_strict.minify(raw)
    return raw + b"\n"


def request(id: RequestId, method: str, params: dict[str, Any] | None = None) -> Message:
    return _build(REQUEST, id, method, _encode(params) if params is not None else b"")


def notification(method: str, params: dict[str, Any] | None = None) -> Message:
    return _build(NOTIFICATION, None, method, _encode(params) if params is not None else b"")


def result(id: RequestId, value: Any) -> Message:
    return _build(RESULT, id, "", result=bytes(value) if isinstance(value, Raw) else _encode(value))


def error(id: RequestId | None, value: dict[str, Any] | Raw) -> Message:
    return _build(ERROR, id, "", error=bytes(value) if isinstance(value, Raw) else _encode(value))


def _build(
    kind: Kind,
    id: RequestId | None,
    method: str,
    params: bytes = b"",
    result: bytes = b"",
    error: bytes = b"",
) -> Message:
    parts = [b'{"jsonrpc":"2.0"']
    if kind is not NOTIFICATION:
        parts.append(b',"id":' + _encode(id))
    if method:
        parts.append(b',"method":' + _encode(method))
    if params:
        parts.append(b',"params":' + params)
    if kind is RESULT:
        parts.append(b',"result":' + result)
    elif kind is ERROR:
        parts.append(b',"error":' + error)
    parts.append(b"}")
    return Message(kind, id, method, b"".join(parts), params, result, error)


def answer_to(request_id: RequestId | None, message: Message) -> Message | None:
    """What a message is where only one request can be answered: its answer, or None for what is none.

    An error that names no request is one: servers that could not read an id write null, or nothing.
    """
    kind, id = message.kind, message.id
    if kind is not RESULT and kind is not ERROR:
        return None
    if id is None:
        return message.with_id(request_id)
    return message if id == request_id and id.__class__ is request_id.__class__ else None


def parse(raw: bytes) -> Message:
    """One message. Raises `Fault` (PARSE or INVALID_REQUEST); `readable_id` then says whom to answer."""
    try:
        envelope = _decode_envelope(raw)
        json_strict.check(raw)
    except msgspec.ValidationError as error:
        # Validation stops at the first member it does not like; what follows may still not be JSON.
        raise _flaw_in(raw) or _invalid(_in_plain_words(str(error))) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, JsonError) as error:
        raise _unreadable(error) from error
    return _classified(envelope, raw)


def parse_body(raw: bytes, *, max_batch: int = 100) -> Message | list[Message | Fault]:
    """One message, or a batch whose unreadable elements stand as the faults they are."""
    if raw[:1] != b"[" and raw.lstrip(b" \t\r\n")[:1] != b"[":
        return parse(raw)
    try:
        batch = _batch_decoder(max_batch)(raw)
        json_strict.check(raw)
    except msgspec.ValidationError as error:
        raise _flaw_in(raw) or _invalid(f"more than {max_batch} messages in a batch") from error
    except (msgspec.DecodeError, RecursionError, JsonError) as error:
        raise _unreadable(error) from error
    elements = [bytes(element) for element in msgspec.structs.astuple(batch) if element is not UNSET]
    if not elements:
        raise _invalid("an empty batch")
    return [_parse_element(element) for element in elements]


@functools.cache
def _batch_decoder(max_batch: int) -> Callable[[bytes], msgspec.Struct]:
    """Reads an array into a struct, which stops at the first element too many: a list would hold millions first."""
    fields = [(f"_{index}", Raw | UnsetType, UNSET) for index in range(max_batch)]
    batch = msgspec.defstruct("_Batch", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(batch).decode


def _parse_element(raw: bytes) -> Message | Fault:
    try:
        return parse(raw)
    except Fault as fault:
        # In the list that it becomes part of, which is in the frames that it went through.
        return without_frames(fault)


def readable_id(raw: bytes) -> RequestId | None:
    """The id of a message that was refused, where it can be told for sure: not when it has two."""
    try:
        found = _decode_id(raw).id
        if found is None:
            return None
        ids = [value for key, value in json_strict.pairs(raw) if key == "id"]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, JsonError):
        return None
    return found if len(ids) == 1 else None


def _flaw_in(raw: bytes) -> Fault | None:
    """Why it is not JSON, if it is not."""
    try:
        msgspec.json.decode(raw, type=Raw)
        json_strict.check(raw)
    except (msgspec.MsgspecError, RecursionError, JsonError) as error:
        return _unreadable(error)
    return None


def _unreadable(error: Exception) -> Fault:
    if isinstance(error, RecursionError):
        # msgspec has seen a depth of hundreds.
        error = json_strict.too_deep()
    return Fault(FaultKind.PARSE, f"Parse error: {error}" if isinstance(error, JsonError) else None)


def _classified(envelope: _Envelope, raw: bytes) -> Message:
    """What it is. A text as long as its members need has room for nothing else; a longer one is looked through."""
    id, method, params = envelope.id, envelope.method, envelope.params
    if method is UNSET:
        return _response(envelope, raw)
    if envelope.result is not UNSET or envelope.error is not UNSET:
        raise _invalid("a method beside a result or an error")
    length = _LENGTH_OF_METHOD + len(method)
    raw_params = b""
    if params is not UNSET:
        raw_params = bytes(params)
        if raw_params[0] != _BRACE:
            raise _invalid("params must be an object")
        length += _LENGTH_OF_PARAMS + len(raw_params)
    if id is UNSET:
        message = Message(NOTIFICATION, None, method, raw, raw_params)
    elif id is None:
        raise _invalid("id must be a string or an integer")
    else:
        length += _LENGTH_OF_STR_ID + len(id) if type(id) is str else _LENGTH_OF_ID + len(str(id))
        message = Message(REQUEST, id, method, raw, raw_params)
    if len(raw) != length:
        _refuse_second_members(raw)
    return message


def _response(envelope: _Envelope, raw: bytes) -> Message:
    id, result = envelope.id, envelope.result
    if result is UNSET or envelope.error is not UNSET or envelope.params is not UNSET:
        return _error(envelope, raw)
    if id is UNSET or id is None:
        raise _invalid("a result without an id")
    raw_result = bytes(result)
    length = _LENGTH_OF_RESULT + len(raw_result)
    length += _LENGTH_OF_STR_ID + len(id) if type(id) is str else _LENGTH_OF_ID + len(str(id))
    if len(raw) != length:
        _refuse_second_members(raw)
    return Message(RESULT, id, "", raw, b"", raw_result)


def _error(envelope: _Envelope, raw: bytes) -> Message:
    """An error response, or what is nothing at all."""
    id, error = envelope.id, envelope.error
    if error is UNSET or envelope.result is not UNSET or envelope.params is not UNSET:
        raise _invalid("neither a request nor a notification nor a response")
    raw_error = bytes(error)
    if raw_error[0] != _BRACE:
        raise _invalid("error must be an object")
    # Too rare for its length to be worth measuring first.
    _refuse_second_members(raw)
    return Message(ERROR, None if id is UNSET else id, "", raw, raw_error=raw_error)


# What the shortest text that has these members takes beside their values, the version with the first two.
_LENGTH_OF_METHOD = len('{"jsonrpc":"2.0","method":""}')
_LENGTH_OF_RESULT = len('{"jsonrpc":"2.0","result":}')
_LENGTH_OF_PARAMS = len(',"params":')
_LENGTH_OF_ID = len(',"id":')
_LENGTH_OF_STR_ID = len(',"id":""')
_BRACE = ord("{")


_UNKNOWN = "Object contains unknown field `"
_RULES = {
    "`$.jsonrpc`": 'jsonrpc must be "2.0"',
    "`$.id`": f"id must be a string of at most {MAX_ID_CHARS} characters, or an integer of at most 64 bits",
    "`$.method`": "method must be a string that is not empty",
}


def _in_plain_words(why: str) -> str:
    """What msgspec says of an envelope, for who may never have heard of it."""
    if why.startswith(_UNKNOWN):
        name = why.removeprefix(_UNKNOWN)[:-1]
        return f'"{name[:64]}" is no member of a JSON-RPC message'
    if why.startswith("Object missing"):
        return 'this is no JSON-RPC message: it has no "jsonrpc"'
    rule = _RULES.get(why.rpartition(" - at ")[2])
    return rule or "this is no JSON-RPC message: one is an object"


def _invalid(why: str) -> Fault:
    return Fault(FaultKind.INVALID_REQUEST, f"Invalid request: {why}")


def _refuse_second_members(raw: bytes) -> None:
    """Refuses a second key of the same name, also when one is spelled with escapes.

    What comes here holds white space, escapes in a value, or a second key; minified and measured with the exact text of
    each value, only a second or an escaped key is left to make it longer.
    """
    compact = json_strict.minify(raw)
    found = _decode_raw_envelope(compact)
    needed = 1
    for key, value in (
        ("jsonrpc", found.jsonrpc),
        ("id", found.id),
        ("method", found.method),
        ("params", found.params),
        ("result", found.result),
        ("error", found.error),
    ):
        if value is not UNSET:
            needed += len(key) + 4 + len(value)
    if len(compact) != needed:
        raise _invalid("a member stands twice, or its name is spelled with escapes")


def members(raw: bytes) -> dict[str, Raw]:
    """The members of an object inside a message, values untouched. Raises `Fault` for duplicate keys."""
    try:
        return json_strict.members(raw)
    except JsonError as error:
        raise _invalid(str(error)) from error


def is_readable(message: Message) -> bool:
    """Whether all that it says can be read in one way only."""
    try:
        json_strict.loads(message.raw)
    except JsonError:
        return False
    return True


def _decoded(raw: bytes) -> Any:
    if not raw:
        return {}
    try:
        return json_strict.loads(raw)
    except JsonError as error:
        raise Fault(FaultKind.INVALID_REQUEST, f"Invalid request: {error}") from error
