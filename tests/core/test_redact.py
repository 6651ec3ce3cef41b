"""Secrets are found by their key and by how they look; all else stays as it was, byte for byte."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.redact import MASK, Redactor, shown
from shadowcat.wire import jsonrpc

REDACTOR = Redactor(["my_pin"])


def redacted(value: Any) -> Any:
    return json.loads(REDACTOR.redact(json.dumps(value).encode()))


@pytest.mark.parametrize(
    "key",
    ["password", "Password", "db_password", "API-Key", "apiKey", "x-api-key", "access_token", "Authorization",
     "client_secret", "refreshToken", "Set-Cookie", "my_pin", "myPin", "credentials", "private_key"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["hunter2", 1234, ["hunter2"], {"user": "a", "word": "hunter2"}])
def test_what_stands_under_a_secret_s_key(key: str, value: Any) -> None:
    assert redacted({"a": {"b": [{key: value, "c": 1}]}}) == {"a": {"b": [{key: MASK, "c": 1}]}}


def test_a_key_spelled_with_escapes() -> None:
    assert b"hunter2" not in REDACTOR.redact(rb'{"pass\u0077ord":"hunter2"}')


@pytest.mark.parametrize(
    "value",
    [
        {"_meta": {"progressToken": 7}},
        {"progressToken": "abc", "progress": 1},
        {"maxTokens": 100, "usage": {"inputTokens": 3}},
        {"password": None, "token": "", "hasPassword": True},
        {"name": "token", "description": "what it is"},
        {"keyboard": "us", "monkey": 1, "key": "value"},
        {"text": "the password is asked for by the form"},
        {"text": "call(max_tokens=10), then Tokens: 1234.5 used. total_tokens = 7"},
        {"text": 'said {"tokens": 12} and {\\"inputTokens\\":7,'},
        {"text": "see https://example.com/a?b=c and mail a@example.com"},
        {"inputSchema": {"properties": {"password": {"type": "string"}}, "required": ["password"]}},
        {"id": "a81bc81b-dead-4e5d-abff-90865d1e13b1", "data": base64.b64encode(bytes(range(99))).decode()},
    ],
)
def test_what_is_no_secret(value: Any) -> None:
    raw = json.dumps(value).encode()
    assert REDACTOR.redact(raw) == raw


def test_an_argument_that_only_looks_like_a_schema() -> None:
    assert redacted({"properties": {"password": "hunter2"}}) == {"properties": {"password": MASK}}
    assert redacted({"properties": {"password": {"is": "hunter2"}}}) == {"properties": {"password": MASK}}


LOOKS = [
    "Bearer abcdefgh12345678",
    "Authorization: Basic dXNlcjpodW50ZXIyMjI=",
    "sk-proj-abcdefghijklmnop",
    "sk_live_abcdefghij",
    "sk_test_abcdefghij",
    "ghp_abcdefghijklmnopqrst",
    "github_pat_abcdefghijklmnopqrst",
    "glpat-abcdefghijklmnop",
    "xoxb-1234567890-abc",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA1234567890abcdefghijklmnopqrstu",
    "ya29.abcdefghijklmnopqrstuvw",
    "eyJhbGciOiJI.eyJzdWIiOiIx.sig",
    "npm_abcdefghijklmnopqrstuvwxyz012345",
    "hf_abcdefghijklmnopqrst",
    "postgres://user:hunter22@db/x",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
    "password=hunter22",
    "api key: hunter22",
    "token=12345678",
    "tokens: hunter22",
    "tokens=1234-5678-9012",
    "tokens=1234567890123",
    "https://example.com/?access_token=hunter22&x=1",
]


def hidden(look: str) -> str:
    """The part of it that must not be there any more."""
    return look.split("\n")[1] if "\n" in look else look.split("user:")[-1].split("@")[0][-8:].split("&")[0]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda look: look,
        lambda look: f"before {look} after",
        lambda look: json.dumps({"log": look}),
        lambda look: "said " + json.dumps(look),
        lambda look: json.dumps({"a": json.dumps([look])}),
        lambda look: base64.b64encode(f"this: {look}".encode()).decode(),
        lambda look: "data:" + base64.urlsafe_b64encode(f"more {look} and more".encode()).decode(),
    ],
    ids=["plain", "in a text", "in JSON", "escaped", "in JSON in JSON", "base64", "base64url"],
)
def test_what_looks_like_a_secret(look: str, wrap: Any) -> None:
    text = wrap(look)
    out = REDACTOR.redact(json.dumps({"content": [{"text": text}]}).encode())
    assert MASK.encode() in out
    assert hidden(look).encode() not in out
    assert base64.b64encode(look.encode())[4:-4] not in out


@pytest.mark.parametrize("name", ["name", "key", "header"])
def test_a_secret_named_beside_its_value(name: str) -> None:
    pair = {name: "Authorization", "value": "hunter2"}
    assert redacted([pair]) == [{name: "Authorization", "value": MASK}]


def test_two_values_under_one_key_hide_nothing() -> None:
    assert b"hunter2" not in REDACTOR.redact(b'{"a":{"token":"hunter2","token":null}}')


def test_what_is_around_a_secret_stays_as_it_was() -> None:
    raw = b'{"n":1.0,"e":1e2,"big":9007199254740993,"s":"\\u00e9","token":"x","l":[1.50,{"m":-0.0}]}'
    assert REDACTOR.redact(raw) == raw.replace(b'"x"', b'"[redacted]"')


@pytest.mark.parametrize(
    ("raw", "out"),
    [
        (
            b'{"jsonrpc": "2.0", "id": "token", "method":"m", "params": {"token": "x", "n": 1.0}}',
            b'{"jsonrpc": "2.0", "id": "token", "method":"m", "params": {"token":"[redacted]","n":1.0}}',
        ),
        (
            b'{"jsonrpc":"2.0","id":1,"result":{"token":"x"}}',
            b'{"jsonrpc":"2.0","id":1,"result":{"token":"[redacted]"}}',
        ),
        (
            b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"token: hunter2"}}',
            b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"token: [redacted]"}}',
        ),
        (
            b'{"jsonrpc":"2.0","id":1,"result":{"token":"x","token":"y"}}',
            b'{"jsonrpc":"2.0","id":1,"result":{}}',
        ),
        (b'{"jsonrpc":"2.0","method":"token"}', b'{"jsonrpc":"2.0","method":"token"}'),
        # The same text twice, and only one of them is a result.
        (
            b'{"jsonrpc":"2.0","result":"sk-abcdefghijklmnopqrstuv", "id":"sk-abcdefghijklmnopqrstuv"}',
            b'{"jsonrpc":"2.0","result":"[redacted]","id":"sk-abcdefghijklmnopqrstuv"}',
        ),
        (
            b'{"jsonrpc":"2.0","id":"sk-abcdefghijklmnopqrstuv","result":"sk-abcdefghijklmnopqrstuv"}',
            b'{"jsonrpc":"2.0","id":"sk-abcdefghijklmnopqrstuv","result":"[redacted]"}',
        ),
    ],
)
def test_a_whole_message(raw: bytes, out: bytes) -> None:
    assert REDACTOR.redact_message(jsonrpc.parse(raw)) == out
    jsonrpc.parse(out)


@pytest.mark.parametrize("noise", ["", "x" * 190, "x" * 198])
def test_what_is_shown_of_a_line_that_is_no_message(noise: str) -> None:
    raw = (
        f'{noise}{{"api_key": "hunter2", \x1b[31m "k": "sk-abcdefghijklmnopqrstuv'.encode() + b"\xff" * 5_000
    )
    told = shown(raw, 200)
    assert len(told) <= 300
    assert "hunter2" not in told
    assert "sk-abc" not in told
    assert "\x1b" not in told
    assert told.startswith(noise)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(alphabet=st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(json_values)
def test_the_rest_of_the_world_is_left_alone(value: Any) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode()
    out = REDACTOR.redact(raw)
    assert out == raw or MASK.encode() in out
    assert REDACTOR.redact(out) == out


@pytest.mark.parametrize(
    "run", ["A", "eyJ", "sk-", "eyJ-", "token", "://", "bearer ", "=", "token=", "key: "]
)
def test_a_long_text_takes_no_long_time(run: str) -> None:
    """What takes the square of its length would not end within the test's time."""
    text = run * (1_000_000 // len(run))
    assert REDACTOR.redact(json.dumps({"password": 1, "text": text}).encode())


def test_a_uuid_needs_no_closer_look() -> None:
    uuid = b"b7d3f0a2-55c1-4b1e-9f6e-2f1f0c9a7e11"
    assert REDACTOR.is_clean(b'{"id":"%b"}' % uuid)
    for around in (b'{"id":"A%b"}', b'{"id":"%b-bc"}', b'{"id":"%b","x":"cGFzc3dvcmQ9aHVudGVyMg"}'):
        assert not REDACTOR.is_clean(around % uuid)


PIECES = st.sampled_from(
    [b"b7d3f0a2-55c1-4b1e-9f6e-2f1f0c9a7e11", b"B7D3F0A2-55C1-4B1E-9F6E-2F1F0C9A7E11", b"b7d3f0a2-55c1-4b1e",
     b"cGFzc3dvcmQ9aHVudGVyMg", b"2f1f0c9a7e11", b"-", b"+", b"/", b"_", b"a", b"=", b" ", b'"', b":", b"\xc3\xa9"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_a_run_is_looked_at_unless_it_is_a_uuid_and_nothing_else(raw: bytes) -> None:
    runs = re.findall(rb"[A-Za-z0-9+/_-]{19,}", raw)
    uuid = re.compile(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
    assert REDACTOR.is_clean(raw) is all(uuid.fullmatch(run) for run in runs)
