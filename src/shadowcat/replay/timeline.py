"""A tape as a person reads it: a line for each message."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from shadowcat.errors import Fault
from shadowcat.replay.files import MAX_LINE_BYTES
from shadowcat.wire import tape
from shadowcat.wire.jsonrpc import Message, members
from shadowcat.wire.mcp import NAMED_BY
from shadowcat.wire.tape import SUFFIX, Frame, Head, Tape, TapeError
from shadowcat.wire.text import on_one_line, printable

_MAX_REMEMBERED = 20_000
_MAX_METHODS = 30
_LOOK_S = 0.2
_READ_BYTES = 256 * 1024
_SHOWN_CHARS = 160
_META = b'"_meta"'


class Timeline:
    def __init__(self, *, session: str = "", method: str = "", whole: bool = False) -> None:
        """Only of the session that begins so, and of requests with that method and what belongs to them."""
        self._session = session
        self._method = method
        self._whole = whole
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        """The last requests, by their seq."""
        self.shown = 0
        self.passed_over = 0
        self.methods: set[str] = set()
        """Some of those that requests had."""

    def line(self, frame: Frame) -> str | None:
        """None for one that is not asked for."""
        message = frame.parsed()
        asked = self._asked.get(frame.request or 0, _Asked("", ""))
        if frame.kind == "request":
            self._asked[frame.seq] = _Asked(frame.method, _name_in(message))
            if len(self._asked) > _MAX_REMEMBERED:
                self._asked.popitem(last=False)
        if not frame.session.startswith(self._session) or not self._is_wanted(frame, asked):
            self.passed_over += 1
            if frame.method and len(self.methods) < _MAX_METHODS:
                self.methods.add(frame.method)
            return None
        self.shown += 1
        arrow = "->" if frame.direction == tape.TO_SERVER else "<-"
        parts = [f"{frame.seq:>6} {frame.ms / 1_000:>+11.3f}s {frame.session or '-':<12} {arrow}"]
        parts.append(_what(frame, message, asked))
        if frame.is_tool_error:
            parts.append("[tool error]")
        if frame.outcome != tape.PASSED:
            parts.append(
                f"[{frame.outcome}{self._shortened(b' ' + bytes(frame.became)) if frame.became else ''}]"
            )
        said = message.raw_params or message.raw_result or message.raw_error
        parts.append(self._shortened(said if self._whole else _without_meta(said)))
        return on_one_line(" ".join(part for part in parts if part))

    def _is_wanted(self, frame: Frame, asked: _Asked) -> bool:
        return not self._method or self._method in (frame.method, asked.method)

    def _shortened(self, raw: bytes) -> str:
        return printable(raw, len(raw) if self._whole else _SHOWN_CHARS)


class _Asked(NamedTuple):
    method: str
    name: str
    """What the request is about, such as the tool; empty where nothing says so."""


def _what(frame: Frame, message: Message, asked: _Asked) -> str:
    if message.is_response:
        after = f" to {' '.join(filter(None, asked))}" if asked.method else ""
        status = f" (HTTP {frame.status})" if frame.status != 200 else ""
        return f"{message.kind.value}{after}{status} id={message.id}"
    id = f" id={message.id}" if message.is_request else ""
    return " ".join(filter(None, (message.method, _name_in(message)))) + id


def _name_in(message: Message) -> str:
    try:
        name = message.params().get(NAMED_BY.get(message.method, ""))
    except Fault:
        return ""
    return name if isinstance(name, str) else ""


def _without_meta(raw: bytes) -> bytes:
    """In the modern era it comes first and is longer than what a line has room for."""
    if _META not in raw:
        return raw
    try:
        found = members(raw)
    except Fault:
        return raw
    found.pop("_meta", None)
    return msgspec.json.encode(found)


def head_line(head: Head) -> str:
    parts = [f"recording {head.recording or '(unnamed)'} part {head.part}"]
    if head.upstreams:
        servers = ", ".join(f"{name} ({kind})" for name, kind in head.upstreams.items())
        parts.append(f"in front of {servers}")
    if head.ring_s:
        parts.append(f"what came up to {head.ring_s:g} s before something went wrong")
    if head.program:
        parts.append(head.program)
    return on_one_line("# " + "; ".join(parts))


def followed(path: Path, is_written: Callable[[Path], bool]) -> Iterator[Frame | Head]:
    """A tape and the parts after it, as they are written, until nobody writes any. Raises `TapeError`."""
    while True:
        with path.open("rb") as file:
            tape_read = Tape(_growing(path, file.fileno(), is_written))
            yield tape_read.head
            yield from tape_read
        following = _following(path, tape_read.head)
        if following is None:
            return
        path = following


def _following(path: Path, head: Head) -> Path | None:
    after = path.with_name(f"{head.recording}-{head.part + 1:04}{SUFFIX}")
    return after if head.recording and after.exists() else None


def _growing(path: Path, fd: int, is_written: Callable[[Path], bool]) -> Iterator[bytes]:
    """Whole lines; at the end it waits for more, unless there will be none."""
    rest = b""
    while True:
        is_over = not is_written(path)
        # Only then: what was written before its end is all there.
        while data := os.read(fd, _READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise TapeError("a line is longer than any of a tape's")
            yield from (line + b"\n" for line in lines)
        if is_over:
            if rest:
                yield rest
            return
        time.sleep(_LOOK_S)
