"""Lines that are filled in and lines that are encoded are the same lines; a secret is in neither."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.redact import Redactor
from shadowcat.plugins.recording.entry import Entry, facts_of
from shadowcat.plugins.recording.frames import Framer
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.tape import REPLACED, Tape, encode_frame
from tests.plugins.recording.kit import answer, call, entry

SECRET = call(9, password="hunter2")
messages = st.one_of(
    st.builds(call, st.integers(1, 2**53), text=st.text()),
    st.builds(answer, st.just(call(3)), text=st.text()),
    st.builds(jsonrpc.notification, st.text(min_size=1, max_size=200), st.just({})),
    st.sampled_from(
        [b'{"jsonrpc":"2.0","id":1,\n"method":"m"}', b'{"jsonrpc": "2.0", "id": 1, "result": {}}']
    ).map(jsonrpc.parse),
)
passed = st.builds(
    entry,
    st.integers(1, 10**9),
    messages,
    at_s=st.floats(100, 10**8),
    to_server=st.booleans(),
    status=st.sampled_from([200, 404]),
    request=st.none() | st.integers(0, 10**9),
)


def lines_of(entries: Sequence[Entry]) -> list[bytes]:
    made = Framer(Redactor(), 100.0, b"key").lines(entries, 1_750_000_000.0)
    assert made.frames == len(entries)
    return made.data.splitlines(keepends=True)


@given(st.lists(passed, min_size=1, max_size=4))
def test_a_line_is_what_its_frame_is_encoded_as(entries: Sequence[Entry]) -> None:
    for one, line in zip(entries, lines_of(entries), strict=True):
        frame = Tape.read(line)
        assert json.loads(encode_frame(frame)) == json.loads(line)
        assert (frame.raw, frame.seq, frame.request) == (one.raw, one.seq, one.request)
        facts = facts_of(one.facts)
        assert (frame.method, frame.kind, frame.status) == (one.method, facts.kind, facts.status)
        assert frame.direction == ("to_server" if facts.to_server else "to_client")
        assert frame.ms == round((one.at_s - 100) * 1_000, 3)
        assert frame.at == round(one.at_s + 1_750_000_000, 3)


def test_one_message_with_a_secret_among_others() -> None:
    clean = call(1, text="nothing")
    entries = [entry(seq, message) for seq, message in enumerate([clean, SECRET, clean], 1)]
    made = Framer(Redactor(), 100.0, b"key").lines(entries, 0.0)
    frames = [Tape.read(line) for line in made.data.splitlines(keepends=True)]
    assert [frame.redacted for frame in frames] == [False, True, False]
    assert made.redacted == 1
    assert b"hunter2" not in made.data
    assert (frames[0].raw, frames[2].raw) == (clean.raw, clean.raw)


@pytest.mark.parametrize(
    "raw", [b'{"password":"hunter2"}', b'{"jsonrpc":"2.0","method":"m",\n"token":"hunter2"}']
)
def test_what_an_interceptor_made_is_written_without_secrets_whatever_it_is(raw: bytes) -> None:
    [line] = lines_of([entry(1, call(1), became=(REPLACED, raw))])
    assert b"hunter2" not in line
    assert line.count(b"\n") == 1


def test_forms_are_told_apart() -> None:
    """Direction, session, upstream, kind and method are each in the line that has them."""
    kinds: list[tuple[bool, Message]] = [
        (to_server, message) for to_server in (True, False) for message in (call(1), answer(call(1)))
    ]
    frames = [
        Tape.read(line)
        for line in lines_of([entry(1, message, to_server=to_server) for to_server, message in kinds])
    ]
    assert [(frame.direction, frame.kind, frame.method) for frame in frames] == [
        ("to_server", "request", "tools/call"),
        ("to_server", "result", ""),
        ("to_client", "request", "tools/call"),
        ("to_client", "result", ""),
    ]


@pytest.mark.parametrize("place", [{"session_id": "other"}, {"upstream": "other"}, {"legacy": False}])
def test_places_are_told_apart(place: dict[str, Any]) -> None:
    here, there = (Tape.read(line) for line in lines_of([entry(1, call(1)), entry(1, call(1), **place)]))
    assert (here.session, here.upstream, here.era) != (there.session, there.upstream, there.era)
