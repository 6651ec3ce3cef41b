"""A glance at a line: who asks and who answers, and nothing judged that need not be."""

from __future__ import annotations

import pytest

from shadowcat.wire.glance import cancelled_id, early_id, glance, tells_or_asks


@pytest.mark.parametrize(
    ("line", "asks", "answers"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"a"}', [1], [None]),
        (b'{"method":"a","params":{"id":5},"jsonrpc":"2.0","id":"x"}', ["x"], [None]),
        (b'{"jsonrpc":"2.0","method":"a"}', [None], [None]),
        (b'{"jsonrpc":"2.0","id":0,"result":{}}', [None], [0]),
        (b'{"jsonrpc":"2.0","id":null,"error":{}}', [None], [None]),
        (
            b' [{"jsonrpc":"2.0","id":1,"method":"a"}, {"jsonrpc":"2.0","id":1,"result":1}]',
            [1, None],
            [None, 1],
        ),
        # Not JSON, and passed on by peers that understand each other.
        (b'{"jsonrpc":"2.0","id":1,"result":NaN}', [None], [1]),
        (b'{"jsonrpc":"2.0","id":1,"result":"\\ud83d"}', [None], [1]),
        (b'[{"jsonrpc":"2.0","id":1,"result":"\\ud83d"}]', [None], [1]),
    ],
)
def test_a_message(line: bytes, asks: list[object], answers: list[object]) -> None:
    found = glance(line)
    assert ([one.asks for one in found], [one.answers for one in found]) == (asks, answers)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"3",
        b"null",
        b"[]",
        b"[3]",
        b"{}",
        b'{"jsonrpc":"1.0","id":1,"method":"a"}',
        b'{"jsonrpc":"2.0","id":1,"method":"a"',
        b'{"jsonrpc":"2.0","id":{},"method":"a"}',
        b'\xff\xfe{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000,
        b'[{"jsonrpc":"2.0","id":1,"result":1},{"level":"info"}]',
    ],
)
def test_no_message(line: bytes) -> None:
    assert list(glance(line)) == []


@pytest.mark.parametrize(
    ("line", "id"),
    [
        (b'{"method":"notifications/cancelled","params":{"requestId":7,"reason":"x"}}', 7),
        (b'{"method":"notifications/cancelled","params":{"requestId":"7"}}', "7"),
        (b'{"method":"notifications/cancelled","params":{"requestId":[]}}', None),
        (b'{"method":"notifications/cancelled","params":{}}', None),
        (b'{"method":"notifications/cancelled"}', None),
    ],
)
def test_what_is_cancelled(line: bytes, id: object) -> None:
    assert cancelled_id(line) == id


@pytest.mark.parametrize(
    ("start", "id"),
    [
        (b'{"jsonrpc":"2.0","id":12,"result":"xxx', 12),
        (b'{ "id" : "a b" , "jsonrpc"', "a b"),
        (b'{"jsonrpc":"2.0","method":"tools/call","id":-3,', -3),
        (b'{"method":"tools/call","params":{"id":3,', None),
        (b'{"result":{},"id":3,', None),
        (b'{"jsonrpc":"2.0","id":12', None),
        (b'{"jsonrpc":"2.0","id":"a\\"b",', None),
    ],
)
def test_the_id_of_what_is_broken(start: bytes, id: object) -> None:
    assert early_id(start) == id


@pytest.mark.parametrize(
    ("broken", "is_no_answer"),
    [
        (b'{"jsonrpc":"2.0","method":"a","method":"b"}', True),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"result":NaN}}', True),
        (b'{"id":1,"method" : "a', True),
        (b'{"id":1,"result":{"method":"a"},"result":1}', False),
        (b'{"id":1,"error":{"data":{"method":"a"}}', False),
        (b'{"id":1,"extra":"method","result":NaN}', False),
        (b"hello", False),
    ],
)
def test_what_is_broken_and_was_no_answer(broken: bytes, is_no_answer: bool) -> None:
    assert tells_or_asks(broken) is is_no_answer
