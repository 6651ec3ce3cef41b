"""The demo server as an `Upstream`, so that the endpoint in front of it is the proxy's own.

Nothing of a session is kept but what its client can bring back: a counting call names all that it needs in its
cursor, so that a server which was killed goes on where it was.
"""

from __future__ import annotations

import secrets

import msgspec

from shadowcat.core.exchange import Answer, Forwarded, MessageStream
from shadowcat.demo import offers
from shadowcat.demo.asked import Asked, Filter, Object, asked_by
from shadowcat.demo.call import LegacyCall, ModernCall, Questions
from shadowcat.demo.note import Note
from shadowcat.demo.run import Run
from shadowcat.demo.tools import Steps, listed, tool_of
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import LATEST_LEGACY, LEGACY_VERSIONS, MODERN_VERSIONS, Meta, Method

_TTL_MS = 60_000


class DemoServer:
    """Implements `core.ports.Upstream`."""

    name = "demo"

    def __init__(self) -> None:
        self.note = Note()

    async def open(self, initialize: Message) -> tuple[DemoSession, Message]:
        assert initialize.id is not None
        asked = asked_by(initialize)
        session = DemoSession(self, secrets.token_hex(16), asked.capabilities)
        result = {
            "protocolVersion": asked.version if asked.version in LEGACY_VERSIONS else LATEST_LEGACY,
            "capabilities": offers.CAPABILITIES,
            "serverInfo": offers.SERVER_INFO,
            "instructions": offers.INSTRUCTIONS,
        }
        return session, jsonrpc.result(initialize.id, result)

    def attach(self, upstream_id: str | None, version: str) -> DemoSession:
        session = DemoSession(self, upstream_id, {})
        # It may have subscribed in an earlier life. An update too many is looked at; one too few is missed.
        session.is_subscribed = True
        return session

    async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        assert request.id is not None
        try:
            return await self._modern(request.id, request)
        except Fault as fault:
            return Answer(whole=jsonrpc.error(request.id, fault.error()), status=fault.status)

    async def _modern(self, id: RequestId, request: Message) -> Answer:
        asked = asked_by(request)
        match request.method:
            case Method.TOOLS_CALL:
                tool = tool_of(asked.name, asked.arguments)
                meta = asked.meta
                call = ModernCall(id, meta.token, self.note, meta.capabilities, asked.answers)
                return await Run(tool.run(call)).answer()
            case Method.LISTEN:
                return await Run(self._subscription(id, asked.filter)).answer()
            case _:
                return Answer(whole=jsonrpc.result(id, self._modern_result(request.method, asked)))

    def _modern_result(self, method: str, asked: Asked) -> Object:
        complete: Object = {"resultType": "complete", "_meta": {Meta.SERVER_INFO: offers.SERVER_INFO}}
        lasting = {**complete, "ttlMs": _TTL_MS, "cacheScope": "public"}
        match method:
            case Method.DISCOVER:
                return {
                    **lasting,
                    "supportedVersions": [*MODERN_VERSIONS, *LEGACY_VERSIONS],
                    "capabilities": offers.CAPABILITIES,
                    "instructions": offers.INSTRUCTIONS,
                }
            case Method.PROMPTS_GET:
                return {**complete, **self.result(method, asked)}
            case Method.RESOURCES_READ:
                return {**lasting, "ttlMs": 0, **self.result(method, asked)}
            case _:
                return {**lasting, **self.result(method, asked)}

    async def _subscription(self, id: RequestId, filter: Filter) -> Steps:
        meta = {Meta.SUBSCRIPTION_ID: id}
        watches = offers.NOTE in filter.uris
        honoured: Object = {"resourceSubscriptions": [offers.NOTE]} if watches else {}
        edition = self.note.edition
        yield jsonrpc.notification(Method.ACKNOWLEDGED, {"_meta": meta, "notifications": honoured})
        while True:
            edition = await self.note.newer_than(edition)
            if watches:
                yield jsonrpc.notification(Method.RESOURCE_UPDATED, {"_meta": meta, "uri": offers.NOTE})

    def result(self, method: str, asked: Asked) -> Object:
        """Of what both eras ask for alike. Raises `Fault`."""
        match method:
            case Method.TOOLS_LIST:
                return {"tools": listed()}
            case Method.RESOURCES_LIST:
                return {"resources": offers.RESOURCES}
            case Method.TEMPLATES_LIST:
                return {"resourceTemplates": []}
            case Method.RESOURCES_READ:
                return offers.read(asked.uri, self.note.text)
            case Method.PROMPTS_LIST:
                return {"prompts": offers.PROMPTS}
            case Method.PROMPTS_GET:
                return offers.prompt(asked.name, asked.arguments or {})
            case _:
                raise Fault(FaultKind.METHOD_NOT_FOUND)

    async def aclose(self) -> None:
        """Nothing is open."""


class Place(msgspec.Struct):
    """How far a call has come, with all that it takes to go on."""

    id: RequestId
    token: RequestId | None
    name: str
    arguments: Object | None
    said: int

    def behind(self, said: int) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(self, said=said))


class DemoSession:
    """Implements `core.ports.Link`."""

    def __init__(self, server: DemoServer, upstream_id: str | None, capabilities: Object) -> None:
        self.upstream_id = upstream_id
        self.is_subscribed = False
        self._server = server
        self._capabilities = capabilities
        self._questions = Questions()

    async def exchange(self, request: Message) -> Answer:
        assert request.id is not None
        try:
            asked = asked_by(request)
            if request.method == Method.TOOLS_CALL:
                return await self._call(request.id, asked)
            return Answer(whole=jsonrpc.result(request.id, self._result(request.method, asked)))
        except Fault as fault:
            return Answer(whole=jsonrpc.error(request.id, fault.error()))

    async def _call(self, id: RequestId, asked: Asked) -> Answer:
        tool = tool_of(asked.name, asked.arguments)
        place = Place(id, asked.meta.token, asked.name, asked.arguments, 0)
        return await Run(tool.run(self._at(place)), place.behind if tool.can_go_on else None).answer()

    def _at(self, place: Place) -> LegacyCall:
        note = self._server.note
        return LegacyCall(place.id, place.token, note, self._capabilities, self._questions, place.said)

    def _result(self, method: str, asked: Asked) -> Object:
        match method:
            case Method.PING:
                return {}
            case Method.SUBSCRIBE | Method.UNSUBSCRIBE:
                if asked.uri == offers.NOTE:
                    self.is_subscribed = method == Method.SUBSCRIBE
                return {}
            case _:
                return self._server.result(method, asked)

    async def send(self, message: Message) -> None:
        """Of notifications only a cancellation matters, and who cancels a call closes its stream."""
        asked = self._questions.get(message.id) if message.is_response and message.id is not None else None
        if asked is not None and not asked.done():
            # A refusal to answer reads as an answer without anything in it.
            asked.set_result(message.result() if message.raw_result else {"action": "cancel"})

    async def listen(self) -> MessageStream:
        return Run(self._updates(self._server.note.edition))

    async def _updates(self, edition: int) -> Steps:
        while True:
            edition = await self._server.note.newer_than(edition)
            if self.is_subscribed:
                yield jsonrpc.notification(Method.RESOURCE_UPDATED, {"uri": offers.NOTE})

    def resume(self, cursor: bytes, *, standalone: bool) -> MessageStream:
        try:
            place = msgspec.json.decode(cursor, type=Place)
            tool = tool_of(place.name, place.arguments)
        except (msgspec.MsgspecError, Fault) as error:
            raise Fault(FaultKind.UPSTREAM_SESSION_LOST) from error
        return Run(tool.run(self._at(place)), place.behind, place.said)

    async def detach(self) -> None:
        """Nothing is held that is not in a cursor."""

    async def end(self) -> None:
        """Its streams are closed by who reads them."""
