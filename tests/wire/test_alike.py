"""What is judged together has to be judged as each of them is by itself."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.errors import Fault
from shadowcat.wire import alike, jsonrpc
from shadowcat.wire.json_strict import MAX_DEPTH
from shadowcat.wire.jsonrpc import Message
from tests.wire import texts

HEAD = '{"jsonrpc":"2.0","method":"notifications/message","params":'


def message(params: str) -> bytes:
    return f"{HEAD}{params}}}".encode()


FIRST = jsonrpc.parse(message('{"data":"first"}'))
PLAIN = message('{"data":"one","level":"info"}')


def one_by_one(raws: list[bytes]) -> list[Message] | None:
    try:
        return [jsonrpc.parse(raw) for raw in raws]
    except Fault:
        return None


def together(raws: list[bytes]) -> list[Message] | None:
    """None also for what does not belong to the run."""
    return alike.parse_run(FIRST, raws) if alike.end_of_run(FIRST, raws, 0) == len(raws) else None


def members(messages: list[Message] | None) -> list[tuple[object, ...]]:
    assert messages is not None
    return [msgspec.structs.astuple(one) for one in messages]


def test_a_run_is_what_each_of_it_is() -> None:
    raws = [message(f'{{"data":"{number} é","at":{number}.5e3}}') for number in range(300)]
    assert members(together(raws)) == members(one_by_one(raws))


_params = st.one_of(
    texts.objects(texts.values),
    st.integers(MAX_DEPTH - 3, MAX_DEPTH + 1).map(lambda depth: f'{{"a":{texts.nested(depth - 1)}}}'),
    st.sampled_from(
        [
            "{}{}",
            '{"a":',
            "1}",
            "{},{}",
            '{"a":1},"id":1,"b":{}',
            "{}\n{}",
            "{\n}",
            "{} ",
            '{"a":"',
            '"}',
            "[]",
            "",
        ]
    ),
)


@given(st.lists(_params, min_size=1, max_size=4))
def test_nothing_passes_together_that_does_not_by_itself(params: list[str]) -> None:
    raws = [message(one) for one in params]
    found = together(raws)
    if found is not None:
        assert members(found) == members(one_by_one(raws))


_words = st.text("abcdef0123456789 :,-", max_size=8).map('"{}"'.format)


@given(st.lists(texts.objects(_words, _words), min_size=1, max_size=4))
def test_what_is_plain_passes_together(params: list[str]) -> None:
    raws = [message(one.replace("\n", " ")) for one in params]
    assert members(together(raws)) == members(one_by_one(raws))


@pytest.mark.parametrize(
    "odd",
    [
        [message("{}{}"), message('{"a":'), message("1}")],
        [message('{"a":'), message('1}{"b":2}')],
        [message('{"a":"'), message('"}{}')],
        [message('{"a":1},"params":{}')],
        [message('{"a":1}').removesuffix(b"}") + b"]"],
        [message("{").removesuffix(b"}")],
        [message('{"a":1},"id":7,"b":{}')],
        [message('{"a":1e400}')],
        [message('{"a":' + "9" * 5_000 + "}")],
        [message('{"a":"').removesuffix(b"}") + b'\xff"}}'],
        [
            message('{"a":"').removesuffix(b"}") + b'\xc3"}}',
            message('{"a":"').removesuffix(b"}") + b'\xa9"}}',
        ],
        [message(f'{{"a":{texts.nested(MAX_DEPTH - 1)}}}')],
        [message(f'{{"a":{texts.nested(30)},\n"b":{texts.nested(MAX_DEPTH - 1)}}}')],
    ],
)
def test_what_must_not_pass_does_not_pass_among_others(odd: list[bytes]) -> None:
    assert one_by_one(odd) is None
    assert together([PLAIN, *odd, PLAIN]) is None


@pytest.mark.parametrize(
    "other",
    [
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b'{"jsonrpc": "2.0","method":"notifications/message","params":{}}',
        message("[]"),
        b"",
    ],
)
def test_a_run_ends_where_anything_else_begins(other: bytes) -> None:
    assert alike.end_of_run(FIRST, [PLAIN, PLAIN, other, PLAIN], 0) == 2
    assert alike.end_of_run(FIRST, [PLAIN, PLAIN, other, PLAIN], 3) == 4


@given(
    st.integers(0, 120), st.integers(0, 120), st.binary(max_size=70).map(HEAD.encode().__add__) | st.binary()
)
def test_a_long_run_ends_there_too(start: int, place: int, other: bytes) -> None:
    raws = [message(f'{{"at":{number * 7919}}}') for number in range(120)]
    raws.insert(place, other)
    head = message("{")[:-1]
    alike_from = [raw.startswith(head) for raw in raws[start:]]
    assert alike.end_of_run(FIRST, raws, start) == start + [*alike_from, False].index(False)


@pytest.mark.parametrize(
    "first",
    [
        b'{"jsonrpc":"2.0","method":"m"}',
        b'{"jsonrpc":"2.0","params":{},"method":"m"}',
        b'{"jsonrpc":"2.0","method":"m","params":{} }',
        b'{"jsonrpc":"2.0","method":"m","params":{}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
    ],
)
def test_what_does_not_end_in_its_params_has_none_that_are_like_it(first: bytes) -> None:
    assert alike.end_of_run(jsonrpc.parse(first), [first, first], 1) == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"id":"7c9e6679-7425-40de-944b-e07fc1f90ae7 12e345"}',
        '{"id":"\\"1e345\\\\"}',
        '{"hash":"' + "7" * 300 + '"}',
        '{"words":"[[[{{{"}',
    ],
)  # fmt: skip
def test_text_that_looks_like_an_odd_number_is_no_reason_to_look_closer(text: str) -> None:
    raws = [message(text), PLAIN]
    assert members(together(raws)) == members(one_by_one(raws))
