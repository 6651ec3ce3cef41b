"""Responses that a callback brings: the engine treats them as it treats those of a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from shadowcat.http.later import Later
from shadowcat.http.limits import MIB
from shadowcat.http.message import Request, Response, encode_head
from tests.http.kit import get, happens, serving, soon, until, wire_to


@dataclass
class Promising:
    """Promises each request its response, for the test to bring."""

    made: list[tuple[Request, Later]] = field(default_factory=list[tuple[Request, Later]])
    cancelled: list[bytes] = field(default_factory=list[bytes])

    def __call__(self, request: Request) -> Later:
        later = Later()
        later.cancel = lambda: self.cancelled.append(request.target)
        self.made.append((request, later))
        return later

    async def settle(self, number: int, outcome: Callable[[Request], Response | Awaitable[Response]]) -> None:
        await until(lambda: len(self.made) > number)
        request, later = self.made[number]
        later.settle(outcome(request))


def echo(request: Request) -> Response:
    return Response(200, [], request.target)


async def soon_echoed(request: Request) -> Response:
    await asyncio.sleep(0)
    return echo(request)


async def failing(request: Request) -> Response:
    raise RuntimeError("on purpose")


def _tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def test_no_task_waits_for_it() -> None:
    promising = Promising()
    async with serving(promising) as server, wire_to(server) as wire:
        await wire.send(get("/a"))
        await until(lambda: len(promising.made) == 1)
        assert "http/exchange" not in _tasks()
        await promising.settle(0, echo)
        assert (await wire.answer()).body == b"/a"


async def test_what_has_to_be_waited_for_gets_a_task_after_all() -> None:
    promising = Promising()
    async with serving(promising) as server, wire_to(server) as wire:
        for number, outcome in enumerate((soon_echoed, echo, soon_echoed)):
            await wire.send(get(f"/{number}"))
            await promising.settle(number, outcome)
            assert (await wire.answer()).body == b"/%d" % number


async def test_one_that_fails_is_a_500() -> None:
    promising = Promising()
    async with serving(promising) as server, wire_to(server) as wire:
        await wire.send(get("/a"))
        await promising.settle(0, failing)
        answer = await wire.answer()
        assert (answer.status, answer.closes) == (500, True)


async def test_a_handler_that_fails_before_it_promises_is_a_500() -> None:
    def handle(request: Request) -> Later:
        raise RuntimeError("on purpose")

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(get("/a"))
        assert (await wire.answer()).status == 500


async def test_pipelined_requests_are_answered_in_order() -> None:
    promising = Promising()
    async with serving(promising) as server, wire_to(server) as wire:
        await wire.send(b"".join(get(f"/{number}") for number in range(300)))
        for number in range(300):
            await promising.settle(number, soon_echoed if number % 7 == 3 else echo)
            assert len(promising.made) <= number + 2
            assert (await wire.answer()).body == b"/%d" % number


@pytest.mark.parametrize("outcome", [echo, soon_echoed])
async def test_a_client_that_went_away_cancels_nothing(outcome: Any) -> None:
    promising = Promising()
    async with serving(promising) as server:
        async with wire_to(server) as wire:
            await wire.send(get("/a"))
            await until(lambda: len(promising.made) == 1)
        gone = asyncio.Event()
        request, later = promising.made[0]
        request.cancel_on_disconnect(gone.set)
        await happens(gone)
        assert promising.cancelled == []
        assert server.statistics().connections == 1
        later.settle(outcome(request))
        await until(lambda: server.statistics().connections == 0)


async def test_a_server_that_ends_cancels_what_runs() -> None:
    promising = Promising()
    async with serving(promising) as server, wire_to(server) as wire:
        await wire.send(get("/a") + get("/b"))
        await until(lambda: len(promising.made) == 1)
        async with soon():
            await server.aclose()
        assert promising.cancelled == [b"/a"]
        assert len(promising.made) == 1
        assert server.statistics().connections == 0


async def test_a_server_that_drains_waits_for_it_and_closes() -> None:
    promising = Promising()
    async with serving(promising) as server, wire_to(server) as wire:
        await wire.send(get("/a"))
        await until(lambda: len(promising.made) == 1)
        draining = asyncio.create_task(server.drain(20.0))
        await asyncio.sleep(0)
        await promising.settle(0, echo)
        answer = await wire.answer()
        assert (answer.body, answer.closes) == (b"/a", True)
        async with soon():
            await draining
        assert promising.cancelled == []


async def test_the_next_request_waits_until_the_client_has_taken_the_answer() -> None:
    promising = Promising()
    large = b"x" * (16 * MIB)
    async with serving(promising) as server, wire_to(server, small_buffer=True) as wire:
        await wire.send(get("/a") + get("/b"))
        await promising.settle(0, lambda _: Response(200, [], large))
        await until(lambda: "http/exchange" in _tasks())
        assert len(promising.made) == 1
        assert (await wire.answer()).body == large
        await promising.settle(1, echo)
        assert (await wire.answer()).body == b"/b"


@pytest.mark.parametrize("last", [b"HEAD /a HTTP/1.1\r\nhost: a\r\n\r\n", b"GET /a HTTP/1.0\r\n\r\n"])
async def test_head_and_old_clients(last: bytes) -> None:
    promising = Promising()
    async with serving(promising) as server, wire_to(server) as wire:
        await wire.send(last)
        await promising.settle(0, echo)
        answer = await wire.head()
        assert (answer.status, answer.headers[b"content-length"]) == (200, b"2")
        assert answer.closes == last.startswith(b"GET")


async def test_a_head_that_was_encoded_before_is_the_same() -> None:
    promising = Promising()
    fields = [(b"content-type", b"text/plain"), (b"x", b"y")]
    async with serving(promising) as server, wire_to(server) as wire:
        await wire.send(get("/") + get("/"))
        await promising.settle(0, lambda _: Response(201, fields, b"body"))
        await promising.settle(1, lambda _: Response(201, [], b"body", encode_head(201, fields)))
        first, second = await wire.answer(), await wire.answer()
        assert (first.status, first.body) == (second.status, second.body) == (201, b"body")
        assert first.headers.keys() == second.headers.keys()


async def test_requests_with_the_same_head_share_what_was_noted_of_it() -> None:
    key = object()
    noted: list[Any] = []

    async def handle(request: Request) -> Response:
        notes = request.headers.notes
        noted.append(None if notes is None else notes.setdefault(key, request.body))
        return Response(200, [], request.headers.get(b"content-length") or b"")

    async with serving(handle) as server, wire_to(server) as wire:
        for body in (b"1", b"22", b"333", b"4444"):
            head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
            await wire.send(head + body)
            assert (await wire.answer()).body == b"%d" % len(body)
        await wire.send(b"POST /other HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n5")
        await wire.answer()
    assert noted == [b"1", b"1", b"1", b"1", b"5"]
