"""Stores by URL, as a person names them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from shadowcat.clock import Clock
from shadowcat.core.ports import SessionStore
from shadowcat.errors import StoreUnusable
from shadowcat.secret import shown_url
from shadowcat.stores.sqlite import SqliteStore


class StoreUrl(str):
    """A store, as a person names it. There may be a password in it."""

    __slots__ = ()

    def shown(self) -> str:
        """As it may stand in a log."""
        return shown_url(self)


FORMS = "memory:, sqlite:///PATH, redis://HOST, rediss://HOST or redis+unix:///PATH"


def store_of(url: str, clock: Clock) -> SessionStore | None:
    """None for `memory:`, where a session is kept by its owner and nobody else. Opens nothing.

    Raises `StoreUnusable`. What it says holds no more of the URL than its beginning, for there may be a password in it.
    """
    scheme, _, rest = url.partition(":")
    match scheme.lower():
        case "memory" if not rest:
            return None
        case "sqlite":
            return SqliteStore(sqlite_path(url), clock)
        case "redis" | "rediss" | "redis+unix":
            return _redis(url, clock)
        case _:
            raise StoreUnusable(f"no store has such a URL; there are {FORMS}")


def sqlite_path(url: str) -> Path:
    """The path in `sqlite:///relative/path` or `sqlite:////absolute/path`."""
    _, found, written = url.partition(":///")
    if not found:
        raise StoreUnusable("an SQLite URL is sqlite:///relative/path or sqlite:////absolute/path")
    if "?" in written or "#" in written:
        raise StoreUnusable("an SQLite URL has no options; in a path write %3F for '?' and %23 for '#'")
    path = unquote(written)
    if "\0" in path:
        raise StoreUnusable("no path has a zero byte in it")
    if path in ("", ":memory:") or path.endswith("/"):
        raise StoreUnusable("the SQLite URL names no file; sessions that need none are kept with memory:")
    return Path(path)


def _redis(url: str, clock: Clock) -> SessionStore:
    try:
        from shadowcat.stores.redis import RedisStore
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "redis":
            raise
        raise StoreUnusable("Redis needs the package redis: pip install 'shadowcat[redis]'") from error
    return RedisStore(url, clock=clock)
