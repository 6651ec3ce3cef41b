"""A client that counts what it hears, breaks its connections in every way there is, and comes back.

It shares nothing with the engine under test: bytes come from asyncio's streams and are taken apart here.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from tests.faults.numbers import CallPlan
from tests.faults.wire import reset, vanish
from tests.rig.wait import soon

READ_BYTES = 64 * 1024
ACCEPT = "application/json, text/event-stream"


class Broken(Exception):
    """The connection ended before the response did."""


@dataclass
class Event:
    data: bytes
    id: str | None = None
    retry: int | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Hearing:
    """A response as it comes over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._raw = bytearray()
        self._text = bytearray()
        self._ended = False
        self._chunk_left = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.breaks_after: int | None = None
        """Reset the connection after this many bytes of it were read."""
        self.read_bytes = 0
        self.head_bytes = 0

    @property
    def has_part_of_an_event(self) -> bool:
        return bool(self._text or self._raw)

    async def _more(self) -> None:
        room = READ_BYTES if self.breaks_after is None else self.breaks_after - self.read_bytes
        if room <= 0:
            self.reset()
            raise Broken
        try:
            data = await self._reader.read(min(room, READ_BYTES))
        except ConnectionError as error:
            raise Broken from error
        if not data:
            self.close()
            raise Broken
        self.read_bytes += len(data)
        self._raw += data

    async def head(self) -> None:
        while b"\r\n\r\n" not in self._raw:
            await self._more()
        head, _, rest = bytes(self._raw).partition(b"\r\n\r\n")
        self._raw = bytearray(rest)
        self.head_bytes = len(head) + 4
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def _piece(self) -> bytes:
        """What there is of the body, whether or not its chunk is whole; empty at its end."""
        raw = self._raw
        if not self._chunk_left:
            while (line := raw.find(b"\r\n")) < 0:
                await self._more()
            self._chunk_left = int(raw[:line], 16) + 2
            del raw[: line + 2]
            if self._chunk_left == 2:
                while len(raw) < 2:
                    await self._more()
                return b""
        while not raw:
            await self._more()
        piece = bytes(raw[: self._chunk_left])
        del raw[: len(piece)]
        self._chunk_left -= len(piece)
        # The last two bytes of a chunk are its line end, which may have been cut in two.
        return piece[: max(0, len(piece) - 2 + min(self._chunk_left, 2))] or await self._piece()

    async def body(self) -> bytes:
        length = int(self.headers.get("content-length", "0"))
        while len(self._raw) < length:
            await self._more()
        self.close()
        return bytes(self._raw[:length])

    async def event(self) -> Event | None:
        """The next event, also one without data; None at the response's own end."""
        while True:
            while b"\n\n" not in self._text:
                if self._ended:
                    assert not self._text, "the response ended within an event"
                    return None
                piece = await self._piece()
                if not piece:
                    self._ended = True
                    self.close()
                self._text += piece
            end = self._text.index(b"\n\n")
            block = bytes(self._text[:end])
            del self._text[: end + 2]
            found = parsed(block)
            if found is not None:
                return found

    async def message(self) -> Any:
        """The next message; None at the end."""
        while (event := await self.event()) is not None:
            if event.data:
                return event.json
        return None

    def deafen(self) -> None:
        """Accepts no more bytes, beyond what the buffers in between take."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def vanish(self) -> None:
        vanish(self._writer)

    def reset(self) -> None:
        reset(self._writer)

    def close(self) -> None:
        self._writer.transport.abort()


def parsed(block: bytes) -> Event | None:
    found = Event(b"")
    data: list[bytes] = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b": ")
        match name.removesuffix(b":"):
            case b"data":
                data.append(value)
            case b"id":
                found.id = value.decode()
            case b"retry":
                found.retry = int(value)
            case b"event" | b"":
                pass
            case _:
                raise AssertionError(f"no line of an event: {line!r}")
    if not data:
        return None
    found.data = b"\n".join(data)
    return found


@dataclass(eq=False)
class Tally:
    """What one stream has brought, over as many connections as it took. The first wrong event fails the test."""

    label: str
    size: int = 0
    number: int = 0
    """Of the last event."""
    last_id: str | None = None
    response: Any = None
    asked: list[Any] = field(default_factory=list[Any])
    others: list[Any] = field(default_factory=list[Any])
    """Notifications that are not numbered."""
    unheard: int = 0
    """Questions that may be missing although they were never heard."""
    primings: int = 0
    may_end_early: bool = False
    """The response may stand where other events were: there is nobody who would say those once more."""
    retry: int | None = None

    def take(self, event: Event) -> None:
        if event.id is not None:
            if not (self.may_end_early and _leads_to_the_end(event)):
                self._follows(event.id, is_priming=not event.data)
            self.last_id = event.id
        if event.retry is not None:
            self.retry = event.retry
        if not event.data:
            self.primings += 1
            return
        message = event.json
        if "method" not in message:
            assert self.response is None, "a second response"
            self.response = message
        elif "id" in message:
            self.asked.append(message)
        elif message["method"] == "notifications/progress":
            params = message["params"]
            label, _, padding = params["message"].partition(" ")
            self._is_next(params["progress"], label, len(padding))
            assert params["progressToken"] == label
        elif message["method"] == "notifications/message":
            data = message["params"]["data"]
            self._is_next(data["n"], data["label"], len(data["pad"]))
        else:
            self.others.append(message)

    def _is_next(self, number: int, label: str, size: int) -> None:
        assert label == self.label, f"an event of {label!r} on the stream of {self.label!r}"
        assert number == self.number + 1, f"{number} after {self.number}"
        assert size == self.size, "an event that is not whole"
        self.number = number

    def _follows(self, id: str, *, is_priming: bool) -> None:
        stream, seq = _taken_apart(id)
        if self.last_id is not None:
            last_stream, last_seq = _taken_apart(self.last_id)
            assert stream == last_stream, "an id of another stream"
            # Only a question that was answered is left out of a replay.
            step = seq - last_seq
            assert step == 0 if is_priming else 1 <= step <= 1 + len(self.asked) + self.unheard, (
                f"{id} after {self.last_id}"
            )

    @property
    def is_complete(self) -> bool:
        return self.response is not None

    def check_result(self, plan: CallPlan) -> None:
        assert self.response is not None
        assert "result" in self.response, self.response
        told = self.response["result"]["structuredContent"]
        assert (told["label"], told["count"]) == (plan.label, plan.count)
        assert self.number == plan.count, f"{self.number} of {plan.count}"


def _leads_to_the_end(event: Event) -> bool:
    return not event.data or "method" not in event.json


def _taken_apart(id: str) -> tuple[str, int]:
    stream, _, seq = id.rpartition(".")
    return stream, int(seq)


class Caller:
    """One session with the endpoint on `port`; every request has a connection of its own.

    A context, at the end of which they are all closed: one left open fails the tests that come after.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.session_id = ""
        self.version = ""
        self._last = 0
        self._hearings: list[Hearing] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # HTTP.

    async def send(
        self,
        method: str,
        fields: dict[str, str],
        body: bytes = b"",
        *,
        breaks_after: int | None = None,
        receive_buffer: int | None = None,
    ) -> Hearing:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock, limit=READ_BYTES)
        hearing = Hearing(reader, writer)
        hearing.breaks_after = breaks_after
        self._hearings.append(hearing)
        if self.session_id:
            fields = {**fields, "Mcp-Session-Id": self.session_id, "MCP-Protocol-Version": self.version}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"{method} /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return hearing

    async def post(self, message: Any, **how: Any) -> Hearing:
        fields = {"Accept": ACCEPT, "Content-Type": "application/json"}
        return await self.send("POST", fields, json.dumps(message).encode(), **how)

    async def answered(self, hearing: Hearing) -> Any:
        """The whole answer, whichever way it comes."""
        async with soon():
            await hearing.head()
            if hearing.headers.get("content-type") != "text/event-stream":
                body = await hearing.body()
                return json.loads(body) if body else None
            while "method" in (message := await hearing.message()):
                pass
            hearing.close()
            return message

    # A session.

    async def initialize(self, version: str = "2025-11-25") -> None:
        params = {
            "protocolVersion": version,
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "caller"},
        }
        params["clientInfo"]["version"] = "1"
        hearing = await self.post(self.request("initialize", params))
        answer = await self.answered(hearing)
        assert hearing.status == 200, answer
        self.session_id = hearing.headers["mcp-session-id"]
        self.version = answer["result"]["protocolVersion"]
        await self.accepted({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def request(self, method: str, params: Any = None) -> dict[str, Any]:
        self._last += 1
        message = {"jsonrpc": "2.0", "id": self._last, "method": method}
        return message if params is None else {**message, "params": params}

    async def ask(self, method: str, params: Any = None) -> Any:
        return await self.answered(await self.post(self.request(method, params)))

    async def accepted(self, message: Any) -> None:
        """Sends what gets no answer."""
        hearing = await self.post(message)
        async with soon():
            await hearing.head()
        assert hearing.status == 202
        hearing.close()

    async def end(self) -> int:
        hearing = await self.send("DELETE", {})
        async with soon():
            await hearing.head()
        hearing.close()
        return hearing.status

    # Streams.

    async def call(self, plan: CallPlan, **how: Any) -> Hearing:
        """Begins the call that the plan says; the head is not read yet."""
        arguments = msgspec.to_builtins(plan)
        params = {"name": "count", "arguments": arguments, "_meta": {"progressToken": plan.label}}
        return await self.post(self.request("tools/call", params), **how)

    async def listen(self, last_id: str | None = None, **how: Any) -> Hearing:
        fields = {"Accept": "text/event-stream"}
        if last_id is not None:
            fields["Last-Event-ID"] = last_id
        return await self.send("GET", fields, **how)

    async def begun(self, hearing: Hearing) -> Hearing:
        async with soon():
            await hearing.head()
        assert hearing.status == 200, hearing.status
        assert hearing.headers["content-type"] == "text/event-stream", hearing.headers
        return hearing

    async def follow(
        self, hearing: Hearing, tally: Tally, until: Callable[[], bool] | None = None, within_s: float = 60.0
    ) -> None:
        """Reads until it is so, or to the stream's end. Raises `Broken` where the connection breaks first."""
        async with soon(within_s):
            while until is None or not until():
                event = await hearing.event()
                if event is None:
                    assert until is None, "the stream ended early"
                    return
                tally.take(event)

    async def gather(
        self,
        hearing: Hearing,
        tally: Tally,
        *,
        breaks: Callable[[], int | None] = lambda: None,
        within_s: float = 60.0,
    ) -> int:
        """Reads a call's stream to its end, coming back after every break. Returns how often that was."""
        resumes = 0
        async with soon(within_s):
            while True:
                try:
                    if not hearing.status:
                        await hearing.head()
                    assert hearing.status == 200, hearing.status
                    await self.follow(hearing, tally, within_s=within_s)
                except Broken:
                    hearing.reset()
                    if tally.is_complete:
                        return resumes
                else:
                    assert tally.is_complete, f"the stream ended after {tally.number}"
                    return resumes
                hearing = await self.listen_again(tally, breaks_after=breaks())
                resumes += 1

    async def listen_again(self, tally: Tally, **how: Any) -> Hearing:
        assert tally.last_id is not None, "nothing to resume from"
        while True:
            try:
                return await self.listen(tally.last_id, **how)
            except OSError:
                # The way to the proxy is down; the deadline is the caller's.
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for hearing in self._hearings:
            hearing.close()
        # The transports are gone one turn of the loop later.
        await asyncio.sleep(0)


@asynccontextmanager
async def caller(port: int, version: str = "2025-11-25") -> AsyncIterator[Caller]:
    async with Caller(port) as found:
        await found.initialize(version)
        yield found


@asynccontextmanager
async def callers(port: int, count: int, version: str = "2025-11-25") -> AsyncIterator[list[Caller]]:
    found = [Caller(port) for _ in range(count)]
    try:
        for one in found:
            await one.initialize(version)
        yield found
    finally:
        for one in found:
            await one.close()


def seeded(name: str) -> random.Random:
    """The same draws in every run."""
    return random.Random(name)
