"""Several servers behind one endpoint."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from shadowcat import ReverseProxy
from shadowcat.app.cluster import Cluster
from shadowcat.app.reverse import serve_reverse
from shadowcat.app.settings import Settings
from shadowcat.app.upstreams import ServerUrl, UpstreamOptions
from shadowcat.cli import main
from shadowcat.clock import ManualClock
from shadowcat.config.load import Loaded
from shadowcat.proxy.upstreams import Upstreams
from shadowcat.secret import Secret
from shadowcat.stores.sole_user import sole_user
from shadowcat.stores.urls import StoreUrl
from shadowcat.upstream import fallback
from shadowcat.wire import jsonrpc
from shadowcat.wire.hosts import Address
from tests.rig.cases import refused
from tests.rig.client import rpc
from tests.rig.redis_server import redis_server
from tests.rig.server import Call, Handler, refusing
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, soon

INITIALIZE = rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 7)


async def _who(rig: Stand) -> str:
    return (await rig.client.call())["result"]["content"][0]["text"]


async def test_new_sessions_go_round() -> None:
    async with stand(servers=3) as rig:
        seen: list[str] = []
        for _ in range(6):
            await rig.client.initialize()
            seen.append(await _who(rig))
        assert sorted(seen[:3]) == sorted(seen[3:]) == ["a", "b", "c"]


async def test_a_session_stays_where_it_is() -> None:
    async with stand(servers=2) as rig:
        await rig.client.initialize()
        first = await _who(rig)
        other = await rig.another_client()
        await other.initialize()
        assert {await _who(rig) for _ in range(4)} == {first}


async def test_one_that_is_not_there_is_passed_over() -> None:
    async with stand(servers=2) as rig:
        await rig.servers[0].listener.close()
        for _ in range(4):
            await rig.client.initialize()
            assert await _who(rig) == "b"


async def _hangs(call: Call) -> None:
    await happens(call.seen.dropped)


async def _refuses(call: Call) -> None:
    await call.seen.respond(500)


async def _babbles(call: Call) -> None:
    await call.seen.respond(200, b"<html>", "application/json")


async def _opened(rig: Stand, sessions: int) -> list[int]:
    """How each of them was answered."""
    return [(await rig.client.post(INITIALIZE)).status for _ in range(sessions)]


async def test_one_that_hangs_costs_one_session_its_time_and_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fallback, "INITIALIZE_S", 0.1)
    async with stand(servers=2) as rig:
        upstreams = rig.proxy.shared.upstreams
        assert isinstance(upstreams, Upstreams)
        clock = upstreams._clock = ManualClock()
        hanging, other = rig.servers
        hanging.handlers["initialize"] = _hangs
        assert await _opened(rig, 6) == [200] * 6
        assert (len(hanging.got("initialize")), len(other.got("initialize"))) == (1, 6)
        # Nor while somebody tries it again.
        clock.advance(31.0)
        monkeypatch.setattr(fallback, "INITIALIZE_S", 20.0)
        trying = asyncio.create_task(_opened(rig, 2))
        await hanging.gets("initialize", 2)
        assert await _opened(rig, 4) == [200] * 4
        assert len(hanging.got("initialize")) == 2
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
        clock.advance(31.0)
        del hanging.handlers["initialize"]
        assert await _opened(rig, 4) == [200] * 4
        assert len(hanging.got("initialize")) == 4


@pytest.mark.parametrize("out_of_order", [_refuses, _babbles])
async def test_one_that_is_out_of_order_costs_one_session(out_of_order: Handler) -> None:
    async with stand(servers=2) as rig:
        rig.server.handlers["initialize"] = out_of_order
        assert await _opened(rig, 6) == [502] + [200] * 5


async def test_what_a_client_got_wrong_turns_nobody_away() -> None:
    async with stand(servers=2) as rig:
        rig.server.handlers["initialize"] = refusing(400)
        assert (await _opened(rig, 6)).count(200) == 3


async def test_where_all_are_out_of_order_each_is_asked() -> None:
    async with stand(servers=2) as rig:
        for server in rig.servers:
            server.handlers["initialize"] = _refuses
        assert await _opened(rig, 4) == [502] * 4
        for server in rig.servers:
            del server.handlers["initialize"]
        assert await _opened(rig, 4) == [200] * 4


async def test_nobody_there() -> None:
    async with stand(servers=2) as rig:
        for server in rig.servers:
            await server.listener.close()
        reply = await rig.client.post(INITIALIZE)
        await refused(reply, 503, -31005, 7)
        await refused(await rig.client.ask("tools/list", id="x"), 503, -31005, "x")


@pytest.mark.parametrize("callers", [1, 10])
async def test_a_session_whose_server_is_gone_moves(callers: int) -> None:
    async with stand(servers=2) as rig:
        await rig.client.initialize()
        await rig.client.call("logging/setLevel", {"level": "error"})
        name = await _who(rig)
        old, new = sorted(rig.servers, key=lambda server: server.name != name)
        await old.listener.close()
        answers = await asyncio.gather(*(rig.client.call(id=id) for id in range(1, callers + 1)))
        assert {answer["result"]["content"][0]["text"] for answer in answers} == {new.name}
        assert len(new.got("initialize")) == 1
        assert new.got("logging/setLevel")[0].json["params"] == {"level": "error"}
        assert rig.session().core.record.upstream == new.name
        # It stays there, also when the old one is back.
        await old.listener.open()
        old.requests.clear()
        assert await _who(rig) == new.name
        assert old.requests == []
        await rig.client.delete()
        assert len(new.got("DELETE")) == 1


async def test_a_session_does_not_move_to_less_than_it_was_promised() -> None:
    async with stand(servers=2) as rig:
        await rig.client.initialize()
        name = await _who(rig)
        old, new = sorted(rig.servers, key=lambda server: server.name != name)
        new.capabilities = {"tools": {}}
        await old.listener.close()
        await refused(await rig.client.begin("tools/list", id=7), 404, -32600, 7)


async def test_with_one_server_a_session_waits_for_it(rig: Stand) -> None:
    await rig.client.initialize()
    await rig.server.listener.close()
    error = await refused(await rig.client.begin("tools/list", id=7), 200, -31005, 7)
    assert rig.server.url not in str(error)
    await rig.server.listener.open()
    assert "result" in await rig.client.call("tools/list", id=8)


async def test_what_may_have_been_heard_is_not_sent_elsewhere() -> None:
    async with stand(servers=2) as rig:

        async def cut(call: Call) -> None:
            call.seen.cut()

        for server in rig.servers:
            server.handlers["tools/call"] = cut
        await rig.client.initialize()
        await refused(await rig.client.begin("tools/call", {"name": "t"}, 7), 200, -31004, 7)
        await refused(await rig.client.ask("tools/call", {"name": "t"}, id="x"), 502, -31004, "x")
        assert sum(len(server.got("tools/call")) for server in rig.servers) == 2


async def test_a_modern_client_stays_with_one_server_while_it_is_there() -> None:
    """What a server hands out to be sent back, its request state, only that server may be able to read."""
    async with stand(servers=2) as rig:

        async def asked() -> str:
            reply = await rig.client.ask("tools/call", {"name": "t"})
            return (await reply.json())["result"]["content"][0]["text"]

        [first] = {await asked() for _ in range(4)}
        [gone] = [server for server in rig.servers if server.name == first]
        [other] = [server for server in rig.servers if server.name != first]
        await gone.listener.close()
        assert {await asked() for _ in range(4)} == {other.name}


async def test_modern_clients_are_spread() -> None:
    async with stand(servers=2) as rig:
        upstreams = rig.proxy.shared.upstreams
        assert isinstance(upstreams, Upstreams)
        assert {upstreams.of_client(f"10.0.0.{n}").name for n in range(20)} == {"a", "b"}


async def test_what_is_wrong_with_an_upstream_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with stand() as rig:
        await rig.client.initialize()

        def said() -> list[str]:
            return [record.message for record in caplog.records if record.name == "shadowcat.upstream"]

        with caplog.at_level("INFO", "shadowcat"):
            rig.server.on("tools/call")(refusing(500))
            for id in (1, 2):
                await rig.client.call(id=id)
            assert said() == ["upstream a: The upstream answered with HTTP 500 (upstream_http_500)"]
            rig.server.on("tools/call")(refusing(405))
            await rig.client.call(id=3)
            assert said()[1:] == [
                "upstream a: The upstream answered with HTTP 405; is its URL that of an MCP endpoint? "
                "(upstream_http_405)"
            ]
            await rig.client.call("tools/list", id=4)
            assert said()[2:] == ["upstream a: answers again"]


async def test_a_stream_that_breaks_off_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "shadowcat.upstream")
    async with stand() as rig:
        await rig.client.initialize()

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/vendor")
            await stream.end()

        assert (await rig.client.call())["error"]["code"] == -31004
        lost = "The connection to the upstream was lost; the outcome is unknown"
        said = [record.getMessage() for record in caplog.records]
        assert said == [f"upstream a: {lost} (upstream_connection_lost)"]


async def test_sessions_that_nothing_keeps_end_with_the_proxy() -> None:
    async with stand() as rig:
        await rig.client.initialize()
        await rig.proxy.aclose()
        assert len(rig.server.got("DELETE")) == 1


async def test_a_modern_stream_stays_with_its_server() -> None:
    async with stand(servers=2) as rig:

        async def stream_two(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/vendor")
            await happens(call.seen.dropped)

        for server in rig.servers:
            server.handlers["subscriptions/listen"] = stream_two
        reply = await rig.client.ask("subscriptions/listen", {"notifications": {}}, id="L")
        assert (await reply.message())["method"] == "notifications/vendor"
        assert sum(len(server.requests) for server in rig.servers) == 1
        [server] = [server for server in rig.servers if server.requests]
        reply.cut()
        await happens(server.requests[0].dropped, within_s=1.0)


async def test_a_reply_that_redirects_elsewhere_is_not_followed() -> None:
    async with stand(servers=2) as rig:
        for server, other in (rig.servers, reversed(rig.servers)):
            target = other.url

            async def redirect(call: Call, target: str = target) -> None:
                await call.seen.respond(307, headers={"Location": target})

            server.handlers["tools/call"] = redirect
        await rig.client.initialize()
        error = await refused(await rig.client.begin("tools/call", {"name": "t"}, 7), 200, -32603, 7)
        assert error["data"]["reason"] == "upstream_redirected"
        assert sum(len(server.got("tools/call")) for server in rig.servers) == 1


async def test_a_redirect_is_none_of_the_clients_whatever_its_body_says(rig: Stand) -> None:
    @rig.server.on("tools/list")
    async def _(call: Call) -> None:
        await call.error(-32000, "elsewhere", status=302)

    error = await refused(await rig.client.ask("tools/list", id=7), 502, -32603, 7)
    assert error["data"]["reason"] == "upstream_redirected"


async def test_a_redirect_to_itself_is_followed(session: Stand) -> None:
    @session.server.on("tools/call")
    async def redirect(call: Call) -> None:
        if call.seen.target == "/mcp":
            await call.seen.respond(308, headers={"Location": "/elsewhere?a=b"})
        else:
            await call.result({"content": []})

    assert "result" in await session.client.call()
    first, second = session.server.requests
    assert second.target == "/elsewhere?a=b"
    assert first.body == second.body


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999/",
        "http://[::1",
        "http://a/b c",
        "http://a/\u00e9",
        "http://u:p@a/",
        "ftp://a/",
        "a",
    ],
)
def test_a_url_that_is_none_is_refused_at_the_start(url: str) -> None:
    result = CliRunner().invoke(main, ["reverse", "--listen", "127.0.0.1:0", "--upstream", url])
    assert result.exit_code == 2
    assert "Error: " in result.output


async def test_the_listener_of_an_ipv6_address_is_announced_as_a_url() -> None:
    said = asyncio.Queue[str]()
    settings = Settings(
        listen=Address("[::1]:0"), upstreams={"a": UpstreamOptions(url=ServerUrl("http://127.0.0.1:9/mcp"))}
    )
    serving = asyncio.create_task(
        serve_reverse(settings, said.put_nowait, lambda: Loaded(settings, {}, {}, ()))
    )
    async with soon():
        assert (await said.get()).startswith("serving http://[::1]:")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def _warned(settings: Settings, caplog: pytest.LogCaptureFixture) -> str:
    """What a proxy that is started so has to say about its store."""
    said = asyncio.Queue[str]()
    caplog.clear()
    serving = asyncio.create_task(
        serve_reverse(settings, said.put_nowait, lambda: Loaded(settings, {}, {}, ()))
    )
    async with soon():
        await said.get()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return "\n".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")


async def test_a_store_that_another_proxy_uses_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "shadowcat")
    settings = Settings(
        listen=Address("127.0.0.1:0"),
        upstreams={"a": UpstreamOptions(url=ServerUrl("http://127.0.0.1:9/mcp"))},
        store=StoreUrl(f"sqlite:///{tmp_path / 'sessions.db'}"),
    )
    assert await _warned(settings, caplog) == ""
    with sole_user(tmp_path / "sessions.db"):
        assert "another proxy uses" in await _warned(settings, caplog)
    assert await _warned(settings, caplog) == ""


async def test_a_redis_without_a_cluster_is_said_to_be_for_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "shadowcat")
    async with redis_server(tmp_path) as server:
        settings = Settings(
            listen=Address("127.0.0.1:0"),
            upstreams={"a": UpstreamOptions(url=ServerUrl("http://127.0.0.1:9/mcp"))},
            store=StoreUrl(server.url),
        )
        assert "only one proxy may use this Redis" in await _warned(settings, caplog)
        cluster = Cluster(advertise="http://127.0.0.1:9", key=Secret("sixteen letters!"))
        assert await _warned(msgspec.structs.replace(settings, cluster=cluster), caplog) == ""


async def test_a_port_in_use_leaves_nothing_behind(rig: Stand) -> None:
    second = ReverseProxy({"a": rig.server.url}, port=rig.proxy.port)
    with pytest.raises(OSError, match="in use"):
        async with second:
            pass
    assert second.server._sweeper is None  # pyright: ignore[reportPrivateUsage]


async def test_a_refusal_that_nobody_waits_for_any_more_frees_its_connection(session: Stand) -> None:
    @session.server.on("notifications/vendor")
    async def begin(call: Call) -> None:
        await call.seen.raw(
            b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        )
        await happens(call.seen.dropped)

    link = session.session().core.link
    sending = asyncio.create_task(link.send(jsonrpc.notification("notifications/vendor")))
    seen = await session.server.gets("notifications/vendor")
    await asyncio.wait((sending,), timeout=0.1)
    sending.cancel()
    await happens(seen.dropped)


@pytest.mark.parametrize("server", ["localhost:3901", "127.0.0.1:3901/mcp", "ftp://127.0.0.1/mcp", ""])
def test_what_is_no_url_is_said_with_its_upstream(server: str) -> None:
    told = f"upstream main: {server!r} is not a URL, for example http://127.0.0.1:3000/mcp"
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        ReverseProxy({"main": server})
