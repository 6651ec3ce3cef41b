"""Sessions of the official SDKs that call one tool after the other, and keep what each call and the standalone stream
brought."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, Protocol

import mcp_types as types
import msgspec

from tests.e2e.node_client import SDK1, SDK2, NodeApp, node_application
from tests.e2e.python_client import App, application
from tests.rig.wait import happens, soon

VERSION = "2025-11-25"
PATIENCE_S = 120.0
Plans = Sequence[dict[str, Any]]
"""What the calls of a session ask of the server in tests/faults/numbers.py, in turn."""


class Call(msgspec.Struct):
    plan: dict[str, Any]
    heard: list[int]
    """The numbers of its progress; where none is missing only the first and the last."""
    told: Any = None
    failed: str | None = None

    def check(self) -> None:
        plan = self.plan
        assert self.failed is None, f"{plan['label']}: {self.failed}"
        assert (self.told["label"], self.told["count"]) == (plan["label"], plan["count"])
        if not plan.get("answers_json"):
            assert self.heard == [1, plan["count"]], f"{plan['label']}: {self.heard}"
        if "ask_after" in plan:
            assert self.told["answer"]["action"] == "accept", self.told


class Report(msgspec.Struct):
    name: str
    calls: list[Call]
    logs: list[int]
    asked: list[str]
    """The labels of the calls that asked a question."""

    def check(self, emitted: int) -> None:
        for call in self.calls:
            call.check()
        assert self.logs == [1, emitted], f"{self.name}: {self.logs}"
        asking = [call.plan["label"] for call in self.calls if "ask_after" in call.plan]
        assert self.asked == asking, f"{self.name} was asked {self.asked}"


class Crowd(Protocol):
    async def begin(self, names: Sequence[str], plans: Plans) -> None:
        """Opens a session for each, listens, and calls from now on."""
        ...

    async def rest(self) -> None:
        """Returns when the calls that run have come to their end."""
        ...

    async def report(self, emitted: int) -> list[Report]:
        """What each has heard, to the last that was said on its standalone stream; then all are closed."""
        ...


class NodeCrowd:
    """Of a TypeScript SDK: all in one process, see ts/busy.cjs."""

    def __init__(self, app: NodeApp) -> None:
        self._app = app

    async def begin(self, names: Sequence[str], plans: Plans) -> None:
        await self._app.does("get_busy", sessions=list(names), plans=plans)

    async def rest(self) -> None:
        await self._app.does("rest")

    async def report(self, emitted: int) -> list[Report]:
        return msgspec.convert(await self._app.does("report", emitted=emitted), list[Report])


class PythonCrowd:
    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self._customers: list[_Customer] = []
        self._is_over = asyncio.Event()

    async def begin(self, names: Sequence[str], plans: Plans) -> None:
        for name in names:
            app = await self._stack.enter_async_context(application(self._url, VERSION))
            app.elicited = types.ElicitResult(action="accept", content={})
            await happens(app.listens)
            self._customers.append(_Customer(name, app))
        self._working = [
            asyncio.create_task(customer.work(plans, self._is_over)) for customer in self._customers
        ]

    async def rest(self) -> None:
        self._is_over.set()
        await asyncio.gather(*self._working)

    async def report(self, emitted: int) -> list[Report]:
        for customer in self._customers:
            await customer.heard_up_to(emitted)
        await self._stack.aclose()
        return [customer.report() for customer in self._customers]


class _Customer:
    def __init__(self, name: str, app: App) -> None:
        self._name = name
        self._app = app
        self._calls: list[Call] = []

    async def work(self, plans: Plans, is_over: asyncio.Event) -> None:
        for number, plan in enumerate(itertools.cycle(plans)):
            if is_over.is_set():
                return
            await self._call({"label": f"{self._name}-{number}", **plan})

    async def _call(self, plan: dict[str, Any]) -> None:
        call = Call(plan, [])
        self._calls.append(call)

        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            call.heard.append(int(progress))

        try:
            result = await self._app.client.call_tool(
                "count", plan, progress_callback=progressed, read_timeout_seconds=PATIENCE_S
            )
            call.told = result.structured_content
        except Exception as error:
            call.failed = repr(error)

    @property
    def _logs(self) -> list[int]:
        return [params["data"]["n"] for params in self._app.logs]

    async def heard_up_to(self, number: int) -> None:
        await self._app.changed.until(lambda: self._logs[-1:] == [number])

    def report(self) -> Report:
        calls = [msgspec.structs.replace(call, heard=_span(call.heard)) for call in self._calls]
        asked = [params["message"] for params in self._app.asked]
        return Report(self._name, calls, _span(self._logs), asked)


def _span(numbers: list[int]) -> list[int]:
    if numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return [numbers[0], numbers[-1]]
    return numbers


class Crowds(NamedTuple):
    of: dict[str, Crowd]

    async def begin(self, sessions: int, plans: Plans) -> None:
        """So many of each SDK."""
        async with soon(PATIENCE_S):
            for sdk, crowd in self.of.items():
                await crowd.begin([f"{sdk}-{number}" for number in range(sessions)], plans)

    async def rest(self) -> None:
        async with soon(PATIENCE_S):
            await asyncio.gather(*(crowd.rest() for crowd in self.of.values()))

    async def report(self, emitted: int) -> list[Report]:
        async with soon(PATIENCE_S):
            return [report for crowd in self.of.values() for report in await crowd.report(emitted)]


@asynccontextmanager
async def crowds(url: str) -> AsyncIterator[Crowds]:
    """One of each SDK, before any session of theirs."""
    async with (
        AsyncExitStack() as pythons,
        node_application(SDK1)(url, VERSION) as sdk1,
        node_application(SDK2)(url, VERSION) as sdk2,
    ):
        yield Crowds({"python": PythonCrowd(url, pythons), "sdk1": NodeCrowd(sdk1), "sdk2": NodeCrowd(sdk2)})
