"""Looking at tapes: listed, shown, followed, checked, compared, exported."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from shadowcat.app.tapes import diff_tapes, export_har, list_tapes, show_tape, verify_tape
from shadowcat.core.exchange import PASS
from shadowcat.replay.files import TapeFile, tapes_in
from shadowcat.wire import jsonrpc
from shadowcat.wire.tape import TapeError, encode_frame, encode_head
from tests.plugins.recording.kit import DOWN, Traffic, answer, call, context, recording
from tests.rig.wait import until


def talk(traffic: Traffic, *texts: str) -> None:
    for number, text in enumerate(texts, 1):
        request = traffic.ask(call(number, text=text))
        traffic.tell(jsonrpc.notification("notifications/message", {"data": text}), request)
        traffic.tell(answer(request, said=text.upper()), request)


def written(traffic: Traffic, count: int) -> None:
    asyncio.run(until(lambda: traffic.recorder.statistics().recorded == count))


def tape_of(directory: Path, *texts: str, **options: Any) -> Path:
    with recording(directory, **options) as traffic:
        talk(traffic, *texts)
    return directory


def differences(a: Path, b: Path, *ignore: str) -> list[str]:
    return list(diff_tapes(str(a), str(b), ignore=ignore, strict=False))


# list


def test_list(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        talk(traffic, "a", "b")
        request = traffic.ask(call(3))
        traffic.tell(jsonrpc.error(3, {"code": -1, "message": "no"}), request)
        request = traffic.ask(call(4))
        traffic.tell(answer(request, isError=True), request)
    [row] = list_tapes(str(tmp_path))
    names = ("messages", "requests", "errors", "tool_errors", "sessions", "missing", "end")
    assert {name: row[name] for name in names} == {
        "messages": 10, "requests": 4, "errors": 1, "tool_errors": 1, "sessions": 1, "missing": 0, "end": "clean",
    }  # fmt: skip


def test_list_says_how_each_ends(tmp_path: Path) -> None:
    with recording(tmp_path, part_bytes=2_000, total_bytes=100_000) as traffic:
        for number, text in enumerate("abcdefgh", 1):
            talk(traffic, text)
            written(traffic, 3 * number)
    ends = [row["end"] for row in list_tapes(str(tmp_path))]
    assert ends == ["continued"] * (len(ends) - 1) + ["clean"]
    assert len(ends) > 2
    last = tapes_in(tmp_path)[-1]
    with last.open("ab") as file:
        file.write(b'{"seq":99,')
    (tmp_path / "other.tape").write_bytes(b"\x7fELF\x00" * 1_000)
    with recording(tmp_path) as traffic:
        talk(traffic, "x")
        rows = {row["file"]: row for row in list_tapes(str(tmp_path))}
    assert rows[last.name]["end"] == "torn"
    assert "no tape" in rows["other.tape"]["unreadable"]
    assert [row["end"] for row in rows.values() if "end" in row].count("being written") == 1
    for path in tmp_path.glob("*.json"):
        path.unlink()
    assert "not ended" in [row.get("end") for row in list_tapes(str(tmp_path))]


# show


def test_show(tmp_path: Path) -> None:
    head, *lines = show_tape(str(tape_of(tmp_path, "a\x1b[31m", "b")))
    assert head.startswith("# recording ")
    assert "in front of main (http)" in head
    assert len(lines) == 6
    assert "-> tools/call t id=1" in lines[0]
    assert "<- notifications/message" in lines[1]
    assert "<- result to tools/call t id=1" in lines[2]
    assert not any("\x1b" in line for line in lines)


def test_a_tool_that_failed_is_told_from_one_that_did_not(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        for number, failed in enumerate((True, False), 1):
            request = traffic.ask(call(number))
            traffic.tell(answer(request, isError=failed, content=[{"text": '"isError":true'}]), request)
    _, *lines = show_tape(str(tmp_path))
    assert ["[tool error]" in line for line in lines] == [False, True, False, False]


def test_what_a_message_says_comes_before_its_meta(tmp_path: Path) -> None:
    """Which goes first in what SDKs write, and is longer than the line."""
    with recording(tmp_path) as traffic:
        request = traffic.ask(call(1))
        traffic.tell(answer(request, _meta={"x": "y" * 500}, content="what is said"), request)
    [*_, shortened] = show_tape(str(tmp_path))
    assert shortened.endswith('{"content":"what is said"}')
    [*_, whole] = show_tape(str(tmp_path), unshortened=True)
    assert '"_meta"' in whole


def test_what_can_be_read_in_two_ways_is_shown_as_it_is(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        request = traffic.ask(call(1))
        traffic.tell(
            jsonrpc.parse(b'{"jsonrpc":"2.0","id":1,"result":{"_meta":1,"_meta":{"isError":1}}}'), request
        )
    [*_, shown] = show_tape(str(tmp_path))
    assert shown.endswith('{"_meta":1,"_meta":{"isError":1}}')


def test_a_request_that_can_be_read_in_two_ways_hides_no_other(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        params = b'{"name":"t","arguments":{"a":1,"a":2}}'
        traffic.ask(jsonrpc.parse(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % params))
        talk(traffic, "after it")
    _, shown, *others = show_tape(str(tmp_path))
    assert shown.endswith(f"tools/call id=1 {params.decode()}")
    assert len(others) == 3
    [_, told] = show_tape(str(tmp_path), session="nobody")
    assert told.startswith("# none of 4 messages")


def test_show_of_one_session_and_method(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        talk(traffic, "a")
        other = traffic.ask(jsonrpc.request(5, "tools/list"))
        traffic.tell(answer(other, tools=[]), other)
    shown = list(show_tape(str(tmp_path), method="tools/list"))[1:]
    assert [line.split(" -")[-1] for line in shown] != []
    assert len(shown) == 2
    assert len(list(show_tape(str(tmp_path), method="tools/call"))) == 4
    [_, told] = show_tape(str(tmp_path), method="tools/cal")
    assert told == "# none of 5 messages; the methods on it: notifications/message, tools/call, tools/list"
    [_, told] = show_tape(str(tmp_path), session="nobody")
    assert told.startswith("# none of 5 messages")


def test_a_long_message_is_shortened_unless_asked(tmp_path: Path) -> None:
    tape_of(tmp_path, "x" * 2_000)
    assert max(map(len, show_tape(str(tmp_path)))) < 400
    assert max(map(len, show_tape(str(tmp_path), unshortened=True))) > 2_000


def test_follow_goes_on_from_part_to_part_until_it_is_ended(tmp_path: Path) -> None:
    shown: list[str] = []
    several = threading.Event()

    def follow() -> None:
        for line in show_tape(str(tmp_path), follow=True):
            shown.append(line)
            if len(shown) > 3:
                several.set()

    with recording(tmp_path, part_bytes=2_000, total_bytes=1_000_000) as traffic:
        thread = threading.Thread(target=follow)
        talk(traffic, "a")
        thread.start()
        talk(traffic, "b")
        assert several.wait(20)
        for number, text in enumerate("cdefgh", 3):
            talk(traffic, text)
            written(traffic, 3 * number)
    thread.join(20)
    assert not thread.is_alive()
    assert len([line for line in shown if not line.startswith("#")]) == 24
    assert len([line for line in shown if line.startswith("#")]) == len(tapes_in(tmp_path)) > 1


# verify


def test_verify(tmp_path: Path) -> None:
    found = verify_tape(str(tape_of(tmp_path, "a", "password=hunter2")))
    assert (found.told, found.complaints) == ("6 messages, 3 of them redacted", [])


def test_verify_finds_what_is_missing_torn_and_secret(tmp_path: Path) -> None:
    tape_of(tmp_path, "a", "b")
    [path] = tapes_in(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    secret = lines[2].replace(b'"data":"a"', b'"token":"hunter2"')
    assert secret != lines[2]
    path.write_bytes(b"".join([*lines[:2], secret, *lines[4:], b'{"seq":8']))
    assert list(verify_tape(str(path)).complaints) == [
        "message 2 holds what looks like a secret",
        f"{path.name}: its last line is torn",
        "1 message is missing",
    ]


def test_verify_says_that_a_recording_was_not_ended(tmp_path: Path) -> None:
    tape_of(tmp_path, "a")
    [sidecar] = tmp_path.glob("*.json")
    written = json.loads(sidecar.read_bytes())
    sidecar.write_text(json.dumps({**written, "ended": None}))
    found = verify_tape(str(tmp_path))
    assert "the recording was not ended" in found.told
    assert found.complaints == []


def test_a_line_that_is_damaged_is_named(tmp_path: Path) -> None:
    tape_of(tmp_path, "a")
    [path] = tapes_in(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:50] + b"\n" + lines[2])
    with pytest.raises(TapeError, match="line 2"):
        verify_tape(str(path))


def test_a_ring_has_gaps(tmp_path: Path) -> None:
    with recording(tmp_path, ring_s=60.0, ring_bytes=3_000) as traffic:
        talk(traffic, *"abc")
        request = traffic.ask(call(9))
        traffic.tell(jsonrpc.error(9, {"code": -1, "message": "no"}), request)
        talk(traffic, *"abcdefgh")
        request = traffic.ask(call(10))
        traffic.tell(jsonrpc.error(10, {"code": -1, "message": "no"}), request)
    assert verify_tape(str(tmp_path)).complaints == []


# diff


def test_no_difference(tmp_path: Path) -> None:
    a, b = tape_of(tmp_path / "a", "x", "y"), tape_of(tmp_path / "b", "x", "y")
    assert differences(a, b) == []


def test_differences_are_named(tmp_path: Path) -> None:
    a = tape_of(tmp_path / "a", "x", "y", "z")
    with recording(tmp_path / "b") as traffic:
        talk(traffic, "x")
        request = traffic.ask(call(2, text="y"))
        traffic.tell(answer(request, said="why?"), request)
        traffic.ask(jsonrpc.request(3, "prompts/list"))
    assert differences(a, tmp_path / "b") == [
        'session 1 tools/call t /result/said: first "Y", second "why?"',
        "session 1 server's notifications/message: only in the first",
        "session 1 tools/call t: only in the first",
        "session 1 server's notifications/message: only in the first",
        "session 1 prompts/list: only in the second",
    ]
    assert 'session 1 tools/call t /result/said: first "Y", second "why?"' not in differences(
        a, tmp_path / "b", "/result/said"
    )


def test_parameters_that_differ_are_named(tmp_path: Path) -> None:
    a, b = tape_of(tmp_path / "a", "x", "y"), tape_of(tmp_path / "b", "x", "z")
    assert differences(a, b)[0] == 'session 1 tools/call t /params/arguments/text: first "y", second "z"'


def test_calls_that_ran_at_once_may_end_in_any_order(tmp_path: Path) -> None:
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        with recording(tmp_path / name) as traffic:
            requests = [
                traffic.ask(call(number, number=number)) for number in (order if name == "b" else range(3))
            ]
            for index in order:
                traffic.tell(
                    answer(requests[index], number=requests[index].params()["arguments"]), requests[index]
                )
    assert differences(tmp_path / "a", tmp_path / "b") == []


# export


def test_an_archive(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        request = traffic.ask(call(1))
        traffic.tell(jsonrpc.notification("notifications/progress", {"progress": 1}), request)
        traffic.tell(answer(request), request)
        request = traffic.ask(call(2))
        traffic.tell(answer(request), request)
        traffic.ask(call(3))
    log = json.loads(b"".join(export_har(str(tmp_path))))["log"]
    streamed, plain = log["entries"]
    assert log["version"] == "1.2"
    assert streamed["response"]["content"]["mimeType"] == "text/event-stream"
    assert streamed["response"]["content"]["text"].count("data: ") == 2
    assert json.loads(plain["response"]["content"]["text"])["id"] == 2
    assert json.loads(plain["request"]["postData"]["text"])["method"] == "tools/call"
    assert plain["time"] >= 0


# What is no tape.


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no tape"),
        (os.urandom(1024) * 100, "no tape"),
        (b'{"format":"shadowcat tape","version":"9.0","started":0}\n', r"version 9\.0"),
        (None, "there is no tape"),
    ],
)
def test_what_is_no_tape(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "x.tape"
    if content is not None:
        path.write_bytes(content)
    for look in (show_tape, export_har):
        with pytest.raises(TapeError, match=told):
            list(look(str(path)))
    with pytest.raises(TapeError, match=told):
        verify_tape(str(path))


def test_a_directory_with_several_recordings(tmp_path: Path) -> None:
    tape_of(tmp_path, "a")
    tape_of(tmp_path, "a")
    with pytest.raises(TapeError, match="2 recordings; name one"):
        list(show_tape(str(tmp_path)))
    one = tapes_in(tmp_path)[0]
    assert list(show_tape(str(one))) == list(show_tape(str(one).removesuffix("-0001.tape")))


def test_memory_does_not_grow_with_the_tape(tmp_path: Path) -> None:
    """Twice the tape, the same memory: each of the tools reads on and forgets."""
    import tracemalloc

    with recording(tmp_path / "seed") as traffic:
        talk(traffic, "word " * 100)
    [seed] = tapes_in(tmp_path / "seed")
    with TapeFile(seed) as file:
        head, frames = file.head, list(file)
    peaks: list[list[int]] = []
    for count in (510, 1_020):
        path = tmp_path / f"{count}.tape"
        with path.open("wb") as out:
            out.write(encode_head(head))
            for number in range(count):
                for frame in frames:
                    frame.seq += 3 if number else 0
                    frame.request = frame.request and frame.seq - (frame.seq - 1) % 3
                    out.write(encode_frame(frame))
        for frame in frames:
            frame.seq = (frame.seq - 1) % 3 + 1
        found: list[int] = []
        looks = (
            lambda path=path: sum(1 for _ in show_tape(str(path))),
            lambda path=path: verify_tape(str(path)),
            lambda path=path: sum(1 for _ in diff_tapes(str(path), str(path), ignore=(), strict=False)),
            lambda path=path: sum(len(piece) for piece in export_har(str(path))),
        )
        for look in looks:
            tracemalloc.start()
            look()
            found.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        peaks.append(found)
    small, large = peaks
    # The timeline remembers the methods of the last requests, and a comparison looks some of them ahead.
    assert all(big < little * 1.3 + 300_000 for little, big in zip(small, large, strict=True)), peaks


def test_a_recording_that_failed_is_shown_as_what_the_client_got(tmp_path: Path) -> None:
    from shadowcat.errors import Fault, FaultKind

    with recording(tmp_path) as traffic:
        request = call(1)
        traffic.recorder.saw(request, context(DOWN), PASS)
        traffic.recorder.failed(context(DOWN, request), Fault(FaultKind.DEADLINE))
    assert "[failed]" in list(show_tape(str(tmp_path)))[-1]


# What is no tape of ours.


FORGED = "\x1b[31mforged\nline\u202e"


def forged(path: Path, **head: Any) -> Path:
    params = {"name": FORGED, "arguments": {}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    frame = {
        "seq": 1, "ms": 0.0, "at": 1.0, "direction": "to_server", "era": "legacy", "session": FORGED,
        "kind": "request", "method": "tools/call", "message": message,
    }  # fmt: skip
    first = {"format": "shadowcat tape", "version": "1.0", "started": 1.0, "program": FORGED, **head}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (first, frame)))
    return path


def test_what_peers_wrote_cannot_forge_a_line(tmp_path: Path) -> None:
    tape, empty = forged(tmp_path / "a.tape"), tmp_path / "b.tape"
    empty.write_bytes(tape.read_bytes().splitlines(keepends=True)[0])
    shown = list(show_tape(str(tape)))
    followed = list(show_tape(str(tape), follow=True))
    lines = [*shown, *followed, *differences(tape, empty)]
    assert len(lines) == 5
    assert all("forged" in line and line.isprintable() for line in lines), lines


def test_a_time_that_is_none(tmp_path: Path) -> None:
    tape = forged(tmp_path / "a.tape")
    tape.write_bytes(tape.read_bytes().replace(b'"at": 1.0', b'"at": 1e300'))
    [row] = list_tapes(str(tape))
    assert "$.at" in row["unreadable"]
    with pytest.raises(TapeError, match="no tape"):
        TapeFile(forged(tmp_path / "b.tape", started=-1.0))


@pytest.mark.parametrize("version", ["²", "9" * 5_000])
def test_a_version_that_is_none(tmp_path: Path, version: str) -> None:
    with pytest.raises(TapeError, match="which is none"):
        TapeFile(forged(tmp_path / "a.tape", version=version))


def test_follow_holds_no_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadowcat.replay.timeline.MAX_LINE_BYTES", 1_000)
    tape = forged(tmp_path / "a.tape")
    with tape.open("ab") as file:
        file.write(b"x" * 1_001)
    with pytest.raises(TapeError, match="longer than any"):
        list(show_tape(str(tape), follow=True))
