"""What passes is on the tape, in order, linked; what does not fit is counted; trouble with the disk is no trouble."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from shadowcat.clock import ManualClock
from shadowcat.core.exchange import PASS, Reject, Replace, Reply
from shadowcat.errors import Fault, FaultKind
from shadowcat.plugins.recording import feed
from shadowcat.plugins.recording.entry import Batch, Progress, Setup
from shadowcat.plugins.recording.gathered import Gathered
from shadowcat.plugins.recording.helper import Helper
from shadowcat.plugins.recording.links import Links
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.recorder import Recorder
from shadowcat.plugins.recording.scribe import Scribe
from shadowcat.plugins.recording.session import RecordedSession
from shadowcat.replay.files import tapes_in
from shadowcat.wire import jsonrpc, tape
from shadowcat.wire.tape import FORMAT, VERSION, Head, Sidecar
from tests.plugins.recording.kit import DOWN, SESSION, UP, answer, call, context, entry, frames_in, recording
from tests.rig.wait import until

HEAD = Head(format=FORMAT, version=VERSION, started=0.0, recording="20260302T101500Z-5f2c81")
NO = Fault(FaultKind.REFUSED_BY_RULE)


def sidecar_in(directory: Path) -> Sidecar:
    [path] = directory.glob("*.json")
    return msgspec.json.decode(path.read_bytes(), type=Sidecar)


def test_what_passes_is_on_the_tape(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        request = traffic.ask(call(7, x=1))
        traffic.tell(jsonrpc.notification("notifications/progress", {"progress": 1}), request)
        traffic.tell(answer(request, ok=True), request)
        traffic.tell(jsonrpc.notification("notifications/tools/list_changed"))
    asked, progress, answered, changed = frames_in(tmp_path)
    assert [frame.seq for frame in (asked, progress, answered, changed)] == [1, 2, 3, 4]
    assert [frame.request for frame in (asked, progress, answered, changed)] == [None, 1, 1, None]
    assert (asked.raw, asked.direction, asked.era, asked.upstream) == (
        request.raw,
        "to_server",
        "legacy",
        "main",
    )
    assert (answered.kind, answered.direction) == ("result", "to_client")
    assert asked.session == changed.session
    assert SESSION not in tapes_in(tmp_path)[0].read_text()
    assert asked.ms <= answered.ms


def test_the_sidecar_says_how_it_went(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        assert sidecar_in(tmp_path).ended is None
        traffic.exchange()
    found = sidecar_in(tmp_path)
    assert found.ended is not None
    assert (found.messages, found.dropped, found.clients, found.upstreams) == (2, 0, "http", {"main": "http"})
    assert [part.frames for part in found.parts] == [2]


def test_a_recording_of_nothing_leaves_no_file(tmp_path: Path) -> None:
    with recording(tmp_path):
        assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.iterdir())


def test_a_ring_that_held_what_went_well_leaves_no_file(tmp_path: Path) -> None:
    with recording(tmp_path, ring_s=10.0) as traffic:
        traffic.exchange()
    assert not list(tmp_path.iterdir())


def test_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    directory = tmp_path / "of" / "mine"
    with recording(directory) as traffic:
        traffic.exchange()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("verdict", "outcome", "became"),
    [
        (
            Replace(call(1, password="hunter2")),
            tape.REPLACED,
            {"arguments": {"password": "[redacted]"}, "name": "t"},
        ),
        (Reply(jsonrpc.result(1, {"r": 1})), tape.REPLIED, {"r": 1}),
        (Reject(NO), tape.REJECTED, NO.error()),
    ],
)
def test_what_became_of_it_is_on_the_tape(tmp_path: Path, verdict: Any, outcome: str, became: Any) -> None:
    with recording(tmp_path) as traffic:
        request = call(1)
        traffic.recorder.saw(request, context(UP), verdict)
        if isinstance(verdict, Replace):
            # What comes back is an answer to what went up.
            traffic.tell(answer(request), verdict.message)
    frame, *rest = frames_in(tmp_path)
    found = json.loads(bytes(frame.became))
    assert frame.outcome == outcome
    assert became in (found, found.get("params"), found.get("result"))
    assert [one.request for one in rest] == ([1] if outcome == tape.REPLACED else [])


def test_what_is_told_by_session_is_what_would_be_told_of_each_message(tmp_path: Path) -> None:
    request, told = call(7, x=1), {"code": -32000, "message": "no"}
    for name in ("each", "session"):
        with recording(tmp_path / name, ManualClock()) as traffic:
            calls = traffic.recorder.of_session(context(UP))
            for reply in (answer(request, ok=True), jsonrpc.error(7, told)):
                if name == "each":
                    traffic.tell(reply, traffic.ask(request))
                else:
                    calls.asked(request)
                    calls.answered(reply, request)
    each, session = (
        [replace(frame, session="") for frame in frames_in(tmp_path / name)] for name in ("each", "session")
    )
    assert [(frame.seq, frame.request, frame.kind) for frame in session] == [
        (1, None, "request"),
        (2, 1, "result"),
        (3, None, "request"),
        (4, 3, "error"),
    ]
    assert session == each


def test_calls_told_by_session_keep_to_the_bounds(tmp_path: Path) -> None:
    with recording(tmp_path, queue_bytes=100_000) as traffic:
        calls = traffic.recorder.of_session(context(UP))
        for number in range(50):
            request = call(number, text="x" * 50_000)
            calls.asked(request)
            calls.answered(answer(request), request)
            assert traffic.recorder.statistics().held_bytes < 200_000
    statistics = traffic.recorder.statistics()
    assert statistics.dropped > 0
    assert statistics.recorded + statistics.dropped == 100


def test_an_answer_of_the_client_s_is_linked_to_the_question(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        question = jsonrpc.request("up", "roots/list")
        traffic.tell(question)
        traffic.recorder.saw(jsonrpc.result(5, {"roots": []}), context(UP, question), PASS)
        traffic.recorder.saw(jsonrpc.result(6, {}), context(UP), PASS)
    assert [frame.request for frame in frames_in(tmp_path)] == [None, 1, None]


def test_a_failure_is_what_the_client_was_told(tmp_path: Path) -> None:
    fault = Fault(FaultKind.OUTCOME_UNKNOWN, sent=True)
    with recording(tmp_path) as traffic:
        request = traffic.ask(call(3))
        traffic.recorder.failed(context(DOWN, request), fault)
        # Its end is told once.
        traffic.recorder.failed(context(DOWN, request), fault)
    _, frame = frames_in(tmp_path)
    assert (frame.outcome, frame.kind, frame.request) == (tape.FAILED, "error", 1)
    assert (frame.parsed().id, frame.parsed().error()) == (3, fault.error())


def test_what_belongs_to_a_request_that_is_not_on_the_tape(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        traffic.tell(answer(call(1)), call(1))
    assert [frame.request for frame in frames_in(tmp_path)] == [0]


def test_what_cannot_be_told_is_counted_and_spoils_nothing(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        traffic.exchange(1)
        with pytest.raises(UnicodeEncodeError):
            traffic.recorder.saw(call(2), replace(context(UP), upstream="\udc80"), PASS)
        traffic.exchange(2)
    assert [frame.seq for frame in frames_in(tmp_path)] == [1, 2, 4, 5]
    assert traffic.recorder.statistics().dropped == 1


def test_what_became_of_it_cannot_be_told(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        traffic.exchange(1)
        with pytest.raises(TypeError):
            traffic.recorder.saw(
                call(2), context(UP), Reject(Fault(FaultKind.FORBIDDEN, data={"x": object()}))
            )
        traffic.exchange(2)
    assert [frame.seq for frame in frames_in(tmp_path)] == [1, 2, 4, 5]
    assert traffic.recorder.statistics().dropped == 1


def test_what_cannot_be_told_by_session_is_counted_and_spoils_nothing(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        calls, request = traffic.recorder.of_session(context(UP)), call(1)
        calls.asked(request)
        with pytest.raises(UnicodeEncodeError):
            calls.asked(replace(call(2), method="\udc80"))
        with pytest.raises(TypeError):
            calls.answered(replace(answer(request), raw=object()), request)
        traffic.exchange(2)
    assert [frame.seq for frame in frames_in(tmp_path)] == [1, 4, 5]
    assert traffic.recorder.statistics().dropped == 2
    assert not traffic.recorder.statistics().held_bytes


def test_half_of_what_cannot_be_told_is_nowhere_to_be_taken() -> None:
    class Watched(Gathered):
        def leave_out(self) -> None:
            assert not self.buffer
            super().leave_out()

    def has_room(*_: object) -> bool:
        return gathered.has_room()

    gathered, request = Watched(10_000, lambda: None), call(1)
    calls = RecordedSession(context(UP), gathered, Links(), has_room, lambda: 1.0)
    with pytest.raises(TypeError):
        calls.asked(replace(request, raw=object()))
    with pytest.raises(TypeError):
        calls.answered(replace(answer(request), raw=object()), request)
    assert gathered.left_out == 2


def test_a_message_of_several_lines_takes_one(tmp_path: Path) -> None:
    raw = b'{\n  "jsonrpc": "2.0",\n  "method": "m"\n}'
    with recording(tmp_path) as traffic:
        traffic.tell(jsonrpc.parse(raw))
    [frame] = frames_in(tmp_path)
    assert frame.raw == raw


def test_secrets_are_cut_out_before_they_are_written(tmp_path: Path) -> None:
    with recording(tmp_path, redact_keys=("pin",)) as traffic:
        traffic.exchange(1, text="harmless")
        traffic.exchange(2, api_key="sk-abcdefghijklmnopqrstuv", my_pin="1234")
    frames = frames_in(tmp_path)
    assert [frame.redacted for frame in frames] == [False, False, True, False]
    arguments = frames[2].parsed().params()["arguments"]
    assert arguments == {"api_key": "[redacted]", "my_pin": "[redacted]"}
    assert sidecar_in(tmp_path).redacted == 1


def test_a_tape_is_readable_while_it_is_written(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        for number in range(1, 4):
            traffic.exchange(number)
            _until(lambda number=number: traffic.recorder.statistics().recorded == 2 * number)
            assert len(frames_in(tmp_path)) == 2 * number


def test_what_comes_too_fast_is_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with recording(tmp_path, queue_bytes=1024) as traffic:
        for number in range(500):
            traffic.exchange(number)
        recorder = traffic.recorder
        _until(lambda: recorder.statistics().held_bytes == 0)
        traffic.exchange(1_000)
    statistics = recorder.statistics()
    assert statistics.dropped >= 1
    assert statistics.recorded + statistics.dropped == 1_002
    frames = frames_in(tmp_path)
    assert len(frames) == statistics.recorded
    assert frames[-1].seq == 1_002
    told = [
        record.message
        for record in caplog.records
        if "behind" in record.message or "caught up" in record.message
    ]
    assert [text.split(":")[0] for text in told] == [
        "the recording falls behind",
        "the recording has caught up",
    ]


def test_the_queue_is_bounded_in_bytes(tmp_path: Path) -> None:
    with recording(tmp_path, queue_bytes=100_000) as traffic:
        for number in range(50):
            traffic.exchange(number, text="x" * 50_000)
            assert traffic.recorder.statistics().held_bytes < 200_000
    assert traffic.recorder.statistics().dropped > 0


def test_a_directory_that_goes_and_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory, aside = tmp_path / "tapes", tmp_path / "aside"
    with recording(directory) as traffic:
        recorder = traffic.recorder
        traffic.exchange(1)
        _until(lambda: recorder.statistics().recorded == 2)
        directory.rename(aside)
        for path in aside.iterdir():
            path.unlink()
        for number in range(20):
            traffic.exchange(2 + number)
        _until(lambda: recorder.statistics().held_bytes == 0)
        assert recorder.statistics().is_failing
        assert recorder.statistics().dropped == 40
        aside.rename(directory)

        def goes_on() -> bool:
            traffic.exchange(100)
            return not recorder.statistics().is_failing

        _until(goes_on)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 2
    assert "cannot record to" in told[0].message
    assert "recording goes on" in told[1].message
    assert frames_in(directory)


def test_a_place_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recorder = Recorder(RecordOptions(directory=str(tmp_path / "file" / "tapes")))
    with pytest.raises(OSError, match="file"):
        recorder.start()


def test_a_session_s_stand_in_is_another_one_in_another_recording(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with recording(tmp_path / name) as traffic:
            traffic.exchange()
    a, b = (frames_in(tmp_path / name)[0].session for name in ("a", "b"))
    assert a != b


@pytest.mark.parametrize("options", [{"total_bytes": 1}, {"slow_call_s": 1.0}])
def test_options_that_contradict_each_other(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"_s|_bytes"):
        RecordOptions(directory="x", **options)


def _until(true: Any) -> None:
    """The recorder's thread tells nobody what it has done."""
    import asyncio

    asyncio.run(until(true))


def test_its_thread_and_its_process_end_with_it(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        traffic.exchange()
        helper = helper_of(traffic.recorder)
        assert any(thread.name == "recorder" for thread in threading.enumerate())
    assert not any(thread.name == "recorder" for thread in threading.enumerate())
    assert helper.is_reaped


def helper_of(recorder: Recorder) -> Helper:
    helper = recorder._feed._helper
    assert helper is not None
    return helper


def test_the_process_that_writes_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with recording(tmp_path) as traffic:
        recorder = traffic.recorder
        traffic.exchange(1)
        _until(lambda: recorder.statistics().recorded == 2)
        os.kill(helper_of(recorder).pid, signal.SIGKILL)
        traffic.exchange(2)
        _until(lambda: recorder.statistics().is_failing)
        assert recorder.statistics().dropped == 2

        def goes_on() -> bool:
            traffic.exchange(3)
            return not recorder.statistics().is_failing

        _until(goes_on)
        _until(lambda: recorder.statistics().held_bytes == 0)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 2
    assert "has ended (signal 9)" in told[0].message
    assert told[1].message.startswith("recording goes on: ")
    # It is one recording still, and its sessions are the same ones.
    first, second = tapes_in(tmp_path)
    assert (first.name[-10:], second.name[-10:]) == ("-0001.tape", "-0002.tape")
    frames = frames_in(tmp_path)
    assert len({frame.session for frame in frames}) == 1
    assert [frame.seq for frame in frames] == sorted({frame.seq for frame in frames})
    statistics, found = recorder.statistics(), sidecar_in(tmp_path)
    assert (found.messages, found.dropped) == (statistics.recorded, statistics.dropped)
    assert len(frames) == statistics.recorded
    assert frames[-1].seq == statistics.recorded + statistics.dropped
    assert [part.file for part in found.parts] == [first.name, second.name]


def test_a_process_that_hangs_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed, "_CLOSE_S", 0.2)
    with recording(tmp_path) as traffic:
        helper = helper_of(traffic.recorder)
        os.kill(helper.pid, signal.SIGSTOP)
        traffic.exchange(1)
    assert "is incomplete: writing the rest" in caplog.text
    _until(lambda: helper.is_reaped)
    assert traffic.recorder.statistics().dropped == 2


def test_no_signal_to_all_of_us_ends_the_process_that_writes(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        pid = helper_of(traffic.recorder).pid
        assert os.getpgid(pid) != os.getpgid(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        traffic.exchange(1)
    assert len(frames_in(tmp_path)) == 2


def test_what_is_not_a_message_that_can_be_written_is_counted(tmp_path: Path) -> None:
    scribe = Scribe(Setup(RecordOptions(directory=str(tmp_path)), HEAD, 0.0, b"key", Progress()))
    scribe.prepare()
    good, bad = entry(1, call(1)), entry(2, call(2), raw=b"\xff\n")
    for one in (good, bad, good):
        scribe.take(Batch(1, 0.0, 0, is_last=False), [one])
    scribe.take(Batch(0, 0.0, 3, is_last=True), [])
    assert (scribe.progress.recorded, scribe.progress.unwritten) == (2, 1)
    assert sidecar_in(tmp_path).dropped == 4
