"""A request that was passed on, while the node that it went to gives the session up."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from shadowcat.clock import SystemClock
from shadowcat.downstream import peers
from shadowcat.downstream.peers import MISDIRECTED, Peers
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client
from shadowcat.http.message import Headers, Request, Response
from tests.http.kit import happens, serving, soon

CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay"}}'
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}'


class OtherNode:
    """Takes its time over a request, until it is told how to answer."""

    def __init__(self) -> None:
        self.has_it = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.response = Response(200, [], b"done")

    async def __call__(self, request: Request) -> Response:
        self.has_it.set()
        await self.may_answer.wait()
        return self.response


PassOn = Callable[[Request, Callable[[], Awaitable[bool]]], Awaitable[Response | None]]


@asynccontextmanager
async def passing_on(node: OtherNode) -> AsyncIterator[PassOn]:
    client = Client()
    ours = Peers(client, "http://here", b"key", SystemClock())
    try:
        async with serving(node) as server:
            url = f"http://127.0.0.1:{server.port}"
            yield lambda request, is_held: ours.pass_on(request, url, is_held)
    finally:
        await ours.aclose()
        await client.aclose()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_LOOK_S", 0.01)


def post(body: bytes) -> Request:
    return Request("POST", b"/mcp", Headers([]), body)


async def test_what_a_node_had_not_begun_when_it_gave_the_session_up_is_done_elsewhere() -> None:
    node = OtherNode()
    node.response = Response(MISDIRECTED)

    async def is_held() -> bool:
        # It says so after we have seen that the session is another's by now.
        await happens(node.has_it)
        asyncio.get_running_loop().call_soon(node.may_answer.set)
        return False

    async with passing_on(node) as pass_on, soon():
        assert await pass_on(post(CALL), is_held) is None


async def test_an_answer_that_comes_while_the_session_moves_on_is_the_answer() -> None:
    node = OtherNode()

    async def is_held() -> bool:
        await happens(node.has_it)
        node.may_answer.set()
        return False

    async with passing_on(node) as pass_on, soon():
        response = await pass_on(post(CALL), is_held)
        assert response is not None
        assert (response.status, response.body) == (200, b"done")


async def test_of_a_node_that_says_nothing_more_nobody_knows_what_it_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "_LAST_WORD_S", 0.05)

    async def is_held() -> bool:
        return False

    async with passing_on(OtherNode()) as pass_on, soon():
        with pytest.raises(Fault) as told:
            await pass_on(post(CALL), is_held)
        assert (told.value.kind, told.value.reason) == (FaultKind.OUTCOME_UNKNOWN, "node_lost")


@pytest.mark.parametrize("request_", [Request("GET", b"/mcp", Headers([])), post(ANSWER)])
async def test_what_may_be_sent_twice_waits_for_no_last_word(request_: Request) -> None:
    node = OtherNode()

    async def is_held() -> bool:
        return False

    async with passing_on(node) as pass_on, soon():
        assert await pass_on(request_, is_held) is None
    assert not node.may_answer.is_set()


async def test_of_a_node_that_is_away_nothing_is_kept() -> None:
    async def is_held() -> bool:
        return True

    client = Client()
    ours = Peers(client, "http://here", b"key", SystemClock())
    gc.collect()
    gc.disable()
    try:
        before = _requests()
        for _ in range(10):
            async with soon():
                assert await ours.pass_on(post(CALL), "http://127.0.0.1:1", is_held) is None
        await asyncio.sleep(0)
        assert _requests() == before
    finally:
        gc.enable()
        await ours.aclose()
        await client.aclose()


def _requests() -> int:
    return sum(isinstance(found, Request) for found in gc.get_objects())
