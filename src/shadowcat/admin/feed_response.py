"""A feed as a response that goes on until the viewer leaves or the listener closes."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shadowcat.admin.answers import SECURE
from shadowcat.admin.feed import Feed, Viewer
from shadowcat.aio import cancel_and_join

_BEGIN = b"retry: 3000\n\n"
"""Also what has the head sent before anything happens."""


class FeedResponse(Response):
    media_type = "text/event-stream"

    def __init__(self, feed: Feed, heartbeat_s: float, last_id: str) -> None:
        super().__init__(headers={**SECURE, "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed
        self._heartbeat_s = heartbeat_s
        self._last_id = last_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        with self._feed.watched(self._last_id) as viewer:
            feeding = asyncio.create_task(self._feed_one(viewer, send), name="admin/feed")
            leaving = asyncio.create_task(_until_gone(receive), name="admin/viewer gone")
            try:
                await asyncio.wait((feeding, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_and_join((feeding, leaving), grace_s=1.0)
        if feeding.cancelled() or (failure := feeding.exception()) is None:
            return
        raise failure

    async def _feed_one(self, viewer: Viewer, send: Send) -> None:
        piece: bytes | None = _BEGIN
        while piece is not None:
            # The listener waits here for a viewer that does not read, and cuts one that reads nothing.
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await viewer.next(self._heartbeat_s)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
