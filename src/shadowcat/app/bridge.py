"""`forward stdio --upstream`: stands in for a command, with HTTP servers behind it.

The session is ours, as in front of any server: its streams are resumed, and it is opened again where the server has
lost it, while the one client on our stdin hears nothing of that.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shadowcat.aio import Tasks
from shadowcat.app import logs
from shadowcat.app.bridge_settings import BridgeSettings
from shadowcat.app.machinery import Machinery
from shadowcat.app.plugins import Plugins
from shadowcat.app.process import run
from shadowcat.app.recording import recording
from shadowcat.app.standin import open_what_is_closed
from shadowcat.core.interceptor import Interceptor
from shadowcat.core.ports import TapSink
from shadowcat.downstream.conversation import MAX_RUNNING
from shadowcat.downstream.stderr import StderrWriter
from shadowcat.downstream.stdio import ClientListener, StdioClient
from shadowcat.downstream.stdio_front import StdioFront
from shadowcat.http.client import Client
from shadowcat.http.limits import ClientLimits, Timeouts
from shadowcat.http.tls import ClientTls
from shadowcat.plugins.message_log import message_log
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.proxy.shared import SessionLimits
from shadowcat.proxy.upstreams import Upstreams
from shadowcat.upstream.fallback import UrlUpstream
from shadowcat.upstream.routing import RoutedUpstream
from shadowcat.upstream.streamable import CALL
from shadowcat.wire.lines import OversizedLine

log = logging.getLogger("shadowcat.stdio")

SESSION_LOST = 1
"""The exit code when the session cannot go on: a client of stdio can begin anew only by starting us again."""
LAST_ANSWERS_S = 5.0
"""For what was asked before stdin was closed, as a command has it."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StdioBridge:
    """Servers that speak HTTP, behind our own stdio: `exit_code = await StdioBridge({"main": url}).run()`."""

    def __init__(
        self,
        upstreams: Mapping[str, str],
        *,
        interceptors: Sequence[Interceptor] = (),
        taps: Sequence[TapSink] = (),
        session_limits: SessionLimits | None = None,
        call_timeouts: Timeouts = CALL,
        client_tls: ssl.SSLContext | None = None,
        stdin: int = 0,
        stdout: int = 1,
    ) -> None:
        """`upstreams` are URLs by name, any of which serves the session; `stdin` and `stdout` are file descriptors."""
        # Each request under way has a connection of its own, and so do the streams that are listened to.
        http = Client(ClientLimits(connections_per_origin=2 * MAX_RUNNING), client_tls)
        servers = [
            RoutedUpstream(UrlUpstream(name, url, http, call_timeouts)) for name, url in upstreams.items()
        ]
        self._machinery = Machinery(
            Upstreams(servers), http, interceptors=interceptors, taps=taps, limits=session_limits
        )
        listener = ClientListener(self._heard, self._client_gone)
        self._client = StdioClient(listener, stdin=stdin, stdout=stdout)
        self._front = StdioFront(
            self._machinery.relay, self._client.write, self._session_lost, self._client.read_on
        )
        self._over = asyncio.Event()
        self._last_answers_s = LAST_ANSWERS_S
        self._exit_code = 0

    @property
    def pipeline(self) -> Pipeline:
        """What messages pass."""
        return self._machinery.shared.pipeline

    async def run(self) -> int:
        """Until the client closes our stdin, or the session cannot go on; returns what is to be the exit code."""
        try:
            self._machinery.start()
            await self._client.open()
            try:
                await self._over.wait()
                await self._front.end(self._last_answers_s)
            finally:
                await self._client.aclose()
        finally:
            await self._machinery.aclose()
        return self._exit_code

    def stop(self) -> None:
        """As if the client were gone, without waiting for what still runs."""
        self._last_answers_s = 0.0
        self._over.set()

    def _heard(self, lines: Sequence[bytes | OversizedLine]) -> None:
        self._front.heard(lines)

    def _client_gone(self) -> None:
        self._over.set()

    def _session_lost(self) -> None:
        if not self._over.is_set():
            log.error("the server cannot continue the session as it was: restart to open a new one")
            self._exit_code = SESSION_LOST
            self.stop()


def serve_bridge(settings: BridgeSettings, plugins: Plugins) -> int:
    """Runs until the client is gone, and returns the exit code. Raises `CannotRecord`."""
    open_what_is_closed()
    stderr = StderrWriter()
    logs.share(stderr, settings.log)
    plugins.desk.is_attended = False
    try:
        with recording(settings.record, "stdio", dict.fromkeys(settings.upstreams, "http")) as taps:
            return run(_serve(settings, plugins, taps))
    finally:
        stderr.close()


async def _serve(settings: BridgeSettings, plugins: Plugins, taps: Sequence[TapSink]) -> int:
    call_s = settings.sessions.call_s
    bridge = StdioBridge(
        {name: server.url for name, server in settings.upstreams.items()},
        interceptors=plugins.interceptors,
        taps=(*taps, *message_log(settings.log.level)),
        session_limits=settings.sessions,
        call_timeouts=replace(CALL, head_s=call_s, gap_s=call_s),
        client_tls=None if settings.upstream_tls == ClientTls() else settings.upstream_tls.context(),
    )
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # A second signal ends the process as it would without us.
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        bridge.stop()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    watching = Tasks("plugins")
    if plugins:
        watching.spawn(plugins.watch(bridge.pipeline), "look for changes")
    try:
        return await bridge.run()
    finally:
        await watching.aclose()
