"""The forward proxy: clients name the servers, and each name is checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from shadowcat.app.proxy import ReverseProxy
from shadowcat.core.ports import Upstream
from shadowcat.core.targets import TargetRules
from shadowcat.downstream.answers import refusal_response
from shadowcat.downstream.forward import ForwardEndpoint
from shadowcat.downstream.guard import PageGuard
from shadowcat.downstream.plain import PlainRelay
from shadowcat.downstream.streamable import EndpointOptions
from shadowcat.http.client import Origin
from shadowcat.http.limits import ServerLimits, Timeouts
from shadowcat.http.server import Server
from shadowcat.proxy.shared import SessionLimits
from shadowcat.proxy.targets import Targets
from shadowcat.upstream.command import Command
from shadowcat.upstream.fallback import UrlUpstream

log = logging.getLogger("shadowcat.forward")


class ForwardProxy(ReverseProxy):
    """`async with ForwardProxy(rules) as proxy: …`, with whatever else a `ReverseProxy` takes but servers.

    Clients reach any server that the rules allow through it, as through any HTTP proxy; each server's URL is an
    upstream, and a session is its own.
    """

    def __init__(self, rules: TargetRules, **options: Any) -> None:
        self._rules = rules
        super().__init__({}, **options)

    def _admits(self) -> Callable[[Origin, str], bool]:
        def admits(origin: Origin, address: str) -> bool:
            admitted = self._rules.admits(origin.host, address)
            if not admitted:
                log.warning("%s resolves to %s, which is not allowed", origin.host, address)
            return admitted

        return admits

    def _roster(self, upstreams: Mapping[str, str | Command | Upstream], call: Timeouts) -> Targets:
        def upstream_of(name: str, url: str) -> Upstream:
            return self._spoiled(UrlUpstream(name, url, self._client, call))

        return Targets(name_of, upstream_of)

    def _front(
        self, options: EndpointOptions, limits: SessionLimits, server_limits: ServerLimits | None
    ) -> Server:
        self.guard = PageGuard(loopback=True, origins=options.allow_origins)
        self._endpoint = ForwardEndpoint(
            self.relay,
            options,
            self.guard,
            self._rules,
            PlainRelay(self._client),
            limits.max_sessions,
            lambda: self.port,
        )
        targets = self.shared.upstreams
        assert isinstance(targets, Targets)
        targets.has_sessions = lambda name: any(
            session.core.record.upstream == name for session in self.relay.sessions
        )
        endpoint = self._endpoint
        return Server(endpoint.handle, server_limits, endpoint.forwarding, refusal_response)

    def _begin_to_leave(self) -> None:
        self._endpoint.begin_to_leave()

    async def _close_front(self, within_s: float) -> None:
        await self._endpoint.aclose(within_s)


def name_of(url: str) -> str:
    """For logs: queries hold secrets, and are told apart all the same."""
    plain, mark, query = url.removeprefix("http://").partition("?")
    return f"{plain}?{blake2b(query.encode(), digest_size=4).hexdigest()}" if mark else plain
