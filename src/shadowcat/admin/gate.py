"""Who may ask. Checked before routing, so that no route added later can bypass the check.

A page somewhere else must not reach the listener through the browser of somebody who can: not by a name that it had
point here (Host), nor by a script or a form (Origin, Sec-Fetch-Site). A browser that says neither of the latter two
still cannot send what `operations` wants of a POST.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from shadowcat.admin.answers import problem
from shadowcat.admin.options import AdminOptions
from shadowcat.wire.hosts import host_of, is_loopback

OPEN_PATHS = frozenset({"/", "/health", "/ready"})
"""Asked without a token: by probes, and by a browser for the page, which holds nothing before it was given one."""
_SAFE = frozenset({"GET", "HEAD"})
_FROM_HERE = frozenset({b"same-origin", b"none"})


class Refusal(NamedTuple):
    status: int
    reason: str
    told: str


class Asked(NamedTuple):
    """What of a request decides."""

    method: str
    path: str
    headers: dict[bytes, list[bytes]]

    @classmethod
    def of(cls, method: str, path: str, fields: Iterable[tuple[bytes, bytes]]) -> Asked:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            headers.setdefault(name.lower(), []).append(value)
        return cls(method, path, headers)

    def one(self, name: bytes) -> bytes | None:
        """None where it is missing, and nothing that anybody allows where it stands twice."""
        found = self.headers.get(name)
        if found is None:
            return None
        return found[0] if len(found) == 1 else b""


class Gate:
    def __init__(self, app: ASGIApp, options: AdminOptions) -> None:
        self._app = app
        self._loopback = is_loopback(options.listen.host)
        self._hosts = {host.lower().strip("[]") for host in options.allow_hosts}
        self._token = None if options.token is None else options.token.reveal().strip().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # nothing else is spoken here
        refusal = self.refusal(Asked.of(scope["method"], scope["path"], scope["headers"]))
        if refusal is None:
            await self._app(scope, receive, send)
            return
        headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else None
        await problem(*refusal, headers=headers)(scope, receive, send)

    def refusal(self, asked: Asked) -> Refusal | None:
        host = asked.one(b"host") or b""
        if not self._serves(host):
            return Refusal(403, "foreign_host", "Host is not served here")
        if not _is_from_here(asked, host):
            return Refusal(403, "foreign_origin", "Other pages may not ask")
        if not self._has_token(asked):
            return Refusal(401, "no_token", "The admin token is needed, as Authorization: Bearer")
        return None

    def _serves(self, host: bytes) -> bool:
        name = host_of(b"//" + host) if host else None
        if name is None:
            return False
        if name in self._hosts:
            return True
        return is_loopback(name) if self._loopback else not self._hosts

    def _has_token(self, asked: Asked) -> bool:
        if self._token is None or (asked.path in OPEN_PATHS and asked.method in _SAFE):
            return True
        scheme, _, given = (asked.one(b"authorization") or b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token)


def _is_from_here(asked: Asked, host: bytes) -> bool:
    origin = asked.one(b"origin")
    if origin is not None and origin.lower() not in (b"http://" + host.lower(), b"https://" + host.lower()):
        return False
    site = asked.one(b"sec-fetch-site")
    if site is None or site in _FROM_HERE:
        return True
    # Somebody followed a link to the page; no page of theirs sees what it shows.
    is_visit = asked.one(b"sec-fetch-mode") == b"navigate" and asked.one(b"sec-fetch-dest") == b"document"
    return is_visit and asked.method == "GET" and asked.path == "/"
