"""Connections that nobody wants any more by the time they are open."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from shadowcat.http.client import Client, Origin
from tests.http.kit import Certificates, soon, using

ATTEMPTS = 100


class Handshaking:
    """A server in a thread of its own, which says when it has answered a client's first words of TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.answered = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def origin(self) -> Origin:
        return Origin("https", "localhost", self._listening.getsockname()[1])

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(heard, said, server_side=True)
        try:
            heard.write(connection.recv(65536))
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            connection.sendall(said.read())
            self.answered.set()
            while connection.recv(65536):
                pass
        except OSError:
            pass  # the client went first

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5.0)


@contextmanager
def handshaking(certificates: Certificates) -> Iterator[Handshaking]:
    server = Handshaking(certificates.server.context())
    try:
        yield server
    finally:
        server.close()


async def give_up_as_tls_opens(client: Client, server: Handshaking) -> None:
    """In the turn in which the socket is open, with the server's answer waiting in it."""
    loop = asyncio.get_running_loop()
    server.answered.clear()
    connecting = asyncio.create_task(client.send(server.origin, "GET", "/", []))
    ready, always = os.pipe()
    os.write(always, b"x")

    def look() -> None:
        if server.answered.wait(0.002):
            connecting.cancel()

    loop.add_reader(ready, look)
    try:
        async with soon():
            await asyncio.wait((connecting,))
    finally:
        loop.remove_reader(ready)
        os.close(ready)
        os.close(always)
    assert connecting.cancelled()


async def test_a_connection_that_is_given_up_as_it_opens_fails_nowhere(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    with handshaking(certificates) as server:
        async with using(tls=certificates.client.context()) as client:
            for _ in range(ATTEMPTS):
                await give_up_as_tls_opens(client, server)
    # What the loop is told of otherwise is raised at the end of the test.
    assert caplog.messages == []
