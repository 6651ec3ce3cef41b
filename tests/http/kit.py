"""Both ends of a connection, to be told exactly what to say; and waits that end."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from shadowcat.http.client import Client, Origin
from shadowcat.http.limits import ClientLimits, ServerLimits
from shadowcat.http.message import Request, Response
from shadowcat.http.server import Server
from shadowcat.http.serving import Handler
from shadowcat.http.tls import ClientTls, ServerTls

DEADLINE_S = 30.0
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nhost: a\r\n\r\n".encode()


def post(body: bytes, *fields: bytes) -> bytes:
    lines = (b"POST / HTTP/1.1", b"host: a", *fields, b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def soon() -> asyncio.Timeout:
    return asyncio.timeout(DEADLINE_S)


async def until(true: Callable[[], bool]) -> None:
    """For what tells nobody that it happened."""
    async with soon():
        while not true():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)


async def happens(event: asyncio.Event) -> None:
    async with soon():
        await event.wait()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# The server under test.


@dataclass
class Recorder:
    """A handler that keeps what it was given, and answers with the request's body."""

    requests: list[Request] = field(default_factory=list[Request])

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(200, [], request.body)

    @property
    def targets(self) -> list[bytes]:
        return [request.target for request in self.requests]


@asynccontextmanager
async def serving(
    handler: Handler, limits: ServerLimits | None = None, host: str = "127.0.0.1", **listen: Any
) -> AsyncIterator[Server]:
    server = Server(handler, limits)
    if "unix_path" in listen or "sock" in listen:
        await server.listen(**listen)
    else:
        await server.listen(host, **listen)
    try:
        yield server
    finally:
        await server.aclose()


# A client that says exactly what it is told.


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get(b"connection") == b"close"


class Wire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own, as far as the kernel lets it."""
        async with soon():
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)

    async def head(self) -> Answer:
        async with soon():
            raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw[:-4].split(b"\r\n")
        fields = [line.partition(b": ") for line in lines]
        return Answer(int(first.split(b" ")[1]), {name: value for name, _, value in fields}, b"")

    async def answer(self) -> Answer:
        answer = await self.head()
        async with soon():
            if answer.headers.get(b"transfer-encoding") == b"chunked":
                while chunk := await self.chunk():
                    answer.body += chunk
            else:
                answer.body = await self.reader.readexactly(int(answer.headers.get(b"content-length", b"0")))
        return answer

    async def chunk(self) -> bytes:
        async with soon():
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        assert data[-2:] == b"\r\n"
        return data[:-2]

    async def rest(self) -> bytes:
        """What comes until the server closes; a reset is an error."""
        async with soon():
            return await self.reader.read()

    async def head_of_request(self) -> bytes:
        async with soon():
            return await self.reader.readuntil(b"\r\n\r\n")

    async def send_until_cut(self) -> None:
        async with soon():
            while True:
                await self.send(b"x")

    def abort(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def wire_to(
    server: Server, *, tls: ssl.SSLContext | None = None, small_buffer: bool = False
) -> AsyncIterator[Wire]:
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if small_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    try:
        async with soon():
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
            hostname = "localhost" if tls else None
            wire = Wire(*await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=hostname))
    except BaseException:
        sock.close()
        raise
    try:
        yield wire
    finally:
        wire.abort()
        with suppress(Exception):
            await wire.writer.wait_closed()


# The client under test, and servers that say exactly what they are told.


@asynccontextmanager
async def using(
    limits: ClientLimits | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    client = Client(limits, tls)
    try:
        yield client
    finally:
        await client.aclose()


def origin_of(server: Server, scheme: str = "http") -> Origin:
    return Origin(scheme, "127.0.0.1" if scheme == "http" else "localhost", server.port)


@dataclass
class Script:
    """A raw server: `play` is run for each connection, which ends with it."""

    origin: Origin
    connections: list[Wire] = field(default_factory=list[Wire])


@asynccontextmanager
async def scripted(play: Callable[[Wire], Awaitable[None]]) -> AsyncIterator[Script]:
    tasks: set[asyncio.Task[None]] = set()

    async def run(wire: Wire) -> None:
        try:
            await play(wire)
            wire.writer.close()
        finally:
            if not wire.writer.is_closing():
                wire.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        script.connections.append(wire)
        tasks.add(asyncio.get_running_loop().create_task(run(wire)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    script = Script(Origin("http", "127.0.0.1", listener.sockets[0].getsockname()[1]))
    try:
        yield script
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for wire in script.connections:
            wire.abort()
    lost = (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError)
    failures = [end for end in outcomes if isinstance(end, BaseException) and not isinstance(end, lost)]
    assert not failures, failures


def saying(*pieces: bytes) -> Callable[[Wire], Awaitable[None]]:
    """Reads one request, says the pieces, closes."""

    async def play(wire: Wire) -> None:
        await wire.head_of_request()
        await wire.send(*pieces)

    return play


# Certificates.


@dataclass(frozen=True)
class Certificates:
    server: ServerTls
    server_mutual: ServerTls
    client: ClientTls
    client_mutual: ClientTls
    stranger: ClientTls
    """A client that trusts somebody else."""

    @classmethod
    def issue(cls, directory: Path) -> Certificates:
        ca, other = trustme.CA(), trustme.CA()
        ca.cert_pem.write_to_path(directory / "ca.pem")
        other.cert_pem.write_to_path(directory / "other.pem")
        for name, leaf in (
            ("server", ca.issue_cert("localhost", "127.0.0.1")),
            ("client", ca.issue_cert("somebody@example.com", common_name="somebody")),
        ):
            leaf.private_key_pem.write_to_path(directory / f"{name}.key")
            for pem in leaf.cert_chain_pems:
                pem.write_to_path(directory / f"{name}.pem", append=True)
        authority = str(directory / "ca.pem")
        pair = (str(directory / "server.pem"), str(directory / "server.key"))
        return cls(
            ServerTls(*pair),
            ServerTls(*pair, client_ca_file=authority),
            ClientTls(authority),
            ClientTls(authority, str(directory / "client.pem"), str(directory / "client.key")),
            ClientTls(str(directory / "other.pem")),
        )
