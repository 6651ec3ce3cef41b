"""Asks an HTTP endpoint what clients would. Changes nothing: it ends the session that it opens."""

from __future__ import annotations

import asyncio
import ssl
import statistics
from collections.abc import Awaitable
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from shadowcat.doctor.asking import ANSWER_S, Asking, Reply, legacy, modern
from shadowcat.doctor.facts import (
    CallSeen,
    HttpFacts,
    Latency,
    Opened,
    Refused,
    Resumed,
    StreamSeen,
    UnlistedTool,
)
from shadowcat.doctor.host_check import status_for_host
from shadowcat.doctor.lists import MAX_PAGES, METHODS, cursor_of, flaws_of, names_of
from shadowcat.doctor.loose import as_list, promise_of, refusal_of
from shadowcat.doctor.patience import Tell, telling
from shadowcat.doctor.scheme_check import speaks_http, speaks_tls
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client, Origin
from shadowcat.http.message import HeaderList
from shadowcat.wire import jsonrpc
from shadowcat.wire.hosts import is_loopback
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import LATEST_LEGACY, LEGACY_VERSIONS, Header, Meta, Method

T = TypeVar("T")

SAMPLES = 5
LISTEN_S = 3.0
CALL_S = 30.0
PARTING_S = 1.0
FOREIGN = "shadowcat-doctor.invalid"
"""A name that no web page of the server's owner has."""


class HttpProbe:
    """`facts` holds what was seen so far, also when the run is cut short."""

    def __init__(
        self,
        url: str,
        client: Client,
        more: HeaderList | None = None,
        call: tuple[str, dict[str, Any]] | None = None,
        tell: Tell = lambda _: None,
    ) -> None:
        self._tell = tell
        parts = urlsplit(url)
        self.facts = HttpFacts(url, is_loopback(parts.hostname or ""), parts.scheme == "https")
        self._more = more or []
        self._asking = Asking(url, client, self._more)
        self._call = call
        self._session: HeaderList = []
        self._tools: list[str] | None = None
        """None unless all pages of them were seen."""
        self._next_id = 0

    async def run(self) -> None:
        if not await self._open_modern():
            await self._look_for_other_scheme()
            return
        await self._open_legacy()
        if not isinstance(self.facts.legacy, Opened) and not isinstance(self.facts.modern, Opened):
            await self._look_for_old_transport()
            if not self.facts.is_old_transport:
                await self._look_for_other_scheme()
            return
        try:
            await self._look_around()
        except asyncio.CancelledError:
            # The time is up: nobody waits long for what the server says to this.
            await self._end_session(PARTING_S)
            raise
        await self._end_session()

    async def _look_around(self) -> None:
        await self._measure()
        if isinstance(self.facts.legacy, Opened):
            await self._ask_for_other_versions()
            await self._check_session_ids()
            await self._listen()
        await self._list()
        await self._come_from_elsewhere()
        if self._call is not None:
            await self._call_tool(*self._call)

    # The eras.

    async def _open_modern(self) -> bool:
        """False where nothing can be asked at all."""
        facts = self.facts
        try:
            with telling(self._tell, f"the answer: {Method.DISCOVER}"):
                reply = await self._asking.post(*modern(self._id(), Method.DISCOVER))
        except Fault as fault:
            facts.unreachable, facts.detail = _why(fault), _detail(fault)
            # What answers nothing to a request that it does not know may answer another one.
            return fault.kind is not FaultKind.UPSTREAM_UNAVAILABLE
        facts.challenge = reply.headers.get("www-authenticate", "") if reply.status == 401 else ""
        facts.modern = _opened(reply, facts.url)
        return True

    async def _open_legacy(self) -> None:
        reply = await self._tried("initialize", self._asking.post(legacy(self._id(), LATEST_LEGACY), []))
        if reply is None:
            return
        self.facts.unreachable = ""
        self.facts.legacy = _opened(reply, self.facts.url)
        if not isinstance(self.facts.legacy, Opened):
            return
        self._note_ids(reply)
        self._session = [(Header.PROTOCOL_VERSION, self.facts.legacy.versions[0].encode())]
        session_id = reply.headers.get("mcp-session-id")
        if session_id is not None:
            self._session.append((Header.SESSION_ID, session_id.encode("latin-1")))
        said = await self._tried(
            "initialized", self._asking.post(jsonrpc.notification(Method.INITIALIZED), self._session)
        )
        self.facts.initialized_status = said.status if said is not None else None

    async def _ask_for_other_versions(self) -> None:
        """Each opens a session of its own, which is ended at once."""
        opened = self.facts.legacy
        assert isinstance(opened, Opened)
        for version in LEGACY_VERSIONS:
            if version in opened.versions:
                continue
            reply = await self._tried(
                f"initialize {version}", self._asking.post(legacy(self._id(), version), [])
            )
            if reply is None:
                return
            if reply.result.get("protocolVersion") == version:
                opened.versions.append(version)
            if session_id := reply.headers.get("mcp-session-id"):
                headers = [(Header.SESSION_ID, session_id.encode("latin-1"))]
                await self._tried("DELETE", self._asking.delete(headers))

    async def _look_for_old_transport(self) -> None:
        reply = await self._tried("GET", self._asking.get([], within_s=LISTEN_S))
        self.facts.is_old_transport = reply is not None and reply.is_stream and reply.has_endpoint

    async def _look_for_other_scheme(self) -> None:
        if self.facts.unreachable == "connection_refused":
            return
        origin, is_tls = Origin.of(self.facts.url), self.facts.is_tls
        if await (speaks_http if is_tls else speaks_tls)(origin.host, origin.port):
            self.facts.speaks = "http" if is_tls else "https"

    # What is asked of one that is open.

    async def _ask(
        self, method: str, params: dict[str, Any] | None = None, *more: tuple[bytes, bytes]
    ) -> Reply:
        message, headers = self._request(method, params)
        return await self._asking.post(message, [*headers, *more])

    def _request(self, method: str, params: dict[str, Any] | None = None) -> tuple[Message, HeaderList]:
        """In the era that is open; of both, in the one with sessions."""
        id = self._id()
        if isinstance(self.facts.legacy, Opened):
            return jsonrpc.request(id, method, params), self._session
        return modern(id, method, params)

    @property
    def _harmless(self) -> str:
        return Method.PING if isinstance(self.facts.legacy, Opened) else Method.DISCOVER

    async def _measure(self) -> None:
        took: list[float] = []
        for _ in range(SAMPLES):
            reply = await self._tried(self._harmless, self._ask(self._harmless))
            if reply is None or reply.message is None:
                return
            took.append(reply.took_ms)
            self._note_ids(reply)
        self.facts.latency = Latency(statistics.median(took), SAMPLES, self._harmless)

    async def _check_session_ids(self) -> None:
        opened = self.facts.legacy
        assert isinstance(opened, Opened)
        if not opened.has_session_id:
            return
        version = [field for field in self._session if field[0] == Header.PROTOCOL_VERSION]
        stranger = [*version, (Header.SESSION_ID, b"shadowcat-doctor-made-this-up")]
        for headers, field in ((stranger, "unknown_session_status"), (version, "missing_session_status")):
            ping = jsonrpc.request(self._id(), Method.PING)
            reply = await self._tried("ping outside the session", self._asking.post(ping, headers))
            setattr(self.facts, field, reply.status if reply is not None else None)

    async def _listen(self) -> None:
        try:
            reply = await self._asking.get(self._session, within_s=LISTEN_S)
        except Fault as fault:
            if fault.kind is not FaultKind.DEADLINE:
                self.facts.failed.append(f"GET: {fault.reason}")
                return
            self.facts.stream = StreamSeen(None, waited_s=LISTEN_S)
            return
        self.facts.stream = StreamSeen(
            reply.status,
            reply.content_type,
            reply.headers.get("cache-control", ""),
            reply.headers.get("x-accel-buffering", ""),
            reply.first_ms,
            bool(reply.ids),
            LISTEN_S,
        )

    async def _list(self) -> None:
        opened = self.facts.legacy if isinstance(self.facts.legacy, Opened) else self.facts.modern
        assert isinstance(opened, Opened)
        for capability, method in METHODS.items():
            if capability not in opened.capabilities:
                continue
            reply = await self._tried(method, self._ask(method))
            if reply is None:
                continue
            self.facts.listed[capability] = len(as_list(reply.result.get(capability)))
            self._note_ids(reply)
            names = await self._leaf_through(capability, reply)
            if capability == "tools":
                self._tools = names
            if reply.is_stream and reply.ids and self.facts.resumed is None and self._call is None:
                await self._resume(reply.ids[0], reply.message)

    async def _leaf_through(self, capability: str, first: Reply) -> list[str] | None:
        """Looks at each page as a client does that reads them all. Returns the names, or None without the last page."""
        method, flaws = METHODS[capability], self.facts.flaws
        names: list[str] = []
        seen: set[str] = set()
        reply: Reply | None = first
        for _ in range(MAX_PAGES):
            if reply is None or not reply.result:
                return None
            flaws += flaws_of(capability, reply.result)
            names += names_of(capability, reply.result)
            cursor = cursor_of(reply.result)
            if cursor is None:
                return names
            if cursor in seen:
                flaws.append(f"{method} has no last page: its nextCursor {cursor!r} comes again and again")
                return None
            seen.add(cursor)
            reply = await self._tried(method, self._ask(method, {"cursor": cursor}))
        return None

    async def _come_from_elsewhere(self) -> None:
        """Next to each foreign name the same without it: a server may refuse that too, and for another reason."""
        facts, origin = self.facts, (b"origin", f"https://{FOREIGN}".encode())
        facts.no_origin_status = await self._status_of("no Origin")
        facts.foreign_origin_status = await self._status_of("a foreign Origin", origin)
        if facts.is_loopback and not facts.is_tls:
            own = Origin.of(facts.url).authority
            facts.own_host_status = await self._status_for_host("its own Host", own)
            facts.foreign_host_status = await self._status_for_host("a foreign Host", FOREIGN)

    async def _status_of(self, what: str, *more: tuple[bytes, bytes]) -> int | None:
        reply = await self._tried(what, self._ask(self._harmless, None, *more))
        return reply.status if reply is not None else None

    async def _status_for_host(self, what: str, host: str) -> int | None:
        message, headers = self._request(self._harmless)
        asked = status_for_host(self.facts.url, host, message.raw, [*headers, *self._more])
        return await self._tried(what, asked)

    async def _call_tool(self, name: str, arguments: dict[str, Any]) -> None:
        if self._tools is not None and name not in self._tools:
            self.facts.call = UnlistedTool(name, self._tools)
            return
        params = {"name": name, "arguments": arguments, "_meta": {Meta.PROGRESS_TOKEN: "doctor"}}
        id = self._id()
        if isinstance(self.facts.legacy, Opened):
            asked = self._asking.post(jsonrpc.request(id, Method.TOOLS_CALL, params), self._session, CALL_S)
        else:
            asked = self._asking.post(*modern(id, Method.TOOLS_CALL, params), CALL_S)
        reply = await self._tried(f"tools/call {name}", asked)
        if reply is None:
            return
        if reply.message is None or reply.message.raw_error:
            self.facts.call = _refused(reply, self.facts.url)
            return
        self._note_ids(reply)
        self.facts.call = CallSeen(
            name,
            reply.status,
            reply.is_stream,
            reply.result.get("isError") is True,
            reply.arrivals_ms or [reply.took_ms],
            bool(reply.ids),
            reply.headers.get("cache-control", ""),
            reply.headers.get("x-accel-buffering", ""),
        )
        if reply.ids and isinstance(self.facts.legacy, Opened):
            await self._resume(reply.ids[0], reply.message)

    async def _resume(self, last_id: bytes, answer: Message | None) -> None:
        id = answer.id if answer is not None else None
        headers = [*self._session, (Header.LAST_EVENT_ID, last_id)]
        reply = await self._tried("resuming", self._asking.get(headers, until=id, within_s=LISTEN_S))
        if reply is not None:
            self.facts.resumed = Resumed(reply.status, reply.message is not None)

    async def _end_session(self, within_s: float = ANSWER_S) -> None:
        if any(name == Header.SESSION_ID for name, _ in self._session):
            reply = await self._tried("DELETE", self._asking.delete(self._session, within_s))
            self.facts.delete_status = reply.status if reply is not None else None

    # Parts.

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _note_ids(self, reply: Reply) -> None:
        if reply.is_stream:
            self.facts.event_ids = bool(self.facts.event_ids) or bool(reply.ids)

    async def _tried(self, what: str, asked: Awaitable[T]) -> T | None:
        """What does not come is a fact like any other."""
        try:
            with telling(self._tell, f"the answer: {what}"):
                return await asked
        except Fault as fault:
            self.facts.failed.append(f"{what}: {fault.reason}")
            return None


def _opened(reply: Reply, url: str) -> Opened | Refused:
    has_session_id = "mcp-session-id" in reply.headers
    promise = promise_of(reply.result, reply.took_ms, has_session_id=has_session_id)
    return _refused(reply, url) if promise is None or not 200 <= reply.status < 300 else promise


def _refused(reply: Reply, url: str) -> Refused:
    code, message = refusal_of(reply.message)
    flaw = reply.flaw
    if reply.message is not None and not reply.message.raw_error:
        flaw = "a result that names no protocol version"
    location = reply.headers.get("location", "")
    try:
        leads_to = urljoin(url, location) if location else ""
    except ValueError:
        leads_to, flaw = "", f"a Location that is no URL: {location}"
    return Refused(reply.status, reply.content_type, code, message, flaw, leads_to)


def _why(fault: Fault) -> str:
    # A connection may be closed before we hear that it is open.
    return "upstream_connection_lost" if isinstance(fault.__cause__, ConnectionResetError) else fault.reason


def _detail(fault: Fault) -> str:
    cause = fault.__cause__
    if cause is None and fault.sent:
        # What it means for a call is of no interest here.
        return ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    # The words of the operating system, without its number.
    told = (cause.strerror if isinstance(cause, OSError) else None) or cause
    return fault.message if told is None else str(told)
