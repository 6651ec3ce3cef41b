"""Lines that are filled in and lines that are encoded are the same lines; a secret is in neither."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.exchange import PASS, Context, Direction
from shadowcat.core.redact import Redactor
from shadowcat.plugins.recording.entry import Entry
from shadowcat.plugins.recording.frames import Framer
from shadowcat.plugins.recording.links import Linked
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.tape import Tape, encode_frame
from tests.plugins.recording.kit import DOWN, UP, answer, call, context

SECRET = call(9, password="hunter2")
messages = st.one_of(
    st.builds(call, st.integers(1, 2**53), text=st.text()),
    st.builds(answer, st.just(call(3)), text=st.text()),
    st.builds(jsonrpc.notification, st.text(min_size=1, max_size=200), st.just({})),
    st.sampled_from(
        [b'{"jsonrpc":"2.0","id":1,\n"method":"m"}', b'{"jsonrpc": "2.0", "id": 1, "result": {}}']
    ).map(jsonrpc.parse),
)
contexts = st.builds(
    context, st.sampled_from([UP, DOWN]), st.none() | st.just(SECRET), status=st.sampled_from([200, 404])
)
passed = st.builds(
    Linked,
    st.builds(
        Entry,
        seq=st.integers(1, 10**9),
        at_s=st.floats(100, 10**8),
        context=contexts,
        message=messages,
        outcome=st.just(PASS),
        size=st.just(600),
    ),
    st.none() | st.integers(0, 10**9),
    st.just(0.0),
)


def lines_of(linked: Sequence[Linked]) -> list[bytes]:
    made = Framer(Redactor(), 100.0).lines(linked, 1_750_000_000.0)
    assert made.frames == len(linked)
    return made.data.splitlines(keepends=True)


@given(st.lists(passed, min_size=1, max_size=4))
def test_a_line_is_what_its_frame_is_encoded_as(linked: Sequence[Linked]) -> None:
    for one, line in zip(linked, lines_of(linked), strict=True):
        frame, entry = Tape.read(line), one.entry
        assert encode_frame(frame) == line
        assert entry.message is not None
        assert (frame.raw, frame.seq, frame.request) == (entry.message.raw, entry.seq, one.request)
        assert (frame.method, frame.kind) == (entry.message.method, entry.message.kind.value)
        assert (frame.direction, frame.status) == (entry.context.direction.value, entry.context.status)
        assert frame.ms == round((entry.at_s - 100) * 1_000, 3)
        assert frame.at == round(entry.at_s + 1_750_000_000, 3)


def entry_of(seq: int, message: Message, where: Context) -> Linked:
    return Linked(Entry(seq, 101.0, where, message, PASS, 600), None, 0.0)


def test_one_message_with_a_secret_among_others() -> None:
    clean = call(1, text="nothing")
    linked = [entry_of(seq, message, context(UP)) for seq, message in enumerate([clean, SECRET, clean], 1)]
    made = Framer(Redactor(), 100.0).lines(linked, 0.0)
    frames = [Tape.read(line) for line in made.data.splitlines(keepends=True)]
    assert [frame.redacted for frame in frames] == [False, True, False]
    assert made.redacted == 1
    assert b"hunter2" not in made.data
    assert (frames[0].raw, frames[2].raw) == (clean.raw, clean.raw)


def test_forms_are_told_apart() -> None:
    """Direction, session, upstream, kind and method are each in the line that has them."""
    places = [context(direction) for direction in (Direction.TO_SERVER, Direction.TO_CLIENT)]
    linked = [entry_of(1, message, where) for where in places for message in (call(1), answer(call(1)))]
    frames = [Tape.read(line) for line in lines_of(linked)]
    assert [(frame.direction, frame.kind, frame.method) for frame in frames] == [
        ("to_server", "request", "tools/call"),
        ("to_server", "result", ""),
        ("to_client", "request", "tools/call"),
        ("to_client", "result", ""),
    ]
