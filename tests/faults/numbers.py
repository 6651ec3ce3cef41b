"""A server that counts: `python -m tests.faults.numbers` serves until its stdin ends.

`tools/call` answers with a stream of numbered progress notifications and then a result; the standalone stream carries
numbered log messages. Nothing is stored: the n-th event of a stream follows from its plan and n, so a stream of any
length can be resumed anywhere. What a test wants of a call stands in the call's arguments, what it wants of the
server it posts to `/control`.

An HTTP server of its own, so that no mistake of the engine's can hide behind the same mistake here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from tests.faults.wire import reset, vanish

LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
READ_BYTES = 64 * 1024
TOOLS = {"tools": [{"name": "count", "inputSchema": {"type": "object"}}]}
CAPABILITIES = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "logging": {},
}


class CallPlan(msgspec.Struct, forbid_unknown_fields=True):
    label: str
    count: int
    """Events before the result."""
    size: int = 0
    """Bytes of padding in each event."""
    pause_s: float = 0.0
    """Between events; without one they come as fast as they are taken."""
    ids: bool = True
    primed: bool = False
    """Begin each connection with an event without data."""
    retry_ms: int | None = None
    """Told before a polite close."""
    close_every: int | None = None
    """Close politely after this many events on one connection."""
    silent_polls: int = 0
    """So many resumes get a connection that is politely closed without an event, after each close."""
    reset_every: int | None = None
    """Reset the connection after this many events on it."""
    tear: bool = False
    """Send half of the next event before a reset."""
    replay_last: bool = False
    """On a resume send the event again after which the client wants to go on."""
    ask_after: int | None = None
    """Ask the client a question after this many events, and go on when it is answered."""
    hold_after: int | None = None
    """Stop after this many events until `release`."""
    answers_json: bool = False
    """One JSON body instead of a stream, when the call is done."""
    drip_bytes_per_s: float | None = None
    """This slowly."""
    never: bool = False
    """No byte of an answer, ever."""
    garbage_after: int | None = None


class Source:
    """A stream of numbered events and how far it has come."""

    def __init__(self, name: str, plan: CallPlan, encode: Callable[[int], bytes]) -> None:
        self.name = name
        self.plan = plan
        self.encode = encode
        self.ready = 0
        self.written = 0
        """The last event that a connection took."""
        self.total = plan.count + 1
        self.polls_left = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self.released = asyncio.Event()
        self.answered: asyncio.Event = asyncio.Event()
        self.answer: Any = None
        self.answers = 0

    def reach(self, number: int) -> None:
        self.ready = number
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def beyond(self, number: int) -> None:
        while self.ready <= number:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    async def produce(self) -> None:
        plan = self.plan
        stops = sorted({stop for stop in (plan.ask_after, plan.hold_after) if stop is not None})
        for stop in [*stops, self.total]:
            if plan.pause_s:
                while self.ready < stop:
                    await asyncio.sleep(plan.pause_s)
                    self.reach(self.ready + 1)
            elif self.ready < stop:
                self.reach(stop)
            if stop == plan.hold_after:
                await self.released.wait()
            if stop == plan.ask_after:
                # The question is an event of its own behind the stop.
                self.reach(self.ready + 1)
                await self.answered.wait()

    def event(self, number: int) -> bytes:
        body = self.encode(number)
        if self.plan.ids:
            return b"id: %s-%d\nevent: message\ndata: %b\n\n" % (self.name.encode(), number, body)
        return b"event: message\ndata: %b\n\n" % body


class Session:
    def __init__(self, id: str) -> None:
        self.id = id
        self.standalone = Source(
            f"s{id}", CallPlan(label="standalone", count=sys.maxsize - 1), self._standalone_event
        )
        self.size = 0

    def _standalone_event(self, number: int) -> bytes:
        data = {"n": number, "label": f"standalone {self.id}", "pad": "x" * self.size}
        return dump(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": data}}
        )


def dump(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


class Request:
    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body


class Numbers:
    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.sources: dict[str, Source] = {}
        self.counts: dict[str, int] = {}
        self.last_event_ids: list[str] = []
        self.connections: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        self.capabilities: dict[str, Any] = CAPABILITIES
        self.listening = 0
        self._last = 0

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def spawn(self, coro: Any) -> None:
        task = asyncio.get_running_loop().create_task(coro)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # HTTP.

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections[writer] = reader
        try:
            while (request := await read_request(reader)) is not None:
                if not await self._answer(request, writer):
                    break
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            del self.connections[writer]

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can be used again."""
        if request.path == "/control":
            await whole(writer, 200, dump(self.control(json.loads(request.body), writer)))
            return True
        session = self.sessions.get(request.headers.get("mcp-session-id", ""))
        message = json.loads(request.body) if request.body else {}
        method = message.get("method", "answer") if request.method == "POST" else request.method
        self.count(method)
        if method == "initialize":
            await self._initialize(message, writer)
        elif session is None:
            await whole(writer, 404)
        elif request.method == "GET":
            return await self._get(session, request, writer)
        elif request.method == "DELETE":
            del self.sessions[session.id]
            await whole(writer, 200)
        elif method == "tools/call":
            return await self._call(message, writer)
        elif method == "answer":
            self._answered(message)
            await whole(writer, 202)
        elif "id" not in message:
            await whole(writer, 202)
        else:
            result = TOOLS if method == "tools/list" else {}
            await whole(writer, 200, dump({"jsonrpc": "2.0", "id": message["id"], "result": result}))
        return True

    async def _initialize(self, message: Any, writer: asyncio.StreamWriter) -> None:
        self._last += 1
        session = Session(f"n{self._last}")
        self.sessions[session.id] = session
        asked = message["params"]["protocolVersion"]
        result = {
            "protocolVersion": asked if asked in LEGACY else LEGACY[0],
            "capabilities": self.capabilities,
            "serverInfo": {"name": "numbers", "version": "1"},
        }
        body = dump({"jsonrpc": "2.0", "id": message["id"], "result": result})
        await whole(writer, 200, body, {"Mcp-Session-Id": session.id})

    async def _get(self, session: Session, request: Request, writer: asyncio.StreamWriter) -> bool:
        cursor = request.headers.get("last-event-id")
        if cursor is None:
            # What was said before anybody listened is not said again.
            return await self._stream(session.standalone, session.standalone.ready, writer, listening=True)
        self.last_event_ids.append(cursor)
        name, _, number = cursor.rpartition("-")
        source = session.standalone if name == session.standalone.name else self.sources.get(name)
        if source is None:
            await whole(writer, 400)
            return True
        if source.polls_left > 0:
            source.polls_left -= 1
            await begin(writer)
            await self._part(source, int(number), writer)
            return True
        after = int(number) - source.plan.replay_last
        return await self._stream(source, max(after, 0), writer, listening=source is session.standalone)

    async def _call(self, message: Any, writer: asyncio.StreamWriter) -> bool:
        plan = msgspec.convert(message["params"]["arguments"], CallPlan)
        token = message["params"].get("_meta", {}).get("progressToken")
        self._last += 1
        source = Source(
            f"c{self._last}", plan, lambda number: self._call_event(source, message["id"], token, number)
        )
        self.sources[source.name] = self.sources[plan.label] = source
        if plan.ask_after is not None:
            source.total += 1
        if plan.never:
            return await self._while_there(writer, asyncio.Event().wait()) and False
        self.spawn(source.produce())
        if plan.answers_json:
            await source.beyond(source.total - 1)
            await whole(writer, 200, source.encode(source.total))
            return True
        return await self._stream(source, 0, writer)

    def _call_event(self, source: Source, id: int, token: Any, number: int) -> bytes:
        plan = source.plan
        if number == source.total:
            result = {
                "content": [{"type": "text", "text": plan.label}],
                "structuredContent": {"label": plan.label, "count": plan.count, "answer": source.answer},
            }
            return dump({"jsonrpc": "2.0", "id": id, "result": result})
        if plan.ask_after is not None:
            if number == plan.ask_after + 1:
                params = {"message": plan.label, "requestedSchema": {"type": "object", "properties": {}}}
                return dump(
                    {
                        "jsonrpc": "2.0",
                        "id": f"ask {plan.label}",
                        "method": "elicitation/create",
                        "params": params,
                    }
                )
            if number > plan.ask_after:
                number -= 1
        params = {"progressToken": token, "progress": number, "message": f"{plan.label} {'x' * plan.size}"}
        return dump({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    def _answered(self, message: Any) -> None:
        asked = str(message.get("id", ""))
        source = self.sources.get(asked.removeprefix("ask "))
        if source is not None:
            source.answer = message.get("result", message.get("error"))
            source.answers += 1
            source.answered.set()

    # Streams.

    async def _stream(
        self, source: Source, after: int, writer: asyncio.StreamWriter, *, listening: bool = False
    ) -> bool:
        """False where the connection is over."""
        await begin(writer)
        self.listening += listening
        try:
            return await self._while_there(writer, self._events(source, after, writer))
        finally:
            self.listening -= listening

    async def _while_there(self, writer: asyncio.StreamWriter, work: Coroutine[Any, Any, bool]) -> bool:
        """What `work` says; False when the client went away first. It says nothing before it has its answer."""
        gone = asyncio.ensure_future(self.connections[writer].read(1))
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait((gone, working), return_when=asyncio.FIRST_COMPLETED)
            return working.done() and working.result()
        finally:
            for task in (gone, working):
                task.cancel()
            await asyncio.gather(gone, working, return_exceptions=True)

    async def _events(self, source: Source, after: int, writer: asyncio.StreamWriter) -> bool:
        plan = source.plan
        if plan.primed:
            await chunk(writer, b"id: %s-%d\ndata:\n\n" % (source.name.encode(), after))
        said = 0
        while after < source.total:
            await source.beyond(after)
            upto = min(source.ready, after + 64, source.total)
            for every in (plan.close_every, plan.reset_every):
                if every is not None:
                    upto = min(upto, after + every - said)
            events = b"".join([source.event(number) for number in range(after + 1, upto + 1)])
            if plan.garbage_after is not None and after < plan.garbage_after <= upto:
                events = b"data: {this is no JSON\n\n"
            said += upto - after
            after = upto
            await self._say(source, events, writer)
            source.written = max(source.written, after)
            if after == source.total:
                break
            if plan.reset_every is not None and said >= plan.reset_every:
                if plan.tear:
                    torn = source.event(after + 1)
                    await chunk(writer, torn[: len(torn) // 2])
                reset(writer)
                return False
            if plan.close_every is not None and said >= plan.close_every:
                source.polls_left = plan.silent_polls
                await self._part(source, after, writer)
                return True
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _say(self, source: Source, events: bytes, writer: asyncio.StreamWriter) -> None:
        drip = source.plan.drip_bytes_per_s
        if drip is None:
            await chunk(writer, events)
            return
        for index in range(len(events)):
            await chunk(writer, events[index : index + 1])
            await asyncio.sleep(1 / drip)

    async def _part(self, source: Source, after: int, writer: asyncio.StreamWriter) -> None:
        """A polite close in the middle."""
        retry = b"retry: %d\n" % source.plan.retry_ms if source.plan.retry_ms is not None else b""
        await chunk(writer, b"id: %s-%d\n%bdata:\n\n" % (source.name.encode(), after, retry))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    # What tests ask for.

    def control(self, wish: dict[str, Any], own: asyncio.StreamWriter) -> Any:
        match wish["do"]:
            case "forget":
                if (session := wish.get("session")) is None:
                    self.sessions.clear()
                else:
                    self.sessions.pop(session, None)
            case "capabilities":
                self.capabilities = wish["capabilities"]
            case "emit":
                for session in self.sessions.values():
                    session.size = wish.get("size", 0)
                    session.standalone.reach(session.standalone.ready + wish["count"])
            case "release":
                self.sources[wish["label"]].released.set()
            case "reset":
                for writer in self.connections.keys() - {own}:
                    reset(writer)
            case "vanish":
                for writer in self.connections.keys() - {own}:
                    vanish(writer)
            case _:
                pass
        return {
            "counts": self.counts,
            "sessions": list(self.sessions),
            "connections": len(self.connections),
            "listening": self.listening,
            "last_event_ids": self.last_event_ids[-50:],
            "ready": {name: source.ready for name, source in self.latest()},
            "written": {name: source.written for name, source in self.latest()},
            "answers": {name: source.answers for name, source in self.latest()},
        }

    def latest(self) -> list[tuple[str, Source]]:
        return list(self.sources.items())[-200:]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head[:-4].split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


async def whole(
    writer: asyncio.StreamWriter, status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)
    await writer.drain()


async def begin(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    await writer.drain()


async def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()


async def main() -> None:
    numbers = Numbers()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        numbers.spawn(numbers.serve(reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()
    server.close()
    for writer in list(numbers.connections):
        writer.transport.abort()
    for task in list(numbers.tasks):
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
