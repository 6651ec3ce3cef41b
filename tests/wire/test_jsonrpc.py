from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message, parse, parse_body, readable_id
from shadowcat.wire.mcp import Meta
from tests.wire import texts


def call(params: str = "{}", id: str = "1", method: str = "tools/call") -> bytes:
    return f'{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}'.encode()


def refusal(raw: bytes) -> FaultKind:
    with pytest.raises(Fault) as caught:
        parse(raw)
    return caught.value.kind


def whole(message: Message) -> tuple[Any, ...]:
    members = message.raw_params, message.raw_result, message.raw_error
    return message.kind, type(message.id), message.id, message.method, members


# What a message is.

REQUEST, NOTIFICATION, RESULT, ERROR = Kind.REQUEST, Kind.NOTIFICATION, Kind.RESULT, Kind.ERROR


@pytest.mark.parametrize(
    ("text", "kind", "id", "method"),
    [
        ('{"jsonrpc":"2.0","id":7,"method":"ping"}', REQUEST, 7, "ping"),
        ('{"jsonrpc":"2.0","id":"7","method":"ping","params":{}}', REQUEST, "7", "ping"),
        ('{"jsonrpc":"2.0","id":0,"method":"ping"}', REQUEST, 0, "ping"),
        ('{"jsonrpc":"2.0","id":"","method":"ping"}', REQUEST, "", "ping"),
        ('{"jsonrpc":"2.0","method":"notifications/x"}', NOTIFICATION, None, "notifications/x"),
        ('{"jsonrpc":"2.0","id":-1,"result":{}}', RESULT, -1, ""),
        ('{"jsonrpc":"2.0","id":1,"result":null}', RESULT, 1, ""),
        ('{"jsonrpc":"2.0","id":1,"result":[1]}', RESULT, 1, ""),
        ('{"jsonrpc":"2.0","id":"e","error":{"code":1,"message":""}}', ERROR, "e", ""),
        ('{"jsonrpc":"2.0","id":null,"error":{}}', ERROR, None, ""),
        ('{"jsonrpc":"2.0","error":{}}', ERROR, None, ""),
        ('{"method":"a","id":1,"jsonrpc":"2.0"}', REQUEST, 1, "a"),
    ],
)
def test_kind_id_and_method(text: str, kind: Kind, id: int | str | None, method: str) -> None:
    message = parse(text.encode())
    assert (message.kind, message.id, message.method) == (kind, id, method)
    assert type(message.id) is type(id)
    assert message.raw == text.encode()
    assert message.is_request is (kind is REQUEST)
    assert message.is_notification is (kind is NOTIFICATION)
    assert message.is_response is (kind in (RESULT, ERROR))


def test_members_are_decoded_on_demand() -> None:
    message = parse(call('{"a": [1]}'))
    assert (message.raw_params, message.raw_result, message.raw_error) == (b'{"a": [1]}', b"", b"")
    assert message.params() == {"a": [1]}
    assert message.param_members().keys() == {"a"}
    assert parse(b'{"jsonrpc":"2.0","id":1,"result":[1.5]}').result() == [1.5]
    assert parse(b'{"jsonrpc":"2.0","error":{"code":-1}}').error() == {"code": -1}


def test_a_message_without_params_has_empty_ones() -> None:
    message = parse(b'{"jsonrpc":"2.0","method":"m"}')
    assert (message.raw_params, message.params(), message.param_members()) == (b"", {}, {})


def test_a_message_tells_what_it_is_without_its_content() -> None:
    assert repr(parse(call('{"secret":"s3"}'))) == "<request 'tools/call' id=1 71 bytes>"


# What is accepted, whatever its spelling.


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"a": [1, "é"]}}), id="dumps"
        ),
        pytest.param(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": {}}, indent=2), id="indented"
        ),
        pytest.param(' \r\n\t{"jsonrpc":"2.0","id":1,"method":"m"}\n', id="space around"),
        pytest.param('{"jsonrpc":"2.0","id":"\\u0031","method":"\\u006d"}', id="escaped values"),
        pytest.param('{"jsonrpc":"\\u0032.0","id":1,"method":"m"}', id="escaped version"),
        pytest.param('{"jsonrpc":"2.0","id":"é","method":"ü","params":{"ö":"ä"}}', id="not ASCII"),
        pytest.param('{"jsonrpc":"2.0","id":-0,"method":"m"}', id="minus zero"),
        pytest.param(
            call('{"id":1,"method":"m","jsonrpc":"2.0","result":1}').decode(), id="own names inside params"
        ),
        pytest.param(call(f'{{"id":"{"x" * 300}"}}').decode(), id="long id inside params"),
        pytest.param(call(f'{{"a":{texts.nested(62)}}}').decode(), id="depth 64"),
        pytest.param(call('{"a":"\x7f\u2028\ufeff\U0010ffff"}').decode(), id="odd characters"),
        pytest.param(call('{"a":"\\ud83d\\ude00"}').decode(), id="a pair of surrogates"),
    ],
)
def test_accepted(text: str) -> None:
    assert parse(text.encode()).raw == text.encode()


def test_slashes_may_be_escaped() -> None:
    message = parse(
        b'{"jsonrpc":"2.0","id":1,"method":"tools\\/call",'
        b'"params":{"_meta":{"io.modelcontextprotocol\\/protocolVersion":"2026-07-28"}}}'
    )
    assert message.method == "tools/call"
    assert message.params() == {"_meta": {Meta.PROTOCOL_VERSION: "2026-07-28"}}
    meta = parse(call('{"io.modelcontextprotocol\\/protocolVersion": "2026-07-28"}')).param_members()
    assert bytes(meta[Meta.PROTOCOL_VERSION]) == b'"2026-07-28"'


# What is refused.

NOT_JSON = {
    "NaN": call('{"a":NaN}'),
    "Infinity": call('{"a":Infinity}'),
    "-Infinity": call('{"a":-Infinity}'),
    "1e400": call('{"a":1e400}'),
    "-1e400": call('{"a":-1e400}'),
    "1e400 as result": b'{"jsonrpc":"2.0","id":1,"result":1e400}',
    "BOM": b"\xef\xbb\xbf" + call(),
    "UTF-16": call().decode().encode("utf-16"),
    "UTF-16 without a mark": call().decode().encode("utf-16-le"),
    "UTF-32": call().decode().encode("utf-32"),
    "bad UTF-8 in a value": call('{"a":"é"}').replace("é".encode(), b"\xe9"),
    "bad UTF-8 in a key": call('{"é":1}').replace("é".encode(), b"\xc3"),
    "bad UTF-8 in the method": call(method="é").replace("é".encode(), b"\xff"),
    "bad UTF-8 in the id": call(id='"é"').replace("é".encode(), b"\xc3"),
    "bad UTF-8 in an unknown member": b'{"jsonrpc":"2.0","id":1,"method":"m","x":"\xff"}',
    "overlong UTF-8": call('{"a":"é"}').replace("é".encode(), b"\xc0\xaf"),
    "encoded surrogates": call('{"a":"é"}').replace("é".encode(), b"\xed\xa0\x80"),
    "beyond Unicode": call('{"a":"é"}').replace("é".encode(), b"\xf4\x90\x80\x80"),
    "lone high surrogate": call('{"a":"\\ud800"}'),
    "lone low surrogate": call('{"a":"\\udc00"}'),
    "surrogates in the wrong order": call('{"a":"\\ude00\\ud83d"}'),
    "lone surrogate in a key": call('{"\\ud800":1}'),
    "lone surrogate in the id": call(id='"\\ud800"'),
    "lone surrogate in the method": call(method="\\ud800"),
    "trailing bytes": call() + b"x",
    "trailing NUL": call() + b"\0",
    "two messages": call() + call(),
    "truncated": call()[:-1],
    "empty": b"",
    "white space": b" \n",
    "depth 65": call(f'{{"a":{texts.nested(63)}}}'),
    "depth 1,000": call(f'{{"a":{texts.nested(1000)}}}'),
    "depth 100,000": call(f'{{"a":{texts.nested(100_000)}}}'),
    "depth 100,000, never closed": call('{"a":' * 100_000),
    "depth 65 in an unknown member": b'{"jsonrpc":"2.0","x":%b}' % texts.nested(65).encode(),
    "an int of 5,000 digits": call(f'{{"a":{"9" * 5000}}}'),
    "an id of 5,000 digits": call(id="9" * 5000),
    "control character": call('{"a":"\x01"}'),
    "tab in a string": call('{"a":"\t"}'),
    "leading zero": call('{"a":01}'),
    "number without a fraction": call('{"a":1.}'),
    "plus sign": call('{"a":+1}'),
    "hex": call('{"a":0x1}'),
    "single quotes": call("{'a':1}"),
    "trailing comma": call('{"a":1,}'),
    "comment": call('{"a":/**/1}'),
    "bad escape": call('{"a":"\\x41"}'),
    "bad \\u": call('{"a":"\\u00g0"}'),
    "no-break space": call('{"a":\u00a01}'),
    "an invalid message that is not JSON further on": b'{"jsonrpc":7,"id":1,"method":NaN}',
}

NOT_A_MESSAGE = {
    "duplicate jsonrpc": b'{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"m"}',
    "duplicate id": b'{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}',
    "duplicate id of another type": b'{"jsonrpc":"2.0","id":1,"id":"1","method":"m"}',
    "duplicate method": b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}',
    "duplicate params": b'{"jsonrpc":"2.0","id":1,"method":"m","params":{},"params":{"a":1}}',
    "duplicate result": b'{"jsonrpc":"2.0","id":1,"result":1,"result":2}',
    "duplicate error": b'{"jsonrpc":"2.0","id":1,"error":{},"error":{}}',
    "duplicate with white space": b'{ "jsonrpc": "2.0", "id": 1, "method": "m", "method": "m" }',
    "duplicate, the first longer": b'{"jsonrpc":"2.0","id":1,"method":"longer","method":"m"}',
    "duplicate, escaped values": b'{"jsonrpc":"2.0","id":1,"method":"\\u006d","method":"m"}',
    "duplicate by escapes": b'{"jsonrpc":"2.0","id":1,"method":"m","meth\\u006fd":"m"}',
    "escapes first": b'{"jsonrpc":"2.0","id":1,"meth\\u006fd":"m","method":"m"}',
    "escaped key": b'{"jsonrpc":"2.0","id":1,"meth\\u006fd":"m"}',
    "escaped key with white space": b'{"jsonrpc": "2.0", "\\u0069d": 1, "method": "m"}',
    # Lengths that would cancel out if a value were measured by what it decodes to.
    "duplicate, not ASCII": '{"jsonrpc":"2.0","id":"éééééé","id":"","method":"m"}'.encode(),
    "duplicate beside a short version": b'{"jsonrpc":"","id":1,"method":"m","id":1}',
    "duplicate beside a number": b'{"jsonrpc":"2.0","id":-0,"id":0,"method":"m"}',
    "case variant": b'{"jsonrpc":"2.0","id":1,"Method":"m"}',
    "case variant beside the name": b'{"jsonrpc":"2.0","id":1,"method":"m","METHOD":"m"}',
    "unknown member": b'{"jsonrpc":"2.0","id":1,"method":"m","extra":1}',
    "empty member name": b'{"jsonrpc":"2.0","id":1,"method":"m","":1}',
    "not ASCII member name": '{"jsonrpc":"2.0","id":1,"method":"m","é":1}'.encode(),
    "id null": call(id="null"),
    "id float": call(id="1.5"),
    "id 1.0": call(id="1.0"),
    "id 1e2": call(id="1e2"),
    "id object": call(id="{}"),
    "id array": call(id="[1]"),
    "id boolean": call(id="true"),
    "id of 257 characters": call(id=f'"{"x" * 257}"'),
    "id 2^63": call(id=str(2**63)),
    "id -2^63-1": call(id=str(-(2**63) - 1)),
    "id 2^64": call(id=str(2**64)),
    "result without an id": b'{"jsonrpc":"2.0","result":1}',
    "result with id null": b'{"jsonrpc":"2.0","id":null,"result":1}',
    "result and error": b'{"jsonrpc":"2.0","id":1,"result":1,"error":{}}',
    "method and result": b'{"jsonrpc":"2.0","id":1,"method":"m","result":1}',
    "method and error": b'{"jsonrpc":"2.0","id":1,"method":"m","error":{}}',
    "params and result": b'{"jsonrpc":"2.0","id":1,"params":{},"result":1}',
    "nothing": b'{"jsonrpc":"2.0","id":1}',
    "error no object": b'{"jsonrpc":"2.0","id":1,"error":"no"}',
    "error null": b'{"jsonrpc":"2.0","id":1,"error":null}',
    "params array": call("[]"),
    "params null": call("null"),
    "params string": call('"{}"'),
    "method number": b'{"jsonrpc":"2.0","id":1,"method":7}',
    "method null": b'{"jsonrpc":"2.0","id":1,"method":null}',
    "method empty": call(method=""),
    "no version": b'{"id":1,"method":"m"}',
    "version 1.0": b'{"jsonrpc":"1.0","id":1,"method":"m"}',
    "version number": b'{"jsonrpc":2.0,"id":1,"method":"m"}',
    "version null": b'{"jsonrpc":null,"id":1,"method":"m"}',
    "null": b"null",
    "number": b"1",
    "string": b'"x"',
    "array": b"[]",
    "empty object": b"{}",
}


@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON)
def test_parse_error(raw: bytes) -> None:
    assert refusal(raw) is FaultKind.PARSE


@pytest.mark.parametrize("raw", [NOT_JSON[name] for name in NOT_JSON if name.startswith("depth")])
@pytest.mark.parametrize("around", [(b"", b""), (b"[", b"]"), (b'{"jsonrpc":7,"x":', b"}")])
def test_what_is_too_deep_is_told_so(raw: bytes, around: tuple[bytes, bytes]) -> None:
    with pytest.raises(Fault) as caught:
        parse_body(around[0] + raw + around[1])
    assert caught.value.message == "Parse error: nested deeper than 64"


@pytest.mark.parametrize("raw", NOT_A_MESSAGE.values(), ids=NOT_A_MESSAGE)
def test_invalid_request(raw: bytes) -> None:
    assert refusal(raw) is FaultKind.INVALID_REQUEST


@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_not_json_in_a_batch_either(raw: bytes) -> None:
    with pytest.raises(Fault) as caught:
        parse_body(b"[" + (raw or b",") + b"," + call() + b"]")
    assert caught.value.kind is FaultKind.PARSE


LARGE = 4 * 1024 * 1024


def refuse(raw: bytes) -> None:
    with pytest.raises(Fault):
        parse_body(raw)


@pytest.mark.parametrize(
    "raw", [*NOT_JSON.values(), *NOT_A_MESSAGE.values()], ids=[*NOT_JSON, *NOT_A_MESSAGE]
)
def test_refused_within_50_ms(raw: bytes) -> None:
    assert texts.cpu_seconds(lambda: refuse(raw)) < 0.050


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(call(f'{{"a":{"9" * LARGE}}}'), id="one int"),
        pytest.param(call(f'{{"a":[{"1e1," * (LARGE // 4)}1e400]}}'), id="exponents"),
        pytest.param(call(f'{{"a":[{f"{texts.nested(63)}," * (LARGE // 250)}1]}}'), id="depth 65"),
        pytest.param(call(f'{{"a":"{"{[" * (LARGE // 2)}\\ud800"}}'), id="a lone surrogate"),
        pytest.param(b"[" + b"1," * (LARGE // 2) + b"1]", id="a batch of 2 million"),
        pytest.param(b"[" + b"{}," * (LARGE // 3) + b"{}]", id="a batch of a million objects"),
    ],
)
def test_the_largest_body_is_refused_in_linear_time(raw: bytes) -> None:
    assert texts.cpu_seconds(lambda: refuse(raw)) < 0.3


def test_a_batch_too_large_is_not_held() -> None:
    raw = b"[" + b"1," * 500_000 + b"1]"
    tracemalloc.start()
    try:
        refuse(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(raw)


@pytest.mark.parametrize(
    ("raw", "id"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":7}', 7),
        (b'{"jsonrpc":"2.0","id":"7","Method":"m"}', "7"),
        (b'{"id": 0}', 0),
        (b'{"id":7,"method":"a","method":"b"}', 7),
        (b'{"id":7,"params":{"id":8}}', 7),
        (b'{"\\u0069d":7}', 7),
        (call(f'{{"a":{texts.nested(63)}}}', id="7"), 7),
        (b'{"id":7,"id":8}', None),
        (b'{"id":7,"\\u0069d":7}', None),
        (b'{"params":{"id":8}}', None),
        (b'{"id":null}', None),
        (b'{"id":1.0}', None),
        (b'{"id":true}', None),
        (b'{"id":[7]}', None),
        (b'{"id":7', None),
        (b'{"id":7}x', None),
        (b'{"id":"\\ud800"}', None),
        (b'{"id":7,"a":"\xff"}', None),
        (call(id=f'"{"x" * 257}"'), None),
        (call(id=str(2**63)), None),
        (call(id="9" * 5000), None),
        (call(f'{{"a":{texts.nested(100_000)}}}'), None),
        (b'[["id",7]]', None),
        (b"", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_readable_id(raw: bytes, id: int | str | None) -> None:
    found = readable_id(raw)
    assert (found, type(found)) == (id, type(id))


# Duplicates inside.

DUPLICATES_INSIDE = ['{"a":1,"a":2}', '{"a": 1, "\\u0061": 2}', '{"é":1,"é":2}', '{"a":1,"b":2,"a":"long"}']


@pytest.mark.parametrize("params", DUPLICATES_INSIDE)
def test_duplicates_in_params_are_found_by_whoever_looks(params: str) -> None:
    message = parse(call(params))
    for look in (message.params, message.param_members):
        with pytest.raises(Fault) as caught:
            look()
        assert caught.value.kind is FaultKind.INVALID_REQUEST


@pytest.mark.parametrize("value", DUPLICATES_INSIDE)
def test_duplicates_deeper_are_found_by_whoever_looks_there(value: str) -> None:
    message = parse(call(f'{{"arguments":[{value}]}}'))
    assert bytes(message.param_members()["arguments"]) == f"[{value}]".encode()
    with pytest.raises(Fault):
        message.params()
    with pytest.raises(Fault):
        jsonrpc.members(value.encode())


def test_param_members_may_be_named_in_any_script() -> None:
    members = parse(call('{"名":1, "\\u00e9" : 1.0 ,"a":{"b":1e2}}')).param_members()
    assert {key: bytes(raw) for key, raw in members.items()} == {"名": b"1", "é": b"1.0", "a": b'{"b":1e2}'}


# What is changed, and what stays.

ODD = (
    '{"z": 9007199254740993, "a" :[1.0,1e2,-0,1E+2 , 12345678901234567890123],'
    '"\\u0065":"\\/\\u00e9é\u2028\\ud83d\\ude00", "" : {"b":1,"a":2}}'
)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"jsonrpc":"2.0","id":1,"method":"m","params":{ODD}}}',
        f'{{"params" : {ODD} , "jsonrpc":"2.0", "id":1,"method":"m"}}',
        f'{{"jsonrpc":"2.0","id":1,"result":{ODD}}}',
        f'{{"jsonrpc":"2.0","error":{ODD},"id":1}}',
    ],
)
@pytest.mark.parametrize("id", [2, "2", 'a"\n\\é'])
def test_with_id_keeps_the_rest_to_the_byte(text: str, id: int | str) -> None:
    before = parse(text.encode())
    after = before.with_id(id)
    assert (after.id, after.method, after.kind) == (id, before.method, before.kind)
    assert ODD.encode() in after.raw
    assert whole(parse(after.raw)) == whole(after)
    assert (before.id, before.raw) == (1, text.encode())


def test_with_params_from_values_and_from_raw() -> None:
    before = parse(call('{"a":1}', id='"7"'))
    assert before.with_params({"b": [2, "é"]}).raw == call('{"b":[2,"é"]}', id='"7"')
    after = before.with_params(msgspec.Raw(ODD.encode()))
    assert after.raw == call(ODD, id='"7"')
    assert whole(parse(after.raw)) == whole(after)


def test_with_params_gives_params_to_a_message_without() -> None:
    message = parse(b'{"jsonrpc":"2.0","method":"m"}').with_params({})
    assert message.raw == b'{"jsonrpc":"2.0","method":"m","params":{}}'


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (jsonrpc.request(1, "m"), '{"jsonrpc":"2.0","id":1,"method":"m"}'),
        (jsonrpc.request("1", "m", {"a": 1}), '{"jsonrpc":"2.0","id":"1","method":"m","params":{"a":1}}'),
        (jsonrpc.notification("m"), '{"jsonrpc":"2.0","method":"m"}'),
        (jsonrpc.notification("m", {}), '{"jsonrpc":"2.0","method":"m","params":{}}'),
        (jsonrpc.result(1, None), '{"jsonrpc":"2.0","id":1,"result":null}'),
        (jsonrpc.result(1, msgspec.Raw(b"[1.0]")), '{"jsonrpc":"2.0","id":1,"result":[1.0]}'),
        (jsonrpc.error(None, {"code": 1}), '{"jsonrpc":"2.0","id":null,"error":{"code":1}}'),
        (jsonrpc.error("e", {}), '{"jsonrpc":"2.0","id":"e","error":{}}'),
    ],
)
def test_built_messages(message: Message, text: str) -> None:
    assert message.raw == text.encode()
    assert whole(parse(message.raw)) == whole(message)


# One line for stdio.


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_pretty_printed_message_becomes_one_line(newline: str) -> None:
    text = json.dumps(json.loads(call('{"a":[1.5,"b c\\n"],"e":{}}')), indent=2).replace("\n", newline)
    message = parse(text.encode())
    line = message.line()
    assert line.endswith(b"\n")
    assert not set(line[:-1]) & set(b"\r\n")
    assert json.loads(line) == json.loads(text)


def test_what_is_one_line_stays_as_it_is() -> None:
    raw = call('{ "a" : "\\n\\r\u2028" }')
    assert parse(raw).line() == raw + b"\n"


# Batches.


def test_a_body_is_one_message_or_a_batch() -> None:
    one = parse_body(b" " + call())
    assert isinstance(one, Message)
    batch = parse_body(b" \r\n[" + call(id="1") + b" ,\n" + call(id='"1"') + b"]")
    assert isinstance(batch, list)
    assert [message.id for message in batch if isinstance(message, Message)] == [1, "1"]
    assert [message.raw for message in batch if isinstance(message, Message)] == [call(), call(id='"1"')]


def test_a_bad_element_stands_as_its_fault() -> None:
    batch = parse_body(
        b"[" + b",".join([call(), b"7", b"[]", b"{}", b'{"id":1,"id":2}', call(id="2")]) + b"]"
    )
    assert isinstance(batch, list)
    assert [item.kind if isinstance(item, Fault) else item.id for item in batch] == [
        1,
        *[FaultKind.INVALID_REQUEST] * 4,
        2,
    ]


@pytest.mark.parametrize("size", [1, 99, 100])
def test_a_batch_up_to_its_bound(size: int) -> None:
    batch = parse_body(b"[" + b",".join([call()] * size) + b"]")
    assert isinstance(batch, list)
    assert len(batch) == size


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"[]", FaultKind.INVALID_REQUEST),
        (b" [ ] ", FaultKind.INVALID_REQUEST),
        (b"[1,2,3,4]", FaultKind.INVALID_REQUEST),
        (b"[1,2,3,NaN]", FaultKind.PARSE),
        (b"[1,2,3,4", FaultKind.PARSE),
        (b"[1,2", FaultKind.PARSE),
        (b"[1,]", FaultKind.PARSE),
        (b"[1]]", FaultKind.PARSE),
        (b'["\xff"]', FaultKind.PARSE),
        (b"[" * 65 + b"]" * 65, FaultKind.PARSE),
        (b"[" * 100_000 + b"]" * 100_000, FaultKind.PARSE),
        (b"", FaultKind.PARSE),
        (b" ", FaultKind.PARSE),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_refused_batch(raw: bytes, kind: FaultKind) -> None:
    with pytest.raises(Fault) as caught:
        parse_body(raw, max_batch=3)
    assert caught.value.kind is kind


# Properties.

ids = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=jsonrpc.MAX_ID_CHARS))
methods = st.text(min_size=1, max_size=20)
accepted_values = texts.values.filter(
    lambda text: all(math.isfinite(number) for number in _floats(text)) and texts.depth(text) < 60
)


def _floats(text: str) -> list[float]:
    found: list[float] = []
    json.loads(text, parse_float=lambda number: found.append(float(number)))
    return found


@given(ids, ids, methods, accepted_values)
def test_any_params_survive_a_new_id(id: int | str, other: int | str, method: str, value: str) -> None:
    params = f'{{"arguments": {value}}}'
    raw = call(params, id=json.dumps(id), method=json.dumps(method)[1:-1])
    message = parse(raw)
    assert (message.id, message.method, message.raw) == (id, method, raw)
    again = parse(message.with_id(other).raw)
    assert whole(again) == (REQUEST, type(other), other, method, (params.encode(), b"", b""))
    assert parse(again.with_id(id).raw).with_id(other).raw == again.raw


_members = st.sampled_from(
    (
        '"jsonrpc":"2.0"',
        '"id":1',
        '"id":-12',
        '"id":null',
        '"id":"\u00e9"',
        r'"\u0069d":1',
        '"method":"a"',
        '"method":"\u00e9"',
        '"params":{}',
        '"result":0',
        '"error":{}',
    )
)


@given(st.permutations(['"jsonrpc":"2.0"', '"id":1']), st.lists(_members, max_size=4))
def test_the_short_look_for_second_members_finds_what_the_long_one_does(
    begin: list[str], more: list[str]
) -> None:
    text = ",".join([*begin, *more])
    # One space, and no message is as short as its members need.
    short, long = _judged(f"{{{text}}}".encode()), _judged(f"{{ {text}}}".encode())
    assert short == long
    keys = [key for key, _ in json.loads(f"{{{text}}}", object_pairs_hook=list)]
    if short is not FaultKind.INVALID_REQUEST:
        assert len(keys) == len(set(keys))


def _judged(raw: bytes) -> object:
    try:
        return whole(parse(raw))
    except Fault as fault:
        return fault.kind


@given(ids, methods, accepted_values)
def test_any_message_survives_its_line(id: int | str, method: str, value: str) -> None:
    text = json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": {"a": 0}}, indent=1)
    message = parse(text.replace(' "a": 0', f'\r"a" : {value}').encode())
    line = message.line()
    assert line.index(b"\n") == len(line) - 1
    assert b"\r" not in line
    spelled = {"object_pairs_hook": list, "parse_int": str, "parse_float": str}
    assert json.loads(line, **spelled) == json.loads(message.raw, **spelled)


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@given(ids, methods, st.dictionaries(st.text(), json_values, max_size=4))
def test_a_built_request_is_read_back(id: int | str, method: str, params: dict[str, Any]) -> None:
    message = parse(jsonrpc.request(id, method, params).raw)
    assert (message.id, message.method, message.params()) == (id, method, params)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"{}", 'this is no JSON-RPC message: it has no "jsonrpc"'),
        (b'{"query":"x"}', '"query" is no member of a JSON-RPC message'),
        (b'{"`$.id`":1}', '"`$.id`" is no member of a JSON-RPC message'),
        (b'{"%b":1}' % (b"x" * 1_000), f'"{"x" * 64}" is no member of a JSON-RPC message'),
        (b'"tools/list"', "this is no JSON-RPC message: one is an object"),
        (b"null", "this is no JSON-RPC message: one is an object"),
        (b'{"jsonrpc":2,"id":7,"method":"x"}', 'jsonrpc must be "2.0"'),
        (b'{"jsonrpc":"2.0","id":7,"method":7}', "method must be a string that is not empty"),
        *(
            (
                b'{"jsonrpc":"2.0","id":%b,"method":"x"}' % id,
                "id must be a string of at most 256 characters, or an integer of at most 64 bits",
            )
            for id in (b"1.5", b"{}", b"true", b"9" * 20, b'"' + b"x" * 257 + b'"')
        ),
    ],
)
def test_what_is_no_message_is_told_in_plain_words(raw: bytes, told: str) -> None:
    with pytest.raises(Fault) as caught:
        parse(raw)
    assert caught.value.message == f"Invalid request: {told}"
