"""What clients of a forward proxy ask of it: MCP to a server that they name, and what a client does besides to begin.

A server that was named has the endpoints that it would have behind a reverse proxy, at its own URL. What is no MCP is
relayed plainly where it can be no MCP to any server either; everything else is refused.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable

import msgspec
from msgspec import structs

from shadowcat.core.ports import Gateway
from shadowcat.core.targets import Target, TargetRules, target_of
from shadowcat.downstream.answers import fault_response
from shadowcat.downstream.body import whom_to_answer
from shadowcat.downstream.guard import SSE, Guard
from shadowcat.downstream.late import require_in_time
from shadowcat.downstream.plain import PlainRelay
from shadowcat.downstream.sse import SseEndpoint
from shadowcat.downstream.streamable import EndpointOptions, StreamableEndpoint
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.message import Peer, Request, Response
from shadowcat.http.serving import Forwarding
from shadowcat.wire import jsonrpc
from shadowcat.wire.hosts import is_loopback
from shadowcat.wire.mcp import Header

log = logging.getLogger("shadowcat.forward")

MAX_SITES = 200
"""Servers whose endpoints are kept; those without an open stream make room."""

_MESSAGE_MEMBERS = frozenset({"jsonrpc", "method", "result", "error"})
_FORM = b"application/x-www-form-urlencoded"
_FORM_BODY = re.compile(rb"[A-Za-z0-9*._~+%&=-]*")
"""No JSON, in whatever encoding: there are servers that do not look at Content-Type."""
_IN_SESSION = (Header.SESSION_ID, Header.PROTOCOL_VERSION, Header.LAST_EVENT_ID)


class ForwardEndpoint:
    def __init__(
        self,
        gateway: Gateway,
        options: EndpointOptions,
        guard: Guard,
        rules: TargetRules,
        plain: PlainRelay,
        sessions: int,
        own_port: Callable[[], int],
    ) -> None:
        self._gateway = gateway
        self._options = options
        self._guard = guard
        self._rules = rules
        self._plain = plain
        self._sessions = sessions
        self._own_port = own_port
        self._sites: dict[str, _Site] = {}
        self._is_leaving = False

    @property
    def forwarding(self) -> Forwarding:
        return Forwarding(_refuse_tls)

    async def handle(self, request: Request) -> Response:
        try:
            target, rest = _named(request)
            self._require_allowed(target)
            if request.method == "CONNECT":
                return Response(200)
            request.target = rest
            return await self._served(request, target)
        except Fault as fault:
            log.info("%s %s: %s", request.method, request.path, fault.message)
            return fault_response(fault, whom_to_answer(request.body) if request.body else None)

    def _require_allowed(self, target: Target) -> None:
        if not self._rules.allows(target):
            told = f"{target.authority} is no target of this proxy; --allow-target names those that are"
            raise Fault(FaultKind.FORBIDDEN, told, reason="foreign_target")
        if is_loopback(target.host) and target.port == self._own_port():
            told = "The target is this proxy itself"
            raise Fault(FaultKind.FORBIDDEN, told, reason="target_is_the_proxy")

    async def _served(self, request: Request, target: Target) -> Response:
        old = self._posted_to(request, target)
        if old is not None:
            return await old.handle(request)
        if not _is_mcp(request):
            require_in_time(request)
            return await self._plain.relay(request, target)
        site = self._site(target, request.target)
        if _opens_old_stream(request) and not site.speaks_streamable:
            return await site.old.handle(request)
        response = await site.streamable.respond(request)
        site.speaks_streamable = site.speaks_streamable or response.status < 300
        return response

    # Sites.

    def _site(self, target: Target, rest: bytes) -> _Site:
        url = f"http://{target.authority}{rest.decode('ascii')}"
        site = self._sites.pop(url, None)
        if site is None:
            if len(self._sites) >= MAX_SITES:
                self._make_room()
            site = _Site(self._gateway, self._options, self._guard, target, url, self._sessions)
            if self._is_leaving:
                site.begin_to_leave()
        # The last one used stands last.
        self._sites[url] = site
        return site

    def _make_room(self) -> None:
        for url, site in self._sites.items():
            if not len(site.old):
                del self._sites[url]
                return
        raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_targets")

    def _posted_to(self, request: Request, target: Target) -> SseEndpoint | None:
        """The endpoint of HTTP+SSE that told its client to post here."""
        if request.method != "POST" or b"/messages?" not in request.target:
            return None
        at_path = [
            site.old
            for site in self._sites.values()
            if site.target == target and len(site.old) and site.old.takes_messages_at(request.path)
        ]
        # URLs that differ in their queries only have this path in common.
        return next((old for old in at_path if old.has_session_of(request)), at_path[0] if at_path else None)

    # The end.

    def begin_to_leave(self) -> None:
        self._is_leaving = True
        for site in self._sites.values():
            site.begin_to_leave()

    async def aclose(self, within_s: float) -> None:
        if self._sites:
            await asyncio.gather(*(site.old.aclose(within_s) for site in self._sites.values()))


class _Site:
    """One server's URL, and the endpoints at it."""

    def __init__(
        self,
        gateway: Gateway,
        options: EndpointOptions,
        guard: Guard,
        target: Target,
        url: str,
        sessions: int,
    ) -> None:
        path = url.removeprefix(f"http://{target.authority}").partition("?")[0]
        streamable = structs.replace(options, path=path, sse_path=f"{path}/sse")
        old = structs.replace(options, path=f"{path}/mcp", sse_path=path)
        self.target = target
        self.streamable = StreamableEndpoint(gateway, streamable, guard, route=url)
        self.old = SseEndpoint(gateway, old, guard, sessions, route=url)
        self.speaks_streamable = False

    def begin_to_leave(self) -> None:
        self.streamable.begin_to_leave()
        self.old.drain()


def _named(request: Request) -> tuple[Target, bytes]:
    """The server that a request is for, and the path and query on it."""
    raw = request.target
    if request.method == "CONNECT":
        return target_of(raw), b""
    tunnel = request.peer.tunnel if request.peer is not None else None
    if tunnel is not None:
        target, rest = target_of(tunnel), raw
        if target_of(request.headers.get(b"host") or b"") != target:
            told = "Host is not where the tunnel leads to"
            raise Fault(FaultKind.FORBIDDEN, told, reason="foreign_host")
    else:
        scheme, separator, after = raw.partition(b"://")
        if raw[:1] == b"/" or not separator:
            told = "This is a forward proxy: give its address to clients as http_proxy, and the server's as it is"
            raise Fault(FaultKind.INVALID_REQUEST, told, reason="no_target")
        if scheme.lower() != b"http":
            raise Fault(FaultKind.INVALID_REQUEST, _NO_TLS, reason="https_target")
        authority, slash, path = after.partition(b"/")
        authority, mark, query = authority.partition(b"?")
        # A query may follow the host at once.
        target, rest = target_of(authority), b"/" + mark + query + slash + path if mark else b"/" + path
    if rest[:1] != b"/" or not rest.isascii():
        raise Fault(FaultKind.INVALID_REQUEST, "The target has no path")
    return target, rest


_NO_TLS = "A forward proxy cannot reach servers that speak TLS: use --upstream URL for them"


def _refuse_tls(peer: Peer) -> str:
    log.warning("a client speaks TLS to %s: %s", (peer.tunnel or b"").decode("latin-1"), _NO_TLS)
    return _NO_TLS


def _is_mcp(request: Request) -> bool:
    """Or might be to a server that is not strict: what interceptors must see never gets around them."""
    match request.method:
        case "POST":
            return _is_message(request)
        case "GET":
            return SSE in (request.headers.get(b"accept") or b"").lower()
        case "DELETE" | "OPTIONS":
            return True
        case _:
            return False


def _is_message(request: Request) -> bool:
    body = request.body
    kind = (request.headers.get(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind == _FORM and _FORM_BODY.fullmatch(body):
        return False
    if b'"jsonrpc"' in body:
        return True
    try:
        members = jsonrpc.members(body)
    except (Fault, msgspec.MsgspecError):
        return True
    return not {name.casefold() for name in members}.isdisjoint(_MESSAGE_MEMBERS)


def _opens_old_stream(request: Request) -> bool:
    """A client of Streamable HTTP listens in a session only."""
    return request.method == "GET" and not any(name in request.headers for name in _IN_SESSION)
