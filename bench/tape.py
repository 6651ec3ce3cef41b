"""Recording: what it costs `shadowcat reverse`, how fast a tape is written and read, and what its tools take of memory.

The process that writes is put on the other cores, as a machine without pinned processes would have it, and what it
spends is told beside what the proxy does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.contest import Contender, print_throughput, rounds_of
from bench.machine import ROOT, CannotMeasure, Child, cpu_s, other_cores
from bench.reverse import open_session, start
from bench.rounds import print_table
from shadowcat.core.exchange import PASS, Caller, Context, Direction
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.recorder import Recorder
from shadowcat.replay.files import TapeFile, tapes_in
from shadowcat.wire import jsonrpc
from shadowcat.wire.mcp import Era

MIB = 1024 * 1024
CONNECTIONS = 32
_SMALL, _LARGE = 8 * MIB, 128 * MIB
_TEXT = "Nothing of this is anybody's business, and nothing of it is hidden. "
_TOOLS = {
    "show": ("show", "{tape}"),
    "verify": ("verify", "{tape}"),
    "diff with itself": ("diff", "{tape}", "{tape}"),
    "export": ("export", "{tape}"),
    "list": ("list", "{tape}"),
}


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="shadowcat-bench-") as directory:
        _cost(Path(directory) / "cost")
        print()
        tape = _written_and_read(Path(directory) / "speed")
        print()
        _memory(tape, Path(directory))


def _cost(directory: Path) -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(Child.of_module("bench.servers.mcp_upstream", on=other_cores()))
        url = f"http://127.0.0.1:{int(upstream.read_line())}/mcp"
        contenders: dict[str, Contender] = {}
        writer = 0
        for name, more in {"recording": ("--record", str(directory)), "not recording": ()}.items():
            child, port = start(url, *more)
            stack.enter_context(child)
            session = (f"Mcp-Session-Id: {open_session(port)}", "MCP-Protocol-Version: 2025-11-25")
            contenders[name] = Contender(f"http://127.0.0.1:{port}/mcp", child, session)
            writer = writer or _writer_of(child)
        os.sched_setaffinity(writer, other_cores())
        loaded = rounds_of(contenders, connections=CONNECTIONS, rounds=9, seconds=2)
        writer_s = cpu_s(writer)
    print_throughput(loaded, "recording", CONNECTIONS)
    frames = last = 0
    for path in tapes_in(directory):
        with TapeFile(path) as file:
            for frame in file:
                frames, last = frames + 1, frame.seq
    print(
        f"{frames:,} of {last:,} messages are on the tape; the process that writes took {writer_s:.1f} s of CPU time,"
    )
    print(f"{2e6 * writer_s / max(frames, 1):.1f} µs for a request and its answer")


def _writer_of(proxy: Child) -> int:
    [pid] = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
    return int(pid)


def _written_and_read(directory: Path) -> Path:
    """By one recorder that is fed as fast as it writes; CPU time, as the disk is not what is measured."""
    options = RecordOptions(directory=str(directory), part_bytes=_SMALL, total_bytes=4 * _SMALL)
    recorder = Recorder(options)
    recorder.start()
    request = jsonrpc.request(1, "tools/call", {"name": "echo", "arguments": {"text": _TEXT}})
    answer = jsonrpc.result(1, {"content": [{"type": "text", "text": _TEXT * 4}]})
    up = Context(Era.LEGACY, Direction.TO_SERVER, Caller(), "main", "0" * 32)
    down = Context(Era.LEGACY, Direction.TO_CLIENT, Caller(), "main", "0" * 32, request)
    began, count = _cpu_s_with_children(), 0
    while len(tapes_in(directory)) < 2:
        for _ in range(1_000):
            recorder.saw(request, up, PASS)
            recorder.saw(answer, down, PASS)
        count += 2_000
        while recorder.statistics().held_bytes:
            time.sleep(0.001)
    recorder.close()
    written_s = _cpu_s_with_children() - began
    [tape, *rest] = tapes_in(directory)
    for path in rest:
        path.unlink()
    size = tape.stat().st_size
    began = time.process_time()
    with TapeFile(tape) as file:
        frames = sum(1 for _ in file)
    read_s = time.process_time() - began
    began = time.process_time()
    with TapeFile(tape) as file:
        for frame in file:
            frame.parsed()
    parsed_s = time.process_time() - began
    print_table(
        [f"a tape of {size / MIB:.0f} MiB", "MB/s", "µs/message"],
        [
            [
                "written, secrets looked for",
                f"{size / written_s / 1e6:.0f}",
                f"{written_s / count * 1e6:.1f}",
            ],
            ["read", f"{size / read_s / 1e6:.0f}", f"{read_s / frames * 1e6:.1f}"],
            ["read, messages parsed", f"{size / parsed_s / 1e6:.0f}", f"{parsed_s / frames * 1e6:.1f}"],
        ],
    )
    return tape


def _cpu_s_with_children() -> float:
    """Of those that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _memory(small: Path, directory: Path) -> None:
    large = directory / "large.tape"
    lines = small.read_bytes()
    head, _, frames = lines.partition(b"\n")
    with large.open("wb") as out:
        out.write(head + b"\n")
        for _ in range(_LARGE // len(frames)):
            out.write(frames)
    ratio = large.stat().st_size / small.stat().st_size
    rows: list[list[str]] = []
    for name, words in _TOOLS.items():
        peaks = [_peak_mib([word.format(tape=tape) for word in words]) for tape in (small, large)]
        rows.append([f"tape {name}", *(f"{peak:.0f}" for peak in peaks), f"{peaks[1] / peaks[0]:.2f}"])
    print_table(
        [
            "peak RSS, MiB",
            f"{small.stat().st_size / MIB:.0f} MiB",
            f"{large.stat().st_size / MIB:.0f} MiB",
            "RATIO",
        ],
        rows,
    )
    print(f"the large tape is {ratio:.0f} times the small one")


_LAUNCHER = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", 1, 0)])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""
"""A process counts what its parent had when it was started: this parent has less than what is measured."""


def _peak_mib(words: list[str]) -> float:
    command = [sys.executable, "-m", "shadowcat", "tape", *words]
    launched = [sys.executable, "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launched, capture_output=True, text=True, cwd=ROOT, check=True)
    kib, code = map(int, done.stdout.split())
    if code not in (0, 1):
        raise CannotMeasure(f"shadowcat tape {words[0]} ended with {code}: {done.stderr}")
    return kib / 1024
