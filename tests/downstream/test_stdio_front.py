"""The one client on stdin and stdout, without either: what is left once it ends."""

from __future__ import annotations

from typing import Any, cast

from shadowcat.downstream.stdio_front import StdioFront


async def test_nothing_is_begun_once_it_ends() -> None:
    written: list[bytes] = []

    async def write(line: bytes) -> None:
        written.append(line)

    gateway = cast(Any, None)
    front = StdioFront(gateway, write, lambda: None, lambda _: None)
    front.heard([b"no message"])
    await front.end(5.0)
    assert len(written) == 1
    front.heard([b"no message", b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'])
    await front.end(5.0)
    assert len(written) == 1
