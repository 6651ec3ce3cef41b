"""Plays tapes: as the server, over HTTP or our stdin and stdout; as the client, against a server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from shadowcat.app.process import until_stopped
from shadowcat.app.proxy import ReverseProxy
from shadowcat.core.likeness import Likeness
from shadowcat.downstream.stdio import ClientListener, StdioClient
from shadowcat.http.client import Client
from shadowcat.replay.client import Found, TapeClient
from shadowcat.replay.files import open_all, tapes_of
from shadowcat.replay.options import ReplayOptions
from shadowcat.replay.pipe import TapePipe
from shadowcat.replay.recorded import Recording
from shadowcat.replay.server import NAME, TapeServer, TapeUpstream
from shadowcat.upstream.command import Command
from shadowcat.upstream.fallback import UrlUpstream
from shadowcat.upstream.stdio import StdioUpstream
from shadowcat.upstream.streamable import CALL
from shadowcat.wire.hosts import Address
from shadowcat.wire.text import counted

log = logging.getLogger("shadowcat.replay")

__all__ = ["Command", "ReplayOptions", "pipe_tape", "play_client", "serve_tape"]

_SERVER = "server"
_DRAIN_S = 1.0


@contextmanager
def recording_at(path: str, options: ReplayOptions) -> Generator[Recording]:
    """Raises `TapeError` for what cannot be played, `OSError` for what cannot be read, `ValueError` for a pointer."""
    likeness = Likeness(options.ignore, strict=options.strict)
    files = open_all(tapes_of(Path(path)))
    try:
        recording = Recording(files, likeness, options.session)
        if any(file.tape.is_torn for file in files):
            log.warning("the last line of the tape is torn: it is left out")
        yield recording
    finally:
        for file in files:
            file.close()


async def serve_tape(
    tape: str, options: ReplayOptions, listen: Address, announce: Callable[[str], None]
) -> None:
    """Over HTTP, by the machinery that stands before any server, until told to stop."""
    with recording_at(tape, options) as recording:
        upstream = TapeUpstream(TapeServer(recording, options))
        async with ReverseProxy({NAME: upstream}, host=listen.host, port=listen.port) as proxy:

            def serving() -> None:
                host = f"[{listen.host}]" if ":" in listen.host else listen.host
                announce(f"playing {contents(recording)} on http://{host}:{proxy.port}/mcp (Ctrl-C stops it)")

            await until_stopped(lambda: proxy.drain(_DRAIN_S), serving)


async def pipe_tape(tape: str, options: ReplayOptions, stdin: int = 0, stdout: int = 1) -> None:
    """In place of a command, until the client ends it."""
    with recording_at(tape, options) as recording:
        gone = asyncio.Event()
        pipe = TapePipe(TapeServer(recording, options), lambda line: client.write(line))
        client = StdioClient(ClientListener(pipe.heard, gone.set), stdin=stdin, stdout=stdout)
        await client.open()
        try:
            await gone.wait()
        finally:
            await pipe.aclose()
            await client.aclose()


async def play_client(
    tape: str, options: ReplayOptions, server: str | Command, tell: Callable[[str], object]
) -> Found:
    """Raises `Fault` for a server that cannot be reached."""
    http = Client()
    is_command = isinstance(server, Command)
    if isinstance(server, Command):
        upstream = StdioUpstream(_SERVER, server)
    else:
        upstream = UrlUpstream(_SERVER, server, http, CALL)
    try:
        with recording_at(tape, options) as recording:
            return await TapeClient(recording, upstream, options, tell, is_command=is_command).run()
    finally:
        await upstream.aclose()
        await http.aclose()


def contents(recording: Recording) -> str:
    sessions = len(recording.sessions)
    requests = sum(len(session.exchanges) for session in (*recording.sessions, recording.stateless))
    return f"{counted(requests, 'request')} of {counted(sessions, 'session')}"
