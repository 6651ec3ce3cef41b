"""The files: ended when they are large or old, removed when there are too many, whole when a write fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from shadowcat.clock import ManualClock
from shadowcat.plugins.recording import parts as module
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.parts import Parts, is_written
from shadowcat.replay.files import TapeFile, tapes_in
from shadowcat.wire.tape import FORMAT, VERSION, Head

LINE = (
    b'{"seq":1,"ms":0.0,"at":0.0,"direction":"to_server","era":"legacy","kind":"notification","method":"m"}\n'
)


def parts(directory: Path, recording: str = "20260101T000000Z-aaaaaa", **options: Any) -> Parts:
    clock = options.pop("clock", ManualClock())
    limits = {"part_bytes": 1_000, "total_bytes": 1_000_000, **options}
    head = Head(format=FORMAT, version=VERSION, started=0.0, recording=recording)
    found = Parts(RecordOptions(directory=str(directory), **limits), head, clock)
    found.prepare()
    return found


def names(directory: Path) -> list[str]:
    return [path.name.removesuffix(".tape")[-4:] for path in tapes_in(directory)]


def test_a_large_one_is_ended(tmp_path: Path) -> None:
    found = parts(tmp_path)
    for _ in range(20):
        found.append(LINE, 1)
    assert len(names(tmp_path)) == 3
    assert all(path.stat().st_size <= 1_000 for path in tapes_in(tmp_path))
    heads: list[int] = []
    for path in tapes_in(tmp_path):
        with TapeFile(path) as file:
            heads.append(file.head.part)
            assert len(list(file)) >= 4
    assert heads == [1, 2, 3]


def test_what_is_larger_than_a_part_has_one_of_its_own(tmp_path: Path) -> None:
    found = parts(tmp_path)
    found.append(LINE * 50, 50)
    found.append(LINE, 1)
    assert names(tmp_path) == ["0001", "0002"]


def test_an_old_one_is_ended(tmp_path: Path) -> None:
    clock = ManualClock()
    found = parts(tmp_path, clock=clock, part_s=60)
    found.append(LINE, 1)
    clock.advance(59)
    found.append(LINE, 1)
    assert names(tmp_path) == ["0001"]
    clock.advance(1)
    found.append(LINE, 1)
    assert names(tmp_path) == ["0001", "0002"]


def test_the_oldest_make_room(tmp_path: Path) -> None:
    other = tmp_path / "mine.txt"
    other.write_text("x" * 10_000)
    found = parts(tmp_path, total_bytes=5_000)
    for _ in range(100):
        found.append(LINE, 1)
        assert sum(path.stat().st_size for path in tapes_in(tmp_path)) <= 5_000
    assert len(names(tmp_path)) >= 3
    assert "0001" not in names(tmp_path)
    assert other.exists()


def test_those_of_a_recording_that_ended_go_first_and_its_sidecar_with_them(tmp_path: Path) -> None:
    old = parts(tmp_path, "20250101T000000Z-bbbbbb")
    old.append(LINE * 9, 9)
    old.close(lambda _: None)
    assert len(list(tmp_path.glob("2025*"))) == 2
    found = parts(tmp_path, total_bytes=2_000)
    found.append(LINE * 9, 9)
    found.append(LINE * 9, 9)
    assert not list(tmp_path.glob("2025*"))


def test_what_somebody_writes_is_left_alone(tmp_path: Path) -> None:
    live = parts(tmp_path, "20250101T000000Z-bbbbbb")
    live.append(LINE * 9, 9)
    found = parts(tmp_path, total_bytes=2_000)
    for _ in range(30):
        found.append(LINE, 1)
    [path] = tmp_path.glob("2025*.tape")
    assert is_written(path)
    live.close(lambda _: None)
    assert not is_written(path)


def test_a_write_that_stops_in_the_middle_leaves_no_half_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parts(tmp_path)
    found.append(LINE, 1)

    def half(fd: int, data: memoryview) -> int:
        if len(data) > 10:
            return real(fd, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    real = os.write
    monkeypatch.setattr(module.os, "write", half)
    with pytest.raises(OSError, match="No space"):
        found.append(LINE[:15], 1)
    monkeypatch.undo()
    found.append(LINE, 1)
    [path] = tapes_in(tmp_path)
    with TapeFile(path) as file:
        assert len(list(file)) == 2


def test_what_was_deleted_is_begun_anew(tmp_path: Path) -> None:
    found = parts(tmp_path)
    found.append(LINE, 1)
    tapes_in(tmp_path)[0].unlink()
    found.append(LINE, 1)
    assert names(tmp_path) == ["0002"]
