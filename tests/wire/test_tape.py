"""The format of tapes: written and read again, torn, of another version, no tape at all."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from shadowcat.wire import jsonrpc, tape
from shadowcat.wire.tape import Frame, Head, Tape, TapeError, encode_frame, encode_head, line_form

HEAD = Head(format=tape.FORMAT, version=tape.VERSION, started=1_750_000_000.25)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def frame(seq: int = 1, raw: bytes = b'{"jsonrpc":"2.0","method":"m"}', **more: object) -> Frame:
    known: dict[str, object] = {
        "ms": 1.5,
        "at": 1_750_000_000.25,
        "direction": tape.TO_SERVER,
        "era": "legacy",
        "kind": "notification",
        "method": "m",
        **({"message": Raw(raw)} if raw else {}),
    }
    return Frame(seq=seq, **{**known, **more})  # type: ignore[arg-type]


def read(data: bytes) -> tuple[Tape, list[Frame]]:
    found = Tape(data.splitlines(keepends=True))
    return found, list(found)


@given(st.lists(json_values, max_size=5))
def test_what_was_written_is_read_byte_for_byte(values: list[object]) -> None:
    raws = [jsonrpc.notification("m", {"value": value}).raw for value in values]
    frames = [frame(seq, raw) for seq, raw in enumerate(raws, 1)]
    found = Tape((encode_head(HEAD), *map(encode_frame, frames)))
    again = list(found)
    assert found.head == HEAD
    assert again == frames
    assert [one.raw for one in again] == raws
    assert all(encode_frame(one).count(b"\n") == 1 for one in frames)


def test_white_space_and_spelling_survive() -> None:
    raw = b'{ "jsonrpc":"2.0", "method":"m","params":{"n":1.0,"big":9007199254740993,"s":"\\u00e9"}}'
    _, [again] = read(encode_head(HEAD) + encode_frame(frame(raw=raw)))
    assert again.raw == again.parsed().raw == raw


def test_a_message_of_several_lines_is_a_text() -> None:
    raw = b'{\r\n  "jsonrpc": "2.0",\n  "method": "m"\n}'
    assert tape.has_line_breaks(raw)
    line = encode_frame(frame(raw=b"", text=raw.decode()))
    assert line.count(b"\n") == 1
    _, [again] = read(encode_head(HEAD) + line)
    assert again.raw == raw


@given(st.integers(0, 3), st.data())
def test_whatever_of_the_last_line_is_there_all_before_it_is_read(whole: int, data: st.DataObject) -> None:
    lines = [encode_frame(frame(seq)) for seq in range(1, whole + 2)]
    cut = data.draw(st.integers(1, len(lines[-1]) - 2))
    found, frames = read(encode_head(HEAD) + b"".join(lines[:-1]) + lines[-1][:cut])
    assert [one.seq for one in frames] == list(range(1, whole + 1))
    assert found.is_torn


def test_a_whole_tape_is_not_torn() -> None:
    found, frames = read(encode_head(HEAD) + encode_frame(frame()))
    assert (len(frames), found.is_torn) == (1, False)


def test_a_damaged_line_in_the_middle_is_named() -> None:
    with pytest.raises(TapeError, match="line 2"):
        read(encode_head(HEAD) + b'{"seq":1,\n' + encode_frame(frame(2)))


def test_members_of_later_versions_are_passed_over() -> None:
    head = {**msgspec.to_builtins(HEAD), "version": "1.7", "weather": "fair"}
    line = encode_frame(frame()).replace(b'{"seq"', b'{"mood":"good","seq"')
    found, [again] = read(msgspec.json.encode(head) + b"\n" + line)
    assert (found.head.version, again.seq) == ("1.7", 1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"", "no tape"),
        (b"\n", "no tape"),
        (b"\xff\xfe\n", "no tape"),
        (b"[]\n", "no tape"),
        (b'{"format":"other","version":"1.0","started":1}\n', "no tape but 'other'"),
        (b'{"format":"shadowcat tape","version":"x","started":1}\n', "which is none"),
        (b'{"format":"shadowcat tape","version":"0.9","started":1}\n', "which is none"),
        (
            b'{"format":"shadowcat tape","version":"2.0","started":1}\n',
            r"of version 2\.0; this program reads 1",
        ),
    ],
)
def test_what_is_no_tape_is_said(line: bytes, told: str) -> None:
    with pytest.raises(TapeError, match=told):
        Tape([line])


def test_a_message_that_is_none_is_named() -> None:
    with pytest.raises(TapeError, match="message 7"):
        frame(7, b'{"jsonrpc":"2.0"}').parsed()


def test_what_was_delivered() -> None:
    other = b'{"jsonrpc":"2.0","method":"other"}'
    assert frame().delivered().raw == frame().raw  # type: ignore[union-attr]
    assert frame(outcome=tape.REPLACED, became=Raw(other)).delivered().raw == other  # type: ignore[union-attr]
    assert frame(outcome=tape.REJECTED, became=Raw(b"{}")).delivered() is None


texts = st.text(max_size=8) | st.sampled_from(
    ['%d,"seq":0,', ',"request":0,', ',"message":0', "%%b", '"ms":0.0']
)
thousandths = st.integers(0, 10**18 - 1).map(lambda count: round(count / 1_000, 3))


@given(
    like=st.fixed_dictionaries({"session": texts, "upstream": texts, "method": texts, "era": texts}),
    request=st.none() | st.integers(0, 2**53),
    seq=st.integers(1, 2**53),
    ms=thousandths,
    at=thousandths,
    value=json_values,
)
def test_a_form_that_is_filled_is_the_line_of_the_frame(
    like: dict[str, Any], request: int | None, seq: int, ms: float, at: float, value: object
) -> None:
    raw = msgspec.json.encode(value)
    form = line_form(frame(request=None if request is None else 7, **like))
    filled = form % ((seq, ms, at, raw) if request is None else (seq, ms, at, request, raw))
    whole = encode_frame(frame(seq, raw, ms=ms, at=at, request=request, **like))
    # Times have zeros at their ends.
    assert json.loads(filled) == json.loads(whole)
    assert raw in filled
    assert filled.count(b"\n") == 1
