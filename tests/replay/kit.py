"""A session recorded through the proxy, and played again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shadowcat import ReverseProxy
from shadowcat.app.replay import recording_at
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.recorder import Recorder
from shadowcat.replay.client import Found, TapeClient
from shadowcat.replay.options import ReplayOptions
from shadowcat.replay.server import NAME, TapeServer, TapeUpstream
from tests.rig.client import Client, client_of
from tests.rig.server import McpServer
from tests.rig.stand import Stand, stand


@asynccontextmanager
async def recorded(
    directory: Path, *, record: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Stand]:
    recorder = Recorder(RecordOptions(directory=str(directory), **(record or {})), upstreams={"a": "http"})
    recorder.start()
    try:
        async with stand(taps=[recorder], **options) as rig:
            yield rig
    finally:
        recorder.close()


@asynccontextmanager
async def playing(directory: Path, **options: Any) -> AsyncIterator[ReverseProxy]:
    given = ReplayOptions(**options)
    with recording_at(str(directory), given) as recording:
        upstream = TapeUpstream(TapeServer(recording, given))
        async with ReverseProxy({NAME: upstream}, port=0) as proxy:
            yield proxy


@asynccontextmanager
async def played(directory: Path, **options: Any) -> AsyncIterator[Client]:
    """A client of the tape."""
    async with playing(directory, **options) as proxy, client_of(proxy.port) as client:
        yield client


async def against(directory: Path, server: McpServer, **options: Any) -> tuple[Found, list[str]]:
    """The tape's client against a server, and the differences."""
    from shadowcat.http.client import Client as HttpClient
    from shadowcat.upstream.fallback import UrlUpstream
    from shadowcat.upstream.streamable import CALL

    given = ReplayOptions(**options)
    told: list[str] = []
    http = HttpClient()
    upstream = UrlUpstream("server", server.url, http, CALL)
    try:
        with recording_at(str(directory), given) as recording:
            found = await TapeClient(recording, upstream, given, told.append).run()
    finally:
        await upstream.aclose()
        await http.aclose()
    return found, told
