"""What a person asks of a store: list its sessions, show one, end one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shadowcat.clock import SystemClock
from shadowcat.core import kept
from shadowcat.core.ledger import SessionSummary, StoredSession, StoredStream
from shadowcat.core.ports import SessionStore
from shadowcat.errors import StoreUnusable
from shadowcat.stores.sqlite import SqliteStore
from shadowcat.stores.sqlite_file import require_database
from shadowcat.stores.urls import StoreUrl, sqlite_path, store_of

Table = dict[str, Any]

_PAGE = 200


class NoSuchSession(Exception):
    """None is called so, or several are: which, and what to do."""


class OfAnotherVersion(Exception):
    """What is kept of the session cannot be read."""


@asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[SessionStore]:
    store = store_of(url, SystemClock())
    if store is None:
        raise StoreUnusable("sessions in memory are seen by their proxy alone")
    try:
        await store.check()
        if isinstance(store, SqliteStore):
            # A proxy sets aside what is broken in the place of its store. Who only looks may have named the wrong file.
            require_database(sqlite_path(url))
        yield store
    finally:
        await store.aclose()


async def list_sessions(url: str, tell: Callable[[Table], object]) -> str:
    """Returns why there is none; nothing where there are some."""
    if (path := _path_of(url)) is not None and not path.exists():
        return f"there is no store at {path} yet: a proxy makes it when it opens its first session"
    after = ""
    async with _opened(url) as store:
        while page := await store.sessions(after, _PAGE):
            for summary in page:
                tell(_row(summary))
            after = page[-1].session_id
    return "" if after else f"there are no sessions in {StoreUrl(url).shown()}"


def _path_of(url: str) -> Path | None:
    """Of a store that is a file."""
    return sqlite_path(url) if url.lower().startswith("sqlite:") else None


def _row(summary: SessionSummary) -> Table:
    row: Table = {"session": summary.session_id}
    try:
        record = kept.decode_session(summary.record).record
    except kept.Unreadable:
        row["upstream"] = "(written by another version)"
    else:
        row |= {"upstream": record.upstream, "version": record.version, "opened": _time(record.created_wall)}
    size = {"streams": summary.streams, "events": summary.events, "bytes": summary.event_bytes}
    return row | size | {"node": summary.node}


async def show_session(url: str, beginning: str) -> Table:
    """What is known of it. No message is shown, nor the id by which the upstream knows it.

    Raises `NoSuchSession` and `OfAnotherVersion`.
    """
    async with _opened(url) as store:
        stored = await store.read(await _found(store, beginning))
        if stored is None:
            raise _no_session(beginning)
        try:
            return _detail(stored)
        except kept.Unreadable as error:
            raise OfAnotherVersion from error


def _detail(stored: StoredSession) -> Table:
    held = kept.decode_session(stored.record)
    record = held.record
    return {
        "session": stored.session_id,
        "upstream": record.upstream,
        "version": record.version,
        "principal": record.principal,
        "route": record.route,
        "opened": _time(record.created_wall),
        "log level": record.log_level or "(not set)",
        "subscriptions": len(record.subscriptions),
        "open questions": ", ".join(question.method for question in held.questions) or "(none)",
        "taken over": stored.fence - 1,
        "streams": [_stream(stream) for stream in stored.streams],
    }


def _stream(stored: StoredStream) -> Table:
    head = kept.decode_stream(stored.head)
    return {
        "stream": stored.id,
        "answers": head.request_id if stored.id else "(standalone)",
        "first event": stored.first_seq,
        "events": len(stored.events),
        "bytes": sum(map(len, stored.events)),
        "finished": head.is_finished,
        "resumable": head.cursor is not None,
    }


async def end_session(url: str, beginning: str) -> tuple[str, str]:
    """Its id, and the node that has it, if any has: that notices with the next thing it writes."""
    async with _opened(url) as store:
        session_id = await _found(store, beginning)
        node = await _node_of(store, session_id)
        await store.remove(session_id)
        return session_id, node


async def _found(store: SessionStore, beginning: str) -> str:
    """Logs show the first characters of an id, and these are what a person has."""
    if (await store.read(beginning)) is not None:
        return beginning
    # What is longer comes right after what it begins with.
    following = await store.sessions(beginning, 2)
    found = [summary for summary in following if summary.session_id.startswith(beginning)]
    if not found:
        raise _no_session(beginning)
    if len(found) > 1:
        raise NoSuchSession(f"several sessions have an id that begins with {beginning!r}; write more of it")
    return found[0].session_id


async def _node_of(store: SessionStore, session_id: str) -> str:
    """Empty where none has it."""
    near = await store.sessions(session_id[:-1], _PAGE)
    return next((summary.node for summary in near if summary.session_id == session_id), "")


def _no_session(beginning: str) -> NoSuchSession:
    return NoSuchSession(
        f"no session has an id that begins with {beginning!r}; `shadowcat session list` has them all"
    )


def _time(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds")
