"""The machine under the measurement: its cores, and child processes that are pinned, read and ended by their pid."""

from __future__ import annotations

import functools
import os
import platform
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests import needs

ROOT = Path(__file__).resolve().parent.parent
START_S = 10.0
END_S = 5.0


class CannotMeasure(Exception):
    """Something the benchmark needs is not here."""


def program(name: str) -> str:
    path = needs.find(name)
    if path is None:
        raise CannotMeasure(f"{name} is not installed")
    return str(path)


def describe() -> str:
    one, _, _ = os.getloadavg()
    return f"{len(cores())} cores, Python {platform.python_version()} ({sys.executable}), load {one:.1f} at the start"


@functools.cache
def cores() -> list[int]:
    """Those of this process as it began: what `on_cores` leaves it later says nothing of where a child belongs."""
    if sys.platform != "linux":
        raise CannotMeasure("cores are pinned and processes read through Linux's interfaces")
    return sorted(os.sched_getaffinity(0))


def measured_core() -> set[int]:
    """What is measured has this core to itself."""
    return {cores()[0]}


def other_cores() -> set[int]:
    """The load and what answers it share the rest."""
    every = cores()
    return set(every[1:] or every)


@contextmanager
def on_cores(allowed: set[int]) -> Iterator[None]:
    """This process on the given cores for a while."""
    cores()  # are remembered, before there are fewer
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowed)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Child:
    """A process on the given cores, ended when the block that holds it ends."""

    def __init__(self, arguments: list[str], on: set[int]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 closed in close()
        self._process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            # Read as it comes: a line in a buffer of ours is one that nobody is told of.
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        os.sched_setaffinity(self._process.pid, on)

    @classmethod
    def of_module(cls, module: str, *arguments: str, on: set[int]) -> Self:
        return cls([sys.executable, "-m", module, *arguments], on)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_line(self) -> str:
        """The first line it prints; what servers here say when they are ready is their port."""
        output = self._process.stdout
        assert output is not None
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            line = output.readline() if selector.select(START_S) else b""
        if not line:
            raise CannotMeasure(f"{self._process.args!r} did not start: {self.errors()}")
        return line.decode().strip()

    def output(self, within_s: float) -> str:
        """All it prints until it ends by itself."""
        try:
            output, _ = self._process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            raise CannotMeasure(f"{self._process.args!r} did not end in time") from None
        if self._process.returncode != 0:
            raise CannotMeasure(f"{self._process.args!r} failed: {self.errors()}")
        return output.decode()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip() or "it gave no reason"

    def is_running(self) -> bool:
        return self._process.poll() is None

    def cpu_s(self) -> float:
        """User and system time so far."""
        return cpu_s(self.pid)

    def rss_bytes(self) -> int:
        resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return resident * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        if self.is_running():
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(what: str, happened: Callable[[], bool], child: Child, within_s: float = START_S) -> None:
    """Looks every few milliseconds; for programs that do not say when they are ready."""
    deadline = time.monotonic() + within_s
    while not happened():
        if not child.is_running() or time.monotonic() > deadline:
            raise CannotMeasure(f"{what}: {child.errors()}")
        time.sleep(0.005)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
