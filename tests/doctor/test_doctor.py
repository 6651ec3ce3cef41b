"""`shadowcat doctor` against real servers: the official SDK's, ours, and some that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shadowcat.doctor.asking import MAX_EVENTS
from shadowcat.doctor.host_check import status_for_host
from shadowcat.doctor.http_probe import HttpProbe
from shadowcat.doctor.judge_streams import APART_MS
from shadowcat.doctor.stdio_probe import StdioProbe
from shadowcat.http.client import Client as HttpClient
from shadowcat.http.tls import ServerTls
from tests import needs
from tests.conformance.suite import serving
from tests.rig.children import SPEAKER
from tests.rig.nginx import plain_nginx
from tests.rig.old_server import old_server
from tests.rig.server import Call, McpServer, mcp_server
from tests.rig.wait import soon
from tests.rig.wire import Listener, Seen

RUN_S = 110.0
DEMO = (sys.executable, "-m", "shadowcat", "demo", "--server", "stdio")


class Report:
    def __init__(self, code: int | None, out: str, err: str) -> None:
        self.code = code
        self.err = err
        told = json.loads(out)
        self.facts: dict[str, Any] = told["facts"]
        self.findings: list[dict[str, Any]] = told["findings"]
        assert told["exit_code"] == code

    def has(self, level: str, topic: str, words: str = "") -> bool:
        return any(
            (found["level"], found["topic"]) == (level, topic) and words in found["saw"]
            for found in self.findings
        )

    @property
    def problems(self) -> list[str]:
        return [f"{found['topic']}: {found['saw']}" for found in self.findings if found["level"] == "problem"]


async def program(*arguments: str, **env: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "doctor", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, env={**os.environ, **env},
    )  # fmt: skip
    try:
        async with soon(RUN_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()


async def doctor(*arguments: str, **env: str) -> Report:
    report = Report(*await program("--json", *arguments, **env))
    # On a busy machine any answer may be waited for.
    assert all(line.startswith("shadowcat doctor: waiting for ") for line in report.err.splitlines())
    return report


# HTTP.


async def test_our_demo_server(tmp_path: Path) -> None:
    command = ("shadowcat", "demo", "--server", "http", "--listen", "127.0.0.1:0")
    async with serving(command, tmp_path / "demo.log") as url:
        report = await doctor("--call", "count", "--arguments", '{"to": 4, "pause_ms": 300}', url)
    assert (report.code, report.problems) == (0, [])
    assert report.has("ok", "era", "2025-11-25, 2025-06-18, 2025-03-26, 2024-11-05")
    assert report.has("ok", "era", "stateless")
    assert report.has("ok", "session")
    assert report.has("ok", "origin", "403")
    assert report.has("ok", "buffering", "one by one")
    assert report.has("ok", "headers")
    assert report.has("ok", "resuming")
    assert report.has("ok", "capabilities", "7 tools, 2 resources, 1 prompt")


@pytest.mark.parametrize("way", ["direct", "proxied"])
async def test_the_official_server(way: str, tmp_path: Path) -> None:
    async with serving(("tests.peers.everything_server",), tmp_path / "server.log") as upstream:
        if way == "direct":
            report = await doctor(upstream)
        else:
            command = ("shadowcat", "reverse", "--listen", "127.0.0.1:0", "--upstream", upstream)
            async with serving(command, tmp_path / "proxy.log") as url:
                report = await doctor(url)
    assert (report.code, report.problems) == (0, [])
    assert report.has("ok", "era", "2025-11-25")
    assert report.has("ok", "session", "404")
    assert report.has("ok", "resuming")
    if way == "proxied":
        assert report.has("ok", "origin")
        assert report.has("ok", "buffering")
        assert report.has("ok", "headers")


async def test_the_official_server_without_event_ids(tmp_path: Path) -> None:
    async with serving(("tests.peers.everything_server", "--no-resume"), tmp_path / "server.log") as url:
        report = await doctor(url)
    assert report.problems == []
    assert report.has("note", "resuming", "no event ids")


async def test_400_for_404() -> None:
    async with mcp_server(lost_as=(400, {"code": -32000, "message": "No valid session ID"})) as server:
        report = await doctor(server.url)
    assert report.code == 1
    assert report.has("problem", "session", "400 instead of 404")
    assert report.has("problem", "origin")
    assert server.sessions == {}, "each session that was opened was ended"
    assert server.got("tools/call") == []


@pytest.mark.parametrize("checks_host", [False, True])
async def test_a_server_that_serves_only_in_a_session(checks_host: bool) -> None:
    """It answers 400 to what comes without one, whatever Host and Origin are."""
    async with mcp_server() as server:

        async def discover(call: Call) -> None:
            await call.seen.respond(400)

        async def ping(call: Call) -> None:
            if checks_host and call.seen.get("host") != f"127.0.0.1:{server.listener.port}":
                await call.seen.respond(403)
            else:
                await call.result({})

        server.handlers |= {"server/discover": discover, "ping": ping}
        report = await doctor(server.url)
    if checks_host:
        assert report.has("warning", "origin", "Host is checked and Origin is not")
    else:
        assert report.has("problem", "origin", "a request from any web page is served")
    assert server.sessions == {}, "each session that was opened was ended"


async def test_a_server_that_issues_no_ids_and_offers_no_stream() -> None:
    async with mcp_server(issues_ids=False, offers_get=False) as server:
        report = await doctor(server.url)
    assert report.has("note", "session", "no session ids")
    assert report.has("note", "stream", "no standalone stream")
    assert server.got("DELETE") == []


async def test_a_stream_without_end() -> None:
    async with mcp_server() as server:
        lists_a_tool(server, "work")

        @server.on("tools/call")
        async def talk(call: Call) -> None:
            stream = await call.stream()
            await stream.raw(b"id: 1\ndata: {}\n\n" * (MAX_EVENTS + 1))

        report = await doctor("--call", "work", server.url)
    assert report.has("note", "not answered", "too_many_events")


async def test_a_way_that_holds_events_back() -> None:
    """What that means depends on how long it took; test_judge_http.py has all of it."""
    async with mcp_server() as server:
        lists_a_tool(server, "work")

        @server.on("tools/call")
        async def held(call: Call) -> None:
            # As a proxy that buffers: all of it at once, when it is over.
            progress = {"progressToken": call.token, "progress": 1}
            message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}
            stream = await call.stream()
            both = [
                f"event: message\ndata: {json.dumps(one)}\n\n"
                for one in (message, call.response({"content": []}))
            ]
            await stream.raw("".join(both).encode())
            await stream.end()

        report = await doctor("--call", "work", server.url)
    first, second = report.facts["call"]["arrivals_ms"]
    assert second - first < APART_MS
    assert not report.has("ok", "buffering")
    assert report.has("note", "headers", "X-Accel-Buffering")
    assert [seen.json["params"]["name"] for seen in server.got("tools/call")] == ["work"]


async def test_ids_that_nobody_honours() -> None:
    async with mcp_server() as server:

        @server.on("tools/list")
        async def with_ids(call: Call) -> None:
            stream = await call.stream()
            await stream.send(call.response({"tools": []}), id="1")
            await stream.end()

        async def forgotten(seen: Seen) -> None:
            await seen.respond(400)

        server.on_get = forgotten
        report = await doctor(server.url)
    assert report.has("problem", "resuming", "HTTP 400")


async def test_garbage_and_silence() -> None:
    async with mcp_server() as server:

        @server.on("initialize")
        async def page(call: Call) -> None:
            await call.seen.respond(200, b"<html>welcome</html>", "text/html")

        @server.on("server/discover")
        async def not_found(call: Call) -> None:
            await call.seen.respond(404)

        report = await doctor(server.url)
    assert report.code == 2
    assert report.has("problem", "era", "HTTP 200 and a web page")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"{not json", "HTTP 200 and a body that is no JSON: {not json"),
        (b'{"hello": "world"}', "HTTP 200 and a body that is no JSON-RPC"),
        (b'{"jsonrpc": "2.0", "id": 77, "result": {}}', "HTTP 200 and the id 77 in place of"),
        (b"", "HTTP 200 and a body that is empty"),
    ],
)
async def test_an_answer_to_initialize_that_is_none(answer: bytes, words: str) -> None:
    async with answering(200, answer) as url:
        report = await doctor(url)
    assert report.code == 2
    assert report.has("problem", "era", words)


async def test_a_redirect_is_named() -> None:
    async with answering(307, headers={"Location": "/elsewhere/"}) as url:
        report = await doctor(url)
    assert report.code == 2
    assert report.has("problem", "era", f"leads to {url.removesuffix('mcp')}elsewhere/")


async def test_a_redirect_to_what_is_no_url_is_named() -> None:
    async with answering(302, headers={"Location": "http://[x"}) as url:
        report = await doctor(url)
    assert report.code == 2
    assert report.has("problem", "era", "HTTP 302 and a Location that is no URL: http://[x")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"tools": [{"name": "x"}]}, "a tool 'x' without inputSchema"),
        ({"tools": None}, "without a list of tools"),
        ({"tools": [], "nextCursor": "again"}, "no last page"),
    ],
)
async def test_tools_that_clients_cannot_list(result: dict[str, Any], words: str) -> None:
    async with mcp_server() as server:

        @server.on("tools/list")
        async def flawed(call: Call) -> None:
            await call.result(result)

        report = await doctor(server.url)
    assert report.code == 1
    assert report.has("problem", "lists", words)


def lists_a_tool(server: McpServer, name: str) -> None:
    async def tools(call: Call) -> None:
        await call.result({"tools": [{"name": name, "inputSchema": {"type": "object"}}]})

    server.handlers["tools/list"] = tools


async def test_a_tool_that_is_on_no_page_of_the_list_is_not_called() -> None:
    pages = {"": ("echo", "2"), "2": ("count", None)}
    async with mcp_server() as server:

        @server.on("tools/list")
        async def page(call: Call) -> None:
            name, following = pages[call.params.get("cursor", "")]
            tools = [{"name": name, "inputSchema": {"type": "object"}}]
            await call.result({"tools": tools} | ({"nextCursor": following} if following else {}))

        @server.on("tools/call")
        async def called(call: Call) -> None:
            await call.result({"content": []})

        report = await doctor("--call", "cuont", server.url)
        assert server.got("tools/call") == []
        listed = await doctor("--call", "count", server.url)
    assert report.code == 1
    assert report.has("problem", "call", "the server lists no tool 'cuont'; did you mean count?")
    assert listed.has("ok", "call", "count is answered")


async def test_a_run_has_an_end() -> None:
    async with mcp_server() as server:

        @server.on("server/discover")
        async def never(call: Call) -> None:
            async with soon(RUN_S):
                await call.seen.dropped.wait()

        report = await doctor("--deadline", "2", server.url)
    assert report.has("warning", "time")


async def test_no_session_is_left_behind_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the answer to its end waited for as long as others are."""
    monkeypatch.setattr("shadowcat.doctor.http_probe.ANSWER_S", 3_600.0)

    async def never(seen: Seen) -> None:
        async with soon(RUN_S):
            await seen.dropped.wait()

    client = HttpClient()
    async with mcp_server(on_delete=never) as server:
        server.handlers["ping"] = lambda call: never(call.seen)
        probing = asyncio.create_task(HttpProbe(server.url, client).run())
        await server.gets("ping")
        probing.cancel()
        async with soon():
            with pytest.raises(asyncio.CancelledError):
                await probing
        assert len(server.got("DELETE")) == 1
        await client.aclose()


async def test_the_query_is_part_of_what_is_asked_for_under_another_name() -> None:
    async with mcp_server() as server:
        assert await status_for_host(f"{server.url}?key=1", "a.example", b"{}", []) == 202
    assert [seen.target for seen in server.requests] == ["/mcp?key=1"]


async def test_the_old_transport() -> None:
    async with old_server() as server:
        report = await doctor(server.url)
    assert report.has("warning", "transport", "HTTP+SSE")


async def test_nobody_there() -> None:
    async with mcp_server() as server:
        url = server.url
    report = await doctor(url)
    assert report.code == 2
    assert report.has("problem", "reachable", "nothing listens there")


async def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    import trustme

    from shadowcat.http.message import Request, Response
    from shadowcat.http.server import Server

    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate")

    async def handle(request: Request) -> Response:
        return Response(200)

    server = Server(handle)
    tls = ServerTls(str(tmp_path / "certificate"), str(tmp_path / "key")).context()
    await server.listen("127.0.0.1", 0, tls=tls)
    try:
        report = await doctor(f"https://127.0.0.1:{server.port}/mcp")
        without_tls = await doctor(f"http://127.0.0.1:{server.port}/mcp")
    finally:
        await server.aclose()
    assert without_tls.code == 2
    assert without_tls.has("problem", "reachable", "the port speaks TLS, and the URL says http")
    assert report.code == 2
    assert report.has("problem", "reachable", "TLS fails")
    assert "unable to get local issuer" in report.facts["detail"]


async def test_tls_where_none_is_spoken() -> None:
    async with answering(405) as url:
        report = await doctor(url.replace("http", "https"))
    assert report.code == 2
    assert report.has("problem", "reachable", "the port speaks plain HTTP, and the URL says https")


async def test_a_port_that_is_no_servers() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as listening:
        report = await doctor(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp")
    assert report.code == 2
    assert report.has("problem", "reachable", "it closes the connection without an answer")


async def test_a_server_that_knows_no_method_at_all() -> None:
    async with answering(501) as url:
        report = await doctor(url)
    assert report.code == 2
    assert report.has("problem", "era", "HTTP 501")


@asynccontextmanager
async def answering(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    async def answer(seen: Seen) -> None:
        await seen.respond(status, body, "application/json" if body else None, headers)

    listener = Listener(answer)
    await listener.open()
    try:
        yield f"http://127.0.0.1:{listener.port}/mcp"
    finally:
        await listener.close()


async def test_a_token(tmp_path: Path) -> None:
    async with mcp_server() as server:
        guarded(server)
        refused = await doctor(server.url)
        let_in = await doctor("--token-from", "MINE", server.url, MINE="s3cret")
    assert refused.code == 2
    assert refused.has("problem", "era", "HTTP 401")
    assert let_in.has("ok", "era")
    assert "s3cret" not in json.dumps([let_in.facts, let_in.findings])


def guarded(server: McpServer) -> None:
    async def initialize(call: Call) -> None:
        if call.seen.get("authorization") == "Bearer s3cret":
            await server.initialize(call)
        else:
            await call.seen.respond(401, headers={"WWW-Authenticate": "Bearer"})

    async def discover(call: Call) -> None:
        await call.seen.respond(401, headers={"WWW-Authenticate": "Bearer"})

    server.handlers |= {"initialize": initialize, "server/discover": discover}


async def test_nginx_that_buffers(tmp_path: Path) -> None:
    """The head of a stream that says nothing stays in nginx, unless the server asks for better."""
    async with mcp_server() as server, plain_nginx(server.url, tmp_path) as url:
        report = await doctor(url)
    assert report.has("warning", "stream", "does not come within") or report.has(
        "note", "buffering", "cannot"
    )


# stdio.


async def test_our_demo_server_over_stdio() -> None:
    report = await doctor("--", *DEMO)
    assert (report.code, report.problems) == (0, [])
    assert report.facts["legacy"]["opened"]["versions"] == ["2025-11-25"]
    assert report.facts["modern"]["opened"]["versions"][0] == "2026-07-28"
    assert report.has("ok", "end")
    assert report.has("ok", "capabilities", "7 tools")


async def test_the_official_server_over_stdio() -> None:
    report = await doctor("--", sys.executable, "-m", "tests.peers.everything_server", "--stdio")
    assert (report.code, report.problems) == (0, [])
    # On a busy machine its first answer may be late enough for a warning.
    assert report.facts["legacy"]["opened"]["versions"] == ["2025-11-25"]
    assert report.facts["modern"]["opened"]["versions"] == ["2026-07-28"]


async def test_the_everything_server_of_node() -> None:
    everything = needs.peers() / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    report = await doctor("--", str(needs.node()), str(everything), "stdio")
    assert report.problems == []
    assert report.facts["legacy"]["opened"]["versions"] == ["2025-11-25"]


async def test_a_command_behind_forward_stdio() -> None:
    report = await doctor("--", sys.executable, "-m", "shadowcat", "forward", "stdio", "--", *DEMO)
    assert (report.code, report.problems) == (0, [])


SCRIPT = """
import json, sys
print("starting up")
sys.stderr.write("\u256d\u2500\u256e\\n\u2502 a word on stderr  \u2502\\n")
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "server/discover":
        sys.exit(3)
    if message.get("method") == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}}), flush=True)
import time
time.sleep(3600)
"""


async def test_a_command_that_misbehaves() -> None:
    report = await doctor("--", sys.executable, "-c", SCRIPT)
    assert report.code == 1
    assert report.has("problem", "stdout", "starting up")
    assert report.has("note", "stderr", "2 lines, the first: a word on stderr")
    assert report.has("note", "era", "it exits on a request that it does not know (exit code 3)")
    assert report.has("warning", "end", "does not exit when its stdin is closed")


@pytest.mark.parametrize(
    ("command", "topic", "words"),
    [
        (
            (sys.executable, "-c", "import sys; sys.exit('no configuration')"),
            "era",
            "exited before it answered",
        ),
        (("no-such-program-here",), "start", "cannot be started"),
        (("127.0.0.1:8080/mcp",), "start", "cannot be started"),
    ],
)
async def test_a_command_that_is_none(command: tuple[str, ...], topic: str, words: str) -> None:
    report = await doctor("--", *command)
    assert report.code == 2
    assert report.has("problem", topic, words)


async def test_what_is_waited_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadowcat.doctor.patience.PATIENCE_S", 0.0)
    monkeypatch.setattr("shadowcat.doctor.stdio_probe.FIRST_ANSWER_S", 0.2)
    monkeypatch.setattr("shadowcat.doctor.stdio_probe.AGAIN_S", 0.1)
    said: list[str] = []
    async with soon():
        await StdioProbe(("cat",), said.append).run()
    assert said == [
        "waiting for the first answer of cat, to initialize: at most 0.2 s",
        "waiting for the first answer of cat, to server/discover: at most 0.1 s",
    ]


async def test_a_request_that_is_not_answered_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadowcat.doctor.patience.PATIENCE_S", 0.0)
    said: list[str] = []
    heard = asyncio.Event()

    def tell(line: str) -> None:
        said.append(line)
        heard.set()

    async with mcp_server() as server:

        @server.on("server/discover")
        async def never(call: Call) -> None:
            await call.seen.dropped.wait()

        client = HttpClient()
        probing = asyncio.create_task(HttpProbe(server.url, client, tell=tell).run())
        async with soon():
            await heard.wait()
        probing.cancel()
        await asyncio.wait([probing])
        await client.aclose()
    assert said == ["waiting for the answer: server/discover"]


async def test_what_a_person_reads() -> None:
    code, out, err = await program("--", sys.executable, SPEAKER)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("fine: ")
    assert "\x1b" not in out
