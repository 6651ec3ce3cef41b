"""Sockets that the service manager holds: listened on in place of an address, and left to it at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shadowcat.app.inherited import inherited_sockets
from shadowcat.config.problem import ConfigError
from tests.rig.client import client_of
from tests.rig.program import Program
from tests.rig.server import Call, McpServer, holding, mcp_server
from tests.rig.wait import happens, soon, until

CALL = {"name": "t", "arguments": {}}
TEXT = {"content": [{"type": "text", "text": "done"}]}
MANAGER = """
import os, sys
names, fds, *words = sys.argv[1:]
for number, fd in enumerate(map(int, fds.split(",")), 3):
    os.dup2(fd, number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(number - 2), "LISTEN_FDNAMES": names}
os.execv(sys.executable, [sys.executable, "-m", "shadowcat", *words])
"""
"""What systemd does between fork and exec."""
FIRST_FD = 200


async def answer(call: Call) -> None:
    await call.result(TEXT)


@asynccontextmanager
async def started(names: str, sockets: list[socket.socket], *words: str) -> AsyncIterator[Program]:
    fds = [sock.fileno() for sock in sockets]
    # Out of the way of those that it becomes.
    high = [os.dup2(fd, FIRST_FD + index) for index, fd in enumerate(fds)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MANAGER, names, ",".join(map(str, high)), *words,
        stdout=PIPE, stderr=PIPE, pass_fds=high,
    )  # fmt: skip
    for fd in high:
        os.close(fd)
    try:
        yield Program(process, sockets[0].getsockname()[1])
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with soon():
                assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        yield sock


@pytest.fixture
async def server() -> AsyncIterator[McpServer]:
    async with mcp_server() as found:
        yield found


# A restart.


async def test_nobody_is_refused_at_a_restart(
    server: McpServer, listening: socket.socket, tmp_path: Path
) -> None:
    """Each request has a connection of its own, and the client gives up at the first that is refused."""
    words = ("reverse", "--upstream", server.url, "--store", f"sqlite:///{tmp_path}/sessions.db")
    port = listening.getsockname()[1]
    called = 0
    async with client_of(port) as client:
        async with started("clients", [listening], *words) as first:
            assert (
                await first.prints("^serving ") == f"serving http://127.0.0.1:{port}/mcp (Ctrl-C stops it)\n"
            )
            await client.initialize()

            async def calls() -> None:
                nonlocal called
                while True:
                    assert "result" in await client.call(params=CALL, id=called + 1)
                    called += 1

            calling = asyncio.create_task(calls())
            await until(lambda: called >= 10)
        before = called
        async with started("clients", [listening], *words) as second:
            await second.prints("^serving ")
            await until(lambda: called >= before + 10 or calling.done())
            calling.cancel()
            await asyncio.wait((calling,))
    assert calling.cancelled(), calling.exception()
    assert len(server.got("initialize")) == 1


async def test_who_comes_while_a_call_runs_is_served_by_the_next(
    server: McpServer, listening: socket.socket, tmp_path: Path
) -> None:
    """Here it would be refused."""
    words = ("reverse", "--upstream", server.url, "--store", f"sqlite:///{tmp_path}/sessions.db")
    may_end = asyncio.Event()
    port = listening.getsockname()[1]
    async with client_of(port) as client, client_of(port) as other:
        async with started("clients", [listening], *words) as first:
            await first.prints("^serving ")
            await client.initialize()
            await other.initialize()
            server.on("tools/call")(holding(may_end, answer))
            calling = asyncio.create_task(client.call(params=CALL))
            await server.gets("tools/call")
            first.process.send_signal(signal.SIGTERM)
            await first.prints("^stopping")
            waiting = asyncio.create_task(other.call(params=CALL))
            may_end.set()
            assert (await calling)["result"] == TEXT
            async with soon():
                assert await first.process.wait() == 0
            assert len(server.got("tools/call")) == 1
        async with started("clients", [listening], *words):
            assert (await waiting)["result"] == TEXT


async def test_what_a_running_call_asks_is_answered(
    server: McpServer, listening: socket.socket, tmp_path: Path
) -> None:
    """The next does not have that call."""
    words = ("reverse", "--upstream", server.url, "--store", f"sqlite:///{tmp_path}/sessions.db")
    may_ask = asyncio.Event()

    @server.on("tools/call")
    async def ask(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/vendor")
        await happens(may_ask)
        await stream.request("q1", "elicitation/create", {})
        answer = await call.answered("q1")
        await stream.send(call.response(answer.json["result"]))
        await stream.end()

    async with started("clients", [listening], *words) as first, client_of(first.port) as client:
        await first.prints("^serving ")
        await client.initialize(capabilities={"elicitation": {}})
        reply = await client.begin("tools/call", CALL)
        await reply.message()
        first.process.send_signal(signal.SIGTERM)
        await first.prints("^stopping")
        may_ask.set()
        question = await reply.message()
        given = await client.send({"jsonrpc": "2.0", "id": question["id"], "result": TEXT})
        assert given.status == 202
        assert (await reply.message())["result"] == TEXT
        async with soon():
            assert await first.process.wait() == 0


# Which is whose.


async def test_the_admin_listener_has_its_own_by_name(server: McpServer, listening: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as admin:
        port = admin.getsockname()[1]
        words = ("reverse", "--upstream", server.url, "--store", "memory:", "--admin", "off")
        async with started("admin:clients", [admin, listening], *words) as proxy:
            assert f"http://127.0.0.1:{listening.getsockname()[1]}/mcp " in await proxy.prints("^serving ")
            assert await proxy.prints("admin page") == f"admin page on http://127.0.0.1:{port}/\n"
            async with client_of(port) as operator:
                assert (await operator.request("GET", path="/health")).status == 200


async def test_what_depends_on_the_address_depends_on_that_of_the_socket(server: McpServer) -> None:
    """On loopback a foreign name would be refused; others than this machine must not reach the admin listener."""
    with socket.create_server(("0.0.0.0", 0)) as open_to_all:
        words = ("reverse", "--upstream", server.url, "--store", "memory:")
        async with started("clients", [open_to_all], *words) as proxy:
            assert await proxy.prints("^serving http://0.0.0.0:")
            assert await proxy.says("anyone who reaches this port is served, under any host name")
            async with client_of(open_to_all.getsockname()[1]) as client:
                reply = await client.request("GET", [("Host", "elsewhere.example")])
                assert reply.status != 403
        async with started("admin", [open_to_all], *words) as proxy:
            assert "so it needs a token" in await proxy.says("Error: admin: others than")
            assert await proxy.process.wait() == 2


SPY = """
import os, sys
def is_there(fd):
    try:
        return os.fstat(fd).st_ino == int(sys.argv[1])
    except OSError:
        return False
found = [name for name in os.environ if name.startswith("LISTEN")] + [fd for fd in range(50) if is_there(fd)]
with open(sys.argv[2], "w") as told:
    print(found, file=told)
sys.stdin.read()
"""


async def test_a_command_gets_neither_socket_nor_variables(listening: socket.socket, tmp_path: Path) -> None:
    told = tmp_path / "told"
    spy = (sys.executable, "-c", SPY, str(os.fstat(listening.fileno()).st_ino), str(told))
    async with started("clients", [listening], "forward", "http", "--", *spy) as proxy:
        await proxy.prints("^serving ")
        async with client_of(proxy.port) as client:
            asking = asyncio.create_task(client.initialize())
            await until(lambda: told.exists() and told.read_text())
            asking.cancel()
            await asyncio.wait((asking,))
    assert told.read_text() == "[]\n"


# What does not fit.


def handed(*sockets: socket.socket, names: str = "", count: str | None = None) -> dict[str, str]:
    for index, sock in enumerate(sockets):
        os.dup2(sock.fileno(), FIRST_FD + index)
    return {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(sockets)) if count is None else count,
        "LISTEN_FDNAMES": names,
    }


def problem(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as error:
        inherited_sockets(environment, FIRST_FD)
    (only,) = error.value.problems
    return only


def test_what_is_somebody_elses_is_left_alone(listening: socket.socket) -> None:
    environment = {**handed(listening), "LISTEN_PID": str(os.getppid())}
    assert inherited_sockets(environment, FIRST_FD) == (None, None)
    assert "LISTEN_FDS" in environment
    os.close(FIRST_FD)


def test_what_is_ours_goes_to_nobody_else(listening: socket.socket) -> None:
    environment = handed(listening)
    front, admin = inherited_sockets(environment, FIRST_FD)
    assert front is not None
    with front:
        assert front.getsockname() == listening.getsockname()
        assert not front.get_inheritable()
    assert (admin, environment) == (None, {})


def test_what_is_no_socket_that_can_be_served_is_refused(listening: socket.socket) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket() as deaf,
        socket.socket(socket.AF_UNIX) as local,
    ):
        deaf.bind(("127.0.0.1", 0))
        for sock in (datagrams, local):
            told = problem(handed(sock))
            assert told == "LISTEN_FDS: 200 is no socket of TCP: ListenStream= with a port makes one"
        assert problem(handed(deaf)) == "LISTEN_FDS: 200 does not listen: with Accept=no it does"
    assert problem(handed(count="1")) == "LISTEN_FDS: 200 is no socket: Bad file descriptor"
    assert problem(handed(count="many")) == "LISTEN_FDS is 'many', and no number"


@pytest.mark.parametrize(("names", "which"), [("", "for clients"), ("admin:admin", "named admin")])
def test_more_than_there_are_uses_for_are_refused(listening: socket.socket, names: str, which: str) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        told = problem(handed(listening, other, names=names))
        ports = listening.getsockname()[1], other.getsockname()[1]
        here = f"127.0.0.1:{ports[0]}, [::1]:{ports[1]}"
        assert told == f"LISTEN_FDS: there is one socket {which} at most, and here are {here}"
