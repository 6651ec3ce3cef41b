"""Messages for a recorder, and the tapes it makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from shadowcat.core.exchange import PASS, Caller, Context, Direction
from shadowcat.plugins.recording.entry import Entry, Facts
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.recorder import Recorder
from shadowcat.replay.files import TapeFile, tapes_in
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Era
from shadowcat.wire.tape import Frame

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
SESSION = "0123456789abcdef0123456789abcdef"


def context(direction: Direction, request: Message | None = None, **more: Any) -> Context:
    return Context(Era.LEGACY, direction, Caller(), "main", SESSION, request, **more)


def call(id: int = 1, **arguments: Any) -> Message:
    return jsonrpc.request(id, "tools/call", {"name": "t", "arguments": arguments})


def answer(request: Message, **result: Any) -> Message:
    assert request.id is not None
    return jsonrpc.result(request.id, result)


def entry(seq: int, message: Message, **more: Any) -> Entry:
    """As the recorder makes them."""
    usual: dict[str, Any] = {
        "to_server": True,
        "legacy": True,
        "session_id": SESSION,
        "upstream": "main",
        "status": 200,
        "kind": message.kind.value,
        "at_s": 101.0,
        "request": None,
        "method": message.method,
        "raw": message.raw,
        "became": None,
    } | more
    facts = Facts(**{name: usual.pop(name) for name in Facts.__struct_fields__})
    return Entry(seq=seq, again=seq, facts=msgspec.msgpack.encode(facts), **usual)


class Traffic:
    """Exchanges, as a pipeline would tell them."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def ask(self, request: Message) -> Message:
        self.recorder.saw(request, context(UP), PASS)
        return request

    def tell(self, message: Message, request: Message | None = None) -> None:
        self.recorder.saw(message, context(DOWN, request), PASS)

    def exchange(self, id: int = 1, **arguments: Any) -> None:
        request = self.ask(call(id, **arguments))
        self.tell(answer(request, ok=True), request)


@contextmanager
def recording(directory: Path, clock: Any = None, **options: Any) -> Iterator[Traffic]:
    recorder = Recorder(
        RecordOptions(directory=str(directory), **options),
        clients="http",
        upstreams={"main": "http"},
        program="shadowcat 0",
        clock=clock,
    )
    recorder.start()
    try:
        yield Traffic(recorder)
    finally:
        recorder.close()


def frames_in(directory: Path) -> list[Frame]:
    found: list[Frame] = []
    for path in tapes_in(directory):
        with TapeFile(path) as file:
            found += file
            assert not file.tape.is_torn
    return found
