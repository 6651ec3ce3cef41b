"""The checks alone, on text that msgspec's skipping decoder has accepted."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.wire import json_strict
from shadowcat.wire.json_strict import MAX_DEPTH, JsonError
from tests.wire import texts


def passes(raw: bytes) -> bool:
    try:
        json_strict.check(raw)
    except JsonError:
        return False
    return True


def reference(raw: bytes) -> bool:
    """What `check` means, slowly."""
    floats: list[float] = []

    def keep(number: str) -> float:
        floats.append(float(number))
        return floats[-1]

    try:
        text = raw.decode("utf-8")
        json.loads(text, parse_float=keep)
    except ValueError:
        return False
    return texts.depth(text) <= MAX_DEPTH and all(math.isfinite(number) for number in floats)


@given(texts.values)
def test_check_is_the_reference(text: str) -> None:
    assert passes(text.encode()) is reference(text.encode())


@given(texts.values, st.integers(MAX_DEPTH - 4, MAX_DEPTH + 2))
def test_check_is_the_reference_near_the_depth_limit(core: str, depth: int) -> None:
    raw = texts.nested(depth, core).encode()
    assert passes(raw) is reference(raw)


@given(st.lists(texts.values, min_size=1, max_size=3), st.integers(MAX_DEPTH - 4, MAX_DEPTH))
def test_many_values_side_by_side_are_not_deep(cores: list[str], depth: int) -> None:
    raw = texts.nested(depth, ",".join([f'["{{[",{core}]' for core in cores] * 30).join("[]")).encode()
    assert passes(raw) is reference(raw)


@given(texts.values, st.lists(st.integers(0x80, 0xFF), min_size=1, max_size=4))
def test_bytes_that_are_not_utf_8_are_found_wherever_they_stand(text: str, odd: list[int]) -> None:
    raw = b"[" + text.encode() + b',"' + bytes(odd) + b'"]'
    assert passes(raw) is reference(raw)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        pytest.param("[1,2,3]" * 100, True, id="digits of neighbours are not one number"),
        pytest.param(f"[{','.join(['0.125'] * 500)}]", True, id="many floats"),
        pytest.param(f'"{"f" * 300}{"0" * 300}e000"', True, id="hex text"),
        pytest.param('"size 100"', True, id="a word that ends in e"),
        pytest.param("9" * 4300, True, id="4300 digits"),
        pytest.param("9" * 4301, False, id="4301 digits"),
        pytest.param("0." + "1" * 5000, True, id="a long fraction"),
        pytest.param("1" + "0" * 300 + "e10", False, id="digits and exponent together"),
        pytest.param("1" + "0" * 250 + "e-10", True, id="a negative exponent makes it smaller"),
        pytest.param("1e00000000000000000001", True, id="zeros before the exponent"),
        pytest.param("-1E+400", False, id="capital E and plus"),
    ],
)
def test_numbers(text: str, good: bool) -> None:
    assert passes(text.encode()) is good


@pytest.mark.parametrize("text", ["[1.5,2.25,-3]" * 100, '["a, b",1]' * 50, f"[{'12,' * 1000}0]"])
def test_clean_numbers_need_no_full_decode(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_strict, "_decode_numbers", lambda raw: pytest.fail("decoded in full"))
    json_strict.check(text.encode())


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param("{" * 63 + "}" * 63, id="combs"),
        pytest.param("{" * 8 + "}" * 8, id="short combs"),
        pytest.param("{{}{}}", id="bushes"),
        pytest.param("{" * 60 + "{{{}}}" * 50 + "}" * 60, id="tall bushes"),
        pytest.param("{}", id="flat"),
    ],
)
def test_depth_is_found_in_linear_time(unit: str) -> None:
    """Only brackets count here, so this is not JSON. Taking a level at a time, combs took 700 ms."""
    raw = (unit * (2**22 // len(unit))).encode()
    assert texts.cpu_seconds(lambda: json_strict.check(raw)) < 0.3


# What decodes values.


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}',
        '[{"b":{"a":1, "a":1}}]',
        '{"é":1,"\\u00e9":2}',
        "NaN",
        "[-Infinity]",
        "",
        "{",
        pytest.param("[" * 100_000, id="100,000 brackets"),
    ],
)
def test_loads_refuses(text: str) -> None:
    with pytest.raises(JsonError):
        json_strict.loads(text.encode())


@pytest.mark.parametrize(
    "raw",
    [b'"\xff"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf1", '{"a":1}'.encode("utf-16"), "[1]".encode("utf-32-le")],
)
def test_loads_takes_utf_8_only(raw: bytes) -> None:
    with pytest.raises(JsonError):
        json_strict.loads(raw)


@given(texts.values)
def test_loads_is_json_loads_without_duplicates(text: str) -> None:
    value = json.loads(text)
    try:
        assert repr(json_strict.loads(text.encode())) == repr(value)
    except JsonError:
        pairs: list[list[str]] = []
        json.loads(text, object_pairs_hook=lambda found: pairs.append([key for key, _ in found]))
        assert any(len(set(keys)) < len(keys) for keys in pairs)


# What takes an object apart.

_keys = st.sampled_from(
    ['"a"', '"\\u0061"', '"b"', '"/"', '"\\/"', '"é"', '"\\u00e9"', '""', '"a b"', '"\\""']
)


@given(texts.objects(texts.values, keys=_keys))
def test_members_are_those_of_a_reference(text: str) -> None:
    pairs = json.loads(text, object_pairs_hook=list)
    expected = dict(pairs)
    try:
        found = json_strict.members(text.encode())
    except JsonError:
        assert len(expected) < len(pairs)
        return
    assert len(expected) == len(pairs)
    assert {key: json.loads(bytes(raw), object_pairs_hook=list) for key, raw in found.items()} == expected


@given(st.dictionaries(st.text(max_size=3), texts.values, max_size=4))
def test_members_keep_their_values_to_the_byte(members: dict[str, str]) -> None:
    text = ",".join(f"{json.dumps(key)} : {value} " for key, value in members.items())
    found = json_strict.members(f"{{{text}}}".encode())
    assert {key: bytes(raw).decode() for key, raw in found.items()} == members


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{ "a" : 1 , "a" : 1 }',
        '{"a":1,"\\u0061":1}',
        '{"é":1,"é":2}',
        '{"é":1,"\\u00e9":2}',
        '{"":1,"":1}',
        '{"abc":1,"abc":"longer than the first"}',
        '{"abc":"longer than the second","abc":1}',
        '{"a":1,"ab":2,"a":3}',
    ],
)
def test_members_refuses_a_duplicate(text: str) -> None:
    with pytest.raises(JsonError):
        json_strict.members(text.encode())


@pytest.mark.parametrize("text", ["[]", "1", "", '{"a"}', pytest.param("{" * 10_000, id="{…")])
def test_members_refuses_what_is_no_object(text: str) -> None:
    with pytest.raises(JsonError):
        json_strict.members(text.encode())


@given(texts.values)
def test_minify_drops_only_white_space(text: str) -> None:
    minified = json_strict.minify(text.encode()).decode()
    assert not set(minified) & set("\r\n\t")
    spelled = {"object_pairs_hook": list, "parse_int": str, "parse_float": str}
    assert json.loads(minified, **spelled) == json.loads(text, **spelled)
    assert json_strict.minify(minified.encode()).decode() == minified


def test_minify_keeps_every_spelling() -> None:
    pretty = b'{\r\n "a" : [ 1.0 ,\t1e2, 9007199254740993, "\\u00e9\\/ x" , {} , [ ] , -0 ] }\n'
    assert json_strict.minify(pretty) == b'{"a":[1.0,1e2,9007199254740993,"\\u00e9\\/ x",{},[],-0]}'
