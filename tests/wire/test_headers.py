from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.wire.headers import (
    HOP_BY_HOP,
    HeaderValueError,
    decode_value,
    encode_value,
    end_to_end,
    matches,
)

# Values.

AS_IS = ["us west 1", "", "a", "=?base64?x", "x?=", "=?BASE64?eA==?=", "a=?base64?eA==?=", "=?base64?=", "~!"]

ENCODED = {
    "Hello, 世界": b"=?base64?SGVsbG8sIOS4lueVjA==?=",
    " us-west1": b"=?base64?IHVzLXdlc3Qx?=",
    "us-west1 ": b"=?base64?dXMtd2VzdDEg?=",
    "\tx": b"=?base64?CXg=?=",
    "a\tb": b"=?base64?YQli?=",
    " ": b"=?base64?IA==?=",
    "=?base64?literal?=": b"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=",
    "=?base64??=": b"=?base64?PT9iYXNlNjQ/Pz0=?=",
    "é": b"=?base64?w6k=?=",
    "a\r\nX-Injected: 1": b"=?base64?YQ0KWC1JbmplY3RlZDogMQ==?=",
    "\0": b"=?base64?AA==?=",
    "\x7f": b"=?base64?fw==?=",
}


@pytest.mark.parametrize("text", AS_IS)
def test_a_plain_value_goes_as_it_is(text: str) -> None:
    assert encode_value(text) == text.encode()
    assert decode_value(text.encode()) == text


@pytest.mark.parametrize(("text", "header"), ENCODED.items())
def test_other_values_are_encoded(text: str, header: bytes) -> None:
    assert encode_value(text) == header
    assert decode_value(header) == text


@pytest.mark.parametrize(
    ("value", "header"),
    [
        (True, b"true"),
        (False, b"false"),
        (42, b"42"),
        (-1, b"-1"),
        (2**53 + 1, b"9007199254740993"),
        (0, b"0"),
    ],
)
def test_numbers_and_booleans(value: int | bool, header: bytes) -> None:
    assert encode_value(value) == header
    assert matches(header, value)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b" \t us west 1 \t", "us west 1"),
        (b"  =?base64?SGk=?=  ", "Hi"),
        (b"=?base64?SGk=", "=?base64?SGk="),
        (b"SGk=?=", "SGk=?="),
        (b"=?Base64?SGk=?=", "=?Base64?SGk=?="),
        (b"=?BASE64?SGk=?=", "=?BASE64?SGk=?="),
        (b"=?base64??=", ""),
        (b"=?base64?=", "=?base64?="),
        (b"caf\xe9", "café"),
    ],
)
def test_decoding(header: bytes, text: str) -> None:
    assert decode_value(header) == text


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(b"SGk", id="no padding"),
        pytest.param(b"SGk==", id="too much padding"),
        pytest.param(b"SG=k", id="padding inside"),
        pytest.param(b"SGk=SGk=", id="something behind the padding"),
        pytest.param(b"S", id="one character"),
        pytest.param(b"=", id="only padding"),
        pytest.param(b"SGl=", id="bits behind the end"),
        pytest.param(b"S Gk=", id="white space"),
        pytest.param(b"SGk=\r\n", id="line end"),
        pytest.param(b"_-8=", id="the alphabet of URLs"),
        pytest.param(b"SG\xc3\xa9=", id="not ASCII"),
        pytest.param(b"/w==", id="not UTF-8"),
        pytest.param(b"7aCA", id="an encoded surrogate"),
        pytest.param(b"wK8=", id="overlong UTF-8"),
        pytest.param(b"literal", id="no Base64"),
    ],
)
def test_a_broken_encoding_is_refused(inner: bytes) -> None:
    with pytest.raises(HeaderValueError):
        decode_value(b"=?base64?" + inner + b"?=")


@given(st.text() | st.text("=?base64 \t\x7e\x7f\u0080", max_size=15))
def test_any_text_comes_back(text: str) -> None:
    header = encode_value(text)
    assert re.fullmatch(rb"|[\x21-\x7e]|[\x21-\x7e][\x20-\x7e]*[\x21-\x7e]", header)
    assert decode_value(header) == text
    assert decode_value(b"\t " + header + b" ") == text
    assert matches(header, text)


@given(st.binary(max_size=12))
def test_what_decodes_has_one_encoding(inner: bytes) -> None:
    header = b"=?base64?" + inner + b"?="
    try:
        text = decode_value(header)
    except HeaderValueError:
        return
    assert encode_value(text) in (header, text.encode())


# Comparing with an argument.


@pytest.mark.parametrize(
    ("header", "value", "same"),
    [
        (b"42", 42, True),
        (b"42.0", 42, True),
        (b"42.000", 42, True),
        (b" 42 ", 42, True),
        (b"-42.0", -42, True),
        (b"-0", 0, True),
        (b"9007199254740993", 2**53 + 1, True),
        (b"9007199254740993.0", 2**53 + 1, True),
        (b"9007199254740992", 2**53 + 1, False),
        (b"42.5", 42, False),
        (b"42.", 42, False),
        (b"042", 42, False),
        (b"+42", 42, False),
        (b"4_2", 42, False),
        (b"4 2", 42, False),
        (b"0x2a", 42, False),
        (b"42a", 42, False),
        (b"", 0, False),
        (b"\xb2", 2, False),
        (encode_value("٤٢"), 42, False),
        (b"9" * 5000, 42, False),
        (b"1", True, False),
        (b"true", True, True),
        (b"True", True, False),
        (b"false", False, True),
        (b"0", False, False),
        (b"true", 1, False),
        (b"42", "42", True),
        (b"42.0", "42", False),
        (b"Us-West1", "us-west1", False),
        (b"us-west1", "us-west1", True),
        (encode_value("é"), "é", True),
        (b"=?base64?NDI=?=", "42", True),
        (b"", "", True),
    ],
)
def test_matches(header: bytes, value: str | int | bool, same: bool) -> None:
    assert matches(header, value) is same


def test_matches_refuses_a_broken_encoding() -> None:
    with pytest.raises(HeaderValueError):
        matches(b"=?base64?SGk?=", "SGk")


# Which headers go on.

KEPT = [(b"Content-Type", b"application/json"), (b"Mcp-Param-X", b"1"), (b"X-A", b"2")]


def test_hop_by_hop_headers_end_here() -> None:
    headers = [(name.title(), b"x") for name in HOP_BY_HOP if name != b"connection"]
    assert end_to_end([*headers, *KEPT, (b"CONNECTION", b"close")]) == KEPT


@pytest.mark.parametrize(
    "name",
    [b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade"],
)  # fmt: skip
def test_hop_by_hop_names(name: bytes) -> None:
    assert name in HOP_BY_HOP


@pytest.mark.parametrize(
    ("connections", "left"),
    [
        ([b"X-A"], [b"Content-Type", b"Mcp-Param-X"]),
        ([b"close, x-a"], [b"Content-Type", b"Mcp-Param-X"]),
        ([b" ,,\tX-a\t, MCP-PARAM-X ,"], [b"Content-Type"]),
        ([b"x-a", b"mcp-param-x"], [b"Content-Type"]),
        ([b""], [b"Content-Type", b"Mcp-Param-X", b"X-A"]),
        ([b"x"], [b"Content-Type", b"Mcp-Param-X", b"X-A"]),
    ],
)
def test_headers_named_in_connection_end_here(connections: list[bytes], left: list[bytes]) -> None:
    headers = [*KEPT, *((b"Connection", value) for value in connections)]
    assert [name for name, _ in end_to_end(headers)] == left
    assert end_to_end(reversed(headers)) == list(reversed(end_to_end(headers)))
