"""Two nodes and one store: a session is served by one of them, whichever the client speaks to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from shadowcat import ReverseProxy
from shadowcat.app.proxy import Cluster
from shadowcat.core import kept, peer
from shadowcat.core.ledger import Held, Refusal, SessionChange, StoredSession
from shadowcat.core.session import State
from shadowcat.downstream import streamable
from shadowcat.proxy.book import STANDALONE
from shadowcat.proxy.session import Session
from shadowcat.proxy.writer import Durability
from shadowcat.secret import Secret
from shadowcat.stores.memory import MemoryStore
from tests.http.kit import wire_to
from tests.rig.cases import refused
from tests.rig.client import ACCEPT, JSON, Client, client_of, rpc
from tests.rig.server import Call, McpServer, Stream, mcp_server
from tests.rig.wait import happens, soon, until
from tests.rig.wire import Seen

KEY = b"a key that the nodes share"


class Fragile(MemoryStore):
    """Away for as long as a test wants it to be."""

    is_away = False

    def _require(self) -> None:
        if self.is_away:
            raise ConnectionError("the store is away")

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        self._require()
        return await super().write(changes)

    async def claim(self, session_id: str, node: str) -> StoredSession | Held | None:
        self._require()
        return await super().claim(session_id, node)

    async def renew(self, node: str, lease_s: float) -> None:
        self._require()
        await super().renew(node, lease_s)


@dataclass(eq=False)
class Nodes:
    server: McpServer
    store: Fragile
    one: ReverseProxy
    two: ReverseProxy
    client: Client
    """Opens its sessions on the first node."""
    other: Client
    """Speaks to the second."""
    streams: list[Stream]

    async def opened(self) -> None:
        await self.client.initialize()
        self.other.session_id, self.other.version = self.client.session_id, self.client.version


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    store = Fragile(is_shared=True)
    streams: list[Stream] = []

    async def on_call(call: Call) -> None:
        stream = await call.stream()
        streams.append(stream)
        await stream.over.wait()

    async def on_get(seen: Seen) -> None:
        await seen.begin("text/event-stream")
        stream = Stream(seen)
        streams.append(stream)
        await stream.over.wait()

    async with mcp_server(name="a", answers_json=False) as server:
        server.handlers["tools/call"] = on_call
        server.on_get = on_get
        async with (
            _node(server, store) as one,
            _node(server, store) as two,
            client_of(one.port) as client,
            client_of(two.port) as other,
        ):
            yield Nodes(server, store, one, two, client, other, streams)
            for stream in [*streams, *server.listening]:
                stream.over.set()


def _node(server: McpServer, store: MemoryStore, lease_s: float = 0.6) -> ReverseProxy:
    proxy = ReverseProxy(
        {"a": server.url},
        port=0,
        store=store,
        durability=Durability(gather_s=0.0),
        cluster=Cluster("http://127.0.0.1:1", Secret(KEY.decode()), lease_s),
    )
    # Its port is known once it listens, and its lease begins after that.
    opened = proxy.server.listen

    async def listen(*where: Any, **how: Any) -> None:
        await opened(*where, **how)
        node = f"http://127.0.0.1:{proxy.port}"
        proxy.shared.node = node
        assert proxy.shared.lease is not None
        proxy.shared.lease._node = node  # pyright: ignore[reportPrivateUsage]
        assert proxy._peers is not None  # pyright: ignore[reportPrivateUsage]
        proxy._peers._own = node.encode()  # pyright: ignore[reportPrivateUsage]

    proxy.server.listen = listen  # type: ignore[method-assign]
    return proxy


def note(number: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"n": number}}


async def test_a_request_finds_its_session_on_the_other_node(nodes: Nodes) -> None:
    await nodes.opened()
    assert "result" in await nodes.other.call("tools/list")
    assert (await nodes.other.notify("notifications/roots/list_changed")).status == 202
    assert len(nodes.two.relay.sessions) == 0
    assert {seen.get("mcp-session-id") for seen in nodes.server.got("tools/list")} == {"up-a-1"}
    assert len(nodes.server.got("notifications/roots/list_changed")) == 1


async def test_so_do_streams_questions_and_their_answers(nodes: Nodes) -> None:
    await nodes.opened()
    reply = await nodes.other.begin("tools/call", {"name": "t"}, 1)
    await until(lambda: nodes.streams)
    (stream,) = nodes.streams
    await stream.send(note(1))
    assert (await reply.message())["params"] == {"n": 1}
    await stream.request("q1", "elicitation/create", {})
    question = await reply.message()
    await nodes.other.send({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}})
    assert (await nodes.server.answer_to("q1")).json["result"] == {"action": "accept"}
    await stream.send({"jsonrpc": "2.0", "id": stream.seen.json["id"], "result": {}})
    assert (await reply.messages())[-1] == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_a_stream_is_resumed_through_the_other_node(nodes: Nodes) -> None:
    await nodes.opened()
    reply = await nodes.client.begin("tools/call", {"name": "t"}, 1)
    await until(lambda: nodes.streams)
    (stream,) = nodes.streams
    await stream.send(note(1))
    await reply.message()
    reply.cut()
    await stream.send(note(2))
    again = await nodes.other.listen(reply.last_id)
    assert (await again.message())["params"] == {"n": 2}


async def test_a_session_is_ended_through_the_other_node(nodes: Nodes) -> None:
    await nodes.opened()
    assert (await nodes.other.delete()).status == 200
    await nodes.server.gets("DELETE")
    await refused(await nodes.client.begin("tools/list", id=7), 404, -32600, 7)
    await refused(await nodes.other.begin("tools/list", id=8), 404, -32600, 8)


async def test_a_node_that_is_gone_is_taken_over_from(nodes: Nodes) -> None:
    """Killed as it were: its lease is not renewed, nor does it answer."""
    await nodes.opened()
    reply = await nodes.client.begin("tools/call", {"name": "t"}, 1)
    await until(lambda: nodes.streams)
    await nodes.streams[0].send(note(1), id="u1")
    await reply.message()
    assert nodes.one.shared.writer is not None
    assert await nodes.one.shared.writer.flush(5.0)
    await _dies(nodes.one)
    again = await nodes.other.listen(reply.last_id)
    await until(lambda: len(nodes.streams) == 2)
    resumed = nodes.streams[1]
    assert resumed.seen.get("last-event-id") == "u1"
    await resumed.send(note(2), id="u2")
    assert (await again.message())["params"] == {"n": 2}
    assert len(nodes.two.relay.sessions) == 1


async def test_an_answer_that_a_dying_node_was_given_is_given_to_the_next(nodes: Nodes) -> None:
    """Nobody knows whether it got any further: that it comes twice does no harm, that it does not come would."""
    await nodes.opened()
    reply = await nodes.client.begin("tools/call", {"name": "t"}, 1)
    await until(lambda: nodes.streams)
    asking = {"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {}}
    await nodes.streams[0].send(asking, id="u1")
    question = await reply.message()
    assert nodes.one.shared.writer is not None
    assert await nodes.one.shared.writer.flush(5.0)
    given: list[Call] = []

    async def hang(call: Call) -> None:
        given.append(call)
        if len(given) == 1:
            await happens(call.seen.dropped)
        await call.seen.respond(202)

    nodes.server.handlers["answer"] = hang
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
    answering = asyncio.create_task(nodes.other.send(answer))
    await until(lambda: given)
    await _dies(nodes.one)
    assert (await answering).status == 202
    assert [call.message["id"] for call in given] == ["q1", "q1"]


@pytest.mark.parametrize("is_over", [True, False])
async def test_a_session_that_is_handed_over_while_it_is_looked_for_is_not_unknown(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, is_over: bool
) -> None:
    await nodes.opened()
    sessions: Any = nodes.one.relay.sessions
    (session,) = sessions
    look = sessions._look

    async def and_hand_over(session_id: str) -> Any:
        """As when the loop stood still between finding it and going on with it."""
        found = await look(session_id)
        monkeypatch.undo()
        leaving = nodes.one.shared.tasks.spawn(sessions._release(session), "hand over")
        sessions._leaving[session_id] = leaving
        leaving.add_done_callback(lambda _: sessions._leaving.pop(session_id))
        if is_over:
            await asyncio.wait((leaving,))
        return found

    monkeypatch.setattr(sessions, "_look", and_hand_over)
    found = await sessions.find(session.id, session.core.caller)
    assert isinstance(found, Session)
    assert found is not session
    assert found.core.state is State.OPEN


async def _dies(node: ReverseProxy) -> None:
    async def nothing() -> None: ...

    assert node.shared.lease is not None
    node.shared.lease._renew = nothing  # pyright: ignore[reportPrivateUsage]
    await node.server.aclose()


async def test_a_node_that_stops_hands_its_sessions_over(nodes: Nodes) -> None:
    await nodes.opened()
    await nodes.one.drain(0.0)
    assert "result" in await nodes.other.call("tools/list")
    assert len(nodes.two.relay.sessions) == 1
    assert nodes.server.got("DELETE") == []


async def test_what_does_not_run_is_handed_over_before_what_does(nodes: Nodes) -> None:
    """Whoever comes to the other node must not wait for calls that are none of his."""
    await nodes.opened()
    async with client_of(nodes.one.port) as busy:
        await busy.initialize()
        reply = await busy.begin("tools/call", {"name": "t"}, 1)
        await until(lambda: nodes.streams)
        draining = asyncio.create_task(nodes.one.drain(60.0))
        standalone = await nodes.other.listen()
        assert standalone.status == 200
        assert "result" in await nodes.other.call("tools/list")
        assert not draining.done()
        # Whoever stands in front goes to the other node when a connection is refused, and on no status.
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", busy.port)
        (stream,) = nodes.streams
        await stream.send(note(1))
        await stream.send({"jsonrpc": "2.0", "id": stream.seen.json["id"], "result": {}})
        assert (await reply.messages())[-1] == {"jsonrpc": "2.0", "id": 1, "result": {}}
        async with soon():
            await draining
        nodes.other.session_id = busy.session_id
        assert "result" in await nodes.other.call("tools/list", id=2)
    assert len(nodes.two.relay.sessions) == 2
    assert nodes.server.got("DELETE") == []


async def test_a_call_that_waits_for_its_client_does_so_on_the_other_node(nodes: Nodes) -> None:
    """The client cannot answer where nothing is accepted any more."""
    await nodes.opened()
    reply = await nodes.client.begin("tools/call", {"name": "t"}, 1)
    await until(lambda: nodes.streams)
    asking = {"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {}}
    await nodes.streams[0].send(asking, id="u1")
    question = await reply.message()
    draining = asyncio.create_task(nodes.one.drain(60.0))
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
    assert (await nodes.other.send(answer)).status == 202
    assert (await nodes.server.answer_to("q1")).json["result"] == {"action": "accept"}
    async with soon():
        await draining
    again = await nodes.other.listen(reply.last_id)
    await until(lambda: len(nodes.streams) == 2)
    assert nodes.streams[1].seen.get("last-event-id") == "u1"
    await nodes.streams[1].send({"jsonrpc": "2.0", "id": nodes.streams[0].seen.json["id"], "result": {}})
    assert (await again.messages())[-1] == {"jsonrpc": "2.0", "id": 1, "result": {}}


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18"])
async def test_a_node_that_goes_ends_what_it_only_passes_on(nodes: Nodes, version: str) -> None:
    """The session is not its own, and its owner would never end the stream."""
    await nodes.client.initialize(version)
    nodes.other.session_id, nodes.other.version = nodes.client.session_id, version
    standalone = await nodes.other.listen()
    stream = await nodes.server.listens()
    await stream.send(note(1), id="u1")
    assert (await standalone.message())["params"] == {"n": 1}
    async with soon():
        await nodes.two.drain(60.0)
    assert await standalone.rest() == []
    last = standalone.seen[-1]
    assert (last.data == "" and last.retry is not None) == (version == "2025-11-25")
    await stream.send(note(2), id="u2")
    again = await nodes.client.listen(standalone.last_id)
    assert (await again.message())["params"] == {"n": 2}


async def test_who_was_served_for_long_has_as_long_as_others_to_find_the_next_node(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait begins when the node that had the request is lost, not with the request."""
    await nodes.opened()
    peers = nodes.two._peers  # pyright: ignore[reportPrivateUsage]
    assert peers is not None
    passes_on = peers.pass_on

    async def is_lost_after_long(*_: Any) -> None:
        monkeypatch.setattr(streamable, "_NODE_S", 60.0)
        monkeypatch.setattr(peers, "pass_on", passes_on)

    monkeypatch.setattr(streamable, "_NODE_S", 0.0)
    monkeypatch.setattr(peers, "pass_on", is_lost_after_long)
    assert "result" in await nodes.other.call("tools/list")


async def test_a_node_that_goes_passes_no_stream_on_that_would_keep_it(nodes: Nodes) -> None:
    await nodes.opened()
    reply = await nodes.other.begin("tools/call", {"name": "t"}, 1)
    await until(lambda: nodes.streams)
    standalone = await nodes.other.listen()
    async with wire_to(nodes.two.server) as kept:
        draining = asyncio.create_task(nodes.two.drain(60.0))
        assert [event.data for event in await standalone.rest() if event.data] == []
        last_id = (standalone.last_id or "").encode()
        await kept.send(b"GET /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n")
        fields = [f"{name}: {value}\r\n" for name, value in nodes.other.in_session()]
        await kept.send("".join(fields).encode() + b"Last-Event-ID: %s\r\n\r\n" % last_id)
        answer = await kept.answer()
        assert answer.status == 200
        # In words of the other node's, where those came first, or of its own.
        assert answer.body.startswith(b"id: %s\nretry: " % last_id), answer.body
        assert await kept.rest() == b""
    assert not draining.done()
    stream = nodes.streams[0]
    await stream.send({"jsonrpc": "2.0", "id": stream.seen.json["id"], "result": {}})
    assert (await reply.messages())[-1] == {"jsonrpc": "2.0", "id": 1, "result": {}}
    async with soon():
        await draining


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18"])
async def test_what_waits_for_a_client_does_so_on_the_other_node(nodes: Nodes, version: str) -> None:
    """Also for one that names no event to go on from, and after a crash no second time."""
    await nodes.client.initialize(version)
    nodes.other.session_id, nodes.other.version = nodes.client.session_id, version
    standalone = await nodes.client.listen()
    stream = await nodes.server.listens()
    await stream.send(note(1), id="u1")
    assert (await standalone.message())["params"] == {"n": 1}
    standalone.close()
    (session,) = nodes.one.relay.sessions
    await until(lambda: not session.core.book.has_readers)
    await stream.send(note(2), id="u2")
    await until(lambda: session.core.book.standalone.waits_for_a_client)
    async with soon():
        await nodes.one.drain(60.0)
    again = await nodes.other.listen()
    assert (await again.message())["params"] == {"n": 2}
    stored = await nodes.store.read(session.id)
    assert stored is not None
    (held,) = (held for held in stored.streams if held.id == STANDALONE)
    assert kept.decode_stream(held.head).given_to is None


async def test_a_node_that_breaks_tears_no_event(nodes: Nodes) -> None:
    await nodes.opened()
    reply = await nodes.other.begin("tools/call", {"name": "t"}, 1)
    await until(lambda: nodes.streams)
    big = {"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"text": "x" * 3_000_000}}
    await nodes.streams[0].send(big)
    assert await reply.message() == big
    await nodes.one.server.aclose()
    assert await reply.rest() == []


async def test_one_that_slept_past_its_lease_serves_no_more(nodes: Nodes) -> None:
    await nodes.opened()
    await nodes.client.call("tools/list")
    lease = nodes.one.shared.lease
    assert lease is not None
    # As after a pause: the lease is over, and the other node has taken the session.
    del nodes.store._leases[nodes.one.shared.node]  # pyright: ignore[reportPrivateUsage]
    lease._held_until = 0.0  # pyright: ignore[reportPrivateUsage]
    assert "result" in await nodes.other.call("tools/list", id=2)
    assert len(nodes.two.relay.sessions) == 1
    assert "result" in await nodes.client.call("tools/list", id=3)
    assert len(nodes.one.relay.sessions) == 0
    assert nodes.one.shared.counters.sessions_lost == 1
    assert nodes.server.got("DELETE") == []


async def test_an_outage_of_the_store_moves_no_session(nodes: Nodes) -> None:
    """Nobody can renew a lease: one that has run out says nothing of who had it."""
    await nodes.opened()
    assert "result" in await nodes.other.call("tools/list")
    async with client_of(nodes.one.port) as unheard_of:
        await unheard_of.initialize()
        nodes.store.is_away = True
        leases = [node.shared.lease for node in (nodes.one, nodes.two)]
        await until(lambda: all(lease and lease.has_lapsed and not lease.is_settled for lease in leases))
        assert "result" in await nodes.other.call("tools/list", id=2)
        unheard_of.port = nodes.two.port
        calling = asyncio.create_task(unheard_of.call("tools/list", id=3))
        nodes.store.is_away = False
        assert "result" in await calling
    assert len(nodes.one.relay.sessions) == 2
    assert len(nodes.two.relay.sessions) == 0


async def test_a_session_that_nobody_here_has_heard_of_waits_for_the_store_in_vain(nodes: Nodes) -> None:
    await nodes.opened()
    nodes.store.is_away = True
    lease = nodes.two.shared.lease
    await until(lambda: lease and not lease.is_settled)
    await refused(await nodes.other.begin("tools/list", id=7), 503, -31002, 7)
    nodes.store.is_away = False


# What a stranger tries.


def sealed(
    node: ReverseProxy, method: str, headers: list[tuple[str, str]], body: bytes, key: bytes, wall: float
) -> str:
    found = {name.lower(): value.encode() for name, value in headers}
    names = ("accept", "content-type", "mcp-session-id", "mcp-protocol-version", "last-event-id")
    parts = [
        node.shared.node.encode(),
        method.encode(),
        b"/mcp",
        *(found.get(name, b"") for name in names),
        body,
    ]
    return peer.seal(key, wall, parts).decode()


async def test_the_seal_opens_what_host_and_origin_would_not(nodes: Nodes) -> None:
    await nodes.opened()
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    fields = [ACCEPT, JSON, *nodes.client.in_session(), ("Host", "node.internal")]
    now = nodes.one.shared.clock.wall()
    good = sealed(nodes.one, "POST", fields, body, KEY, now)
    for seal, status in [
        (good, 200),
        (sealed(nodes.one, "POST", fields, body, b"another key", now), 403),
        (sealed(nodes.one, "POST", fields, body + b" ", KEY, now), 403),
        (sealed(nodes.one, "GET", fields, body, KEY, now), 403),
        (sealed(nodes.one, "POST", fields, body, KEY, now - 600), 403),
        (sealed(nodes.two, "POST", fields, body, KEY, now), 403),
        (good.replace(".", ""), 403),
        ("", 403),
        ("9" * 40 + "." + hashlib.sha256().hexdigest(), 403),
    ]:
        reply = await nodes.client.request("POST", [*fields, ("Shadowcat-Peer", seal)], body)
        assert reply.status == status, seal
        await reply.body()


async def test_what_was_passed_on_is_not_passed_on_again(nodes: Nodes) -> None:
    """Two nodes that each believe it is the other's must not send it to and fro."""
    await nodes.opened()
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    fields = [ACCEPT, JSON, *nodes.other.in_session()]
    seal = sealed(nodes.two, "POST", fields, body, KEY, nodes.two.shared.clock.wall())
    reply = await nodes.other.request("POST", [*fields, ("Shadowcat-Peer", seal)], body)
    assert reply.status == 421


async def test_an_unknown_session_is_unknown_to_all(nodes: Nodes) -> None:
    nodes.other.session_id = "0" * 32
    await refused(await nodes.other.send(rpc("tools/list", {}, 7)), 404, -32600, 7)
