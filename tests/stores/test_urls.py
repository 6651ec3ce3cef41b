from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from shadowcat.clock import ManualClock
from shadowcat.errors import StoreUnusable
from shadowcat.stores.sqlite import SqliteStore
from shadowcat.stores.urls import StoreUrl, sqlite_path, store_of

CLOCK = ManualClock()


def test_memory_is_no_store() -> None:
    assert store_of("memory:", CLOCK) is None


async def test_a_file_is_opened_later(tmp_path: Path) -> None:
    store = store_of(f"sqlite:///{tmp_path}/sessions.db", CLOCK)
    assert isinstance(store, SqliteStore)
    await store.aclose()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///sessions.db", "sessions.db"),
        ("sqlite:///state/sessions.db", "state/sessions.db"),
        ("sqlite:////var/lib/shadowcat/sessions.db", "/var/lib/shadowcat/sessions.db"),
        ("SQLite:///a%20b%23%3F%25.db", "a b#?%.db"),
    ],
)
def test_the_path_of_a_url(url: str, path: str) -> None:
    assert sqlite_path(url) == Path(path)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "no store has such a URL"),
        ("sessions.db", "no store has such a URL"),
        ("memory:8", "no store has such a URL"),
        ("postgres://user:secret@host/db", "no store has such a URL"),
        ("sqlite:sessions.db", "is sqlite:///relative/path or"),
        ("sqlite://host/sessions.db", "is sqlite:///relative/path or"),
        ("sqlite:///", "names no file"),
        ("sqlite:////", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///state/", "names no file"),
        ("sqlite:///sessions.db?mode=ro", "has no options"),
        ("sqlite:///sessions.db#secret", "has no options"),
        ("sqlite:///a%00b", "zero byte"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, why: str) -> None:
    with pytest.raises(StoreUnusable, match=why) as caught:
        store_of(url, CLOCK)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://localhost", "rediss://localhost:6379/0", "redis+unix:///run/redis.sock"]
)
def test_redis_is_found(url: str) -> None:
    assert type(store_of(url, CLOCK)).__name__ == "RedisStore"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("redis", "shadowcat.stores.redis"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(StoreUnusable, match=r"pip install 'shadowcat\[redis\]'"):
        store_of("redis://localhost", CLOCK)


@pytest.mark.parametrize("login", ["hush", ":hush", "me:hush", "me:hush@hush", "me:hush?hush", "@hush@"])
def test_no_password_is_shown(login: str) -> None:
    assert StoreUrl(f"redis://{login}@host:6379/1?ca_file=a").shown() in ("redis://host:6379/1", "redis://")
    assert StoreUrl("sqlite:////var/lib/a@b.db").shown() == "sqlite:////var/lib/a@b.db"
