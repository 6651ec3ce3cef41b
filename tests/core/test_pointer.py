"""JSON pointers into messages: what they find, and edits that touch nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.pointer import NotThere, look, parse_pointer, with_value, without
from shadowcat.errors import Fault
from shadowcat.wire import jsonrpc

PARAMS = (
    rb'{"name":"t","arguments":{"big":9007199254740993,"one":1.0,"e":1E2,"s":"\u00e4\/","a/b":[0,{"x":null}]},'
    rb'"_meta":{"progressToken":7}}'
)
MESSAGE = jsonrpc.parse(rb'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":' + PARAMS + b"}")


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/params/name", b'"t"'),
        ("/params/arguments/big", b"9007199254740993"),
        ("/params/arguments/one", b"1.0"),
        ("/params/arguments/s", rb'"\u00e4\/"'),
        ("/params/arguments/a~1b/1/x", b"null"),
        ("/params/arguments/a~1b/2", None),
        ("/params/arguments/a~1b/01", None),
        ("/params/arguments/a~1b/-", None),
        ("/params/nothing/at/all", None),
        ("/params/name/t", None),
        ("/result/name", None),
        ("/error/code", None),
    ],
)
def test_look(pointer: str, found: bytes | None) -> None:
    assert look(MESSAGE, parse_pointer(pointer)) == found


@pytest.mark.parametrize(
    "text", ["", "params/name", "/params", "/method/x", "/id", "/params/~2", "/params/a~", "/"]
)
def test_what_is_no_pointer(text: str) -> None:
    with pytest.raises(ValueError, match="point"):
        parse_pointer(text)


@pytest.mark.parametrize(
    ("pointer", "old", "new"),
    [
        ("/params/name", b'"t"', b'"u"'),
        ("/params/arguments/one", b"1.0", b"2"),
        ("/params/arguments/a~1b/1/x", b"null", b"[]"),
        ("/params/_meta/progressToken", b"7", b"8"),
    ],
)
def test_an_edit_touches_nothing_else(pointer: str, old: bytes, new: bytes) -> None:
    before = f'"{parse_pointer(pointer)[-1]}":'.encode()
    edited = with_value(MESSAGE, parse_pointer(pointer), new)
    assert edited.raw_params == PARAMS.replace(before + old, before + new)
    assert (edited.id, edited.kind, edited.method) == (MESSAGE.id, MESSAGE.kind, MESSAGE.method)
    assert jsonrpc.parse(edited.raw).raw_params == edited.raw_params


def test_setting_makes_what_it_is_to_stand_in() -> None:
    bare = jsonrpc.request(1, "tools/call")
    assert with_value(bare, parse_pointer("/params/a/b/c"), b"1").params() == {"a": {"b": {"c": 1}}}
    appended = with_value(MESSAGE, parse_pointer("/params/arguments/a~1b/-"), b"2")
    assert appended.params()["arguments"]["a/b"] == [0, {"x": None}, 2]


@pytest.mark.parametrize(
    "pointer", ["/params/name/t", "/params/arguments/a~1b/2", "/result/x", "/params/arguments/one/x"]
)
def test_where_nothing_can_stand_nothing_is_set(pointer: str) -> None:
    with pytest.raises(NotThere):
        with_value(MESSAGE, parse_pointer(pointer), b"1")
    assert without(MESSAGE, parse_pointer(pointer)) is MESSAGE


def test_removing() -> None:
    edited = without(MESSAGE, parse_pointer("/params/arguments/a~1b/0"))
    assert edited.raw_params == PARAMS.replace(b"[0,", b"[")
    assert b"progressToken" not in without(MESSAGE, parse_pointer("/params/_meta")).raw


def test_results_and_errors() -> None:
    result = jsonrpc.result(1, {"content": [{"text": "a"}]})
    assert with_value(result, parse_pointer("/result/content/0/text"), b'"b"').result() == {
        "content": [{"text": "b"}]
    }
    error = jsonrpc.error(None, {"code": 1, "message": "x", "data": 2})
    assert without(error, parse_pointer("/error/data")).error() == {"code": 1, "message": "x"}


def test_two_members_of_one_name_are_refused() -> None:
    double = jsonrpc.parse(b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":{"b":1,"b":2}}}')
    for act in (
        lambda p: look(double, p),
        lambda p: with_value(double, p, b"1"),
        lambda p: without(double, p),
    ):
        with pytest.raises(Fault):
            act(parse_pointer("/params/a/b"))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def places(value: Any) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        found.append((str(key),))
        found += [(str(key), *rest) for rest in places(inner)]
    return found


@given(st.dictionaries(st.text(max_size=5), values, min_size=1, max_size=4), st.data())
def test_any_value_can_be_found_replaced_and_removed(params: dict[str, Any], data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(places(params)))
    text = "/params" + "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in place)
    pointer = parse_pointer(text)
    message = jsonrpc.request(1, "m", params)
    expected = json.loads(json.dumps(params))
    parent: Any = expected
    for token in place[:-1]:
        parent = parent[int(token) if isinstance(parent, list) else token]
    key: Any = int(place[-1]) if isinstance(parent, list) else place[-1]
    found = look(message, pointer)
    assert found is not None
    assert json.loads(found) == parent[key]
    parent[key] = "new"
    assert with_value(message, pointer, b'"new"').params() == expected
    del parent[key]
    assert without(message, pointer).params() == expected
