"""Chromium, driven over a pair of pipes: what a page does to a person, and what a person does to it."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests import needs
from tests.rig.wait import soon

_START_S = 60.0
"""A browser on a loaded machine takes its time."""
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1280,900",
    "--remote-debugging-pipe",
)


class Browser:
    """Speaks the DevTools protocol: JSON with a NUL after each message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._pages: dict[str, Page] = {}

    async def listen(self) -> None:
        while True:
            message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if "id" in message:
                waiter = self._waiting.pop(message["id"], None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(message)
            elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                page.heard(message["method"], message["params"])

    async def ask(self, method: str, params: dict[str, Any] | None = None, session: str | None = None) -> Any:
        id = next(self._ids)
        message: dict[str, Any] = {"id": id, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        waiter = self._waiting[id] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(message).encode() + b"\0")
        async with soon(_START_S):
            answer = await waiter
        assert "error" not in answer, answer
        return answer["result"]

    async def page(self, url: str) -> Page:
        target = (await self.ask("Target.createTarget", {"url": "about:blank"}))["targetId"]
        session = (await self.ask("Target.attachToTarget", {"targetId": target, "flatten": True}))[
            "sessionId"
        ]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.ask(f"{domain}.enable", session=session)
        await page.go(url)
        return page


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.complaints: list[str] = []
        """What the browser has against the page: errors of scripts, and what its policy forbade."""
        self.requested: list[str] = []
        self._loaded = asyncio.Event()

    def heard(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.complaints.append(params["entry"]["text"])
            case _:
                pass

    async def ask(self, method: str, **params: Any) -> Any:
        return await self._browser.ask(method, params, self._session)

    async def go(self, url: str) -> None:
        self._loaded.clear()
        await self.ask("Page.navigate", url=url)
        async with soon(_START_S):
            await self._loaded.wait()

    async def run(self, script: str) -> Any:
        """The value of an expression, waited for."""
        answer = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def shows(self, text: str) -> None:
        """Waits until that can be read on the page."""
        async with soon(_START_S):
            while text not in await self.text():  # noqa: ASYNC110 - the page tells nobody what it shows
                await asyncio.sleep(0.05)

    async def text(self) -> str:
        return await self.run("document.body.innerText")

    async def screenshot(self) -> bytes:
        answer = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])


@asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Browser]:
    """`directory` is for what it keeps."""
    program = needs.chromium()
    # It reads from 3 and writes to 4, for which ours have to be out of the way.
    (its_in, our_out), (our_in, its_out) = _pipe(), _pipe()
    command = f'exec "$@" 3<&{its_in} 4>&{its_out}'
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command, "bash", str(program), *_FLAGS, f"--user-data-dir={directory}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=(its_in, its_out),
        # It has children, which are to end with it.
        start_new_session=True,
    )
    os.close(its_in)
    os.close(its_out)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    # Closed with their transports.
    incoming, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(our_in, "rb", 0)
    )
    writer, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(our_out, "wb", 0))
    found = Browser(reader, writer)
    listening = asyncio.create_task(found.listen())
    try:
        yield found
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        writer.close()
        incoming.close()
        if process.returncode is None:
            os.killpg(process.pid, 9)
        await process.wait()


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
