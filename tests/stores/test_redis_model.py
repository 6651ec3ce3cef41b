"""Random use of the Redis store beside the memory store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import settings

from shadowcat.core.ports import SessionStore
from shadowcat.stores.redis import RedisStore
from tests.rig.redis_server import RedisServer
from tests.stores.test_model import ComparedToMemory

EXAMPLES = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all examples, each of which has a namespace of its own."""
    RedisComparedToMemory.server = server = RedisServer(tmp_path_factory.mktemp("redis"))
    with asyncio.Runner() as runner:
        runner.run(server.start())
        yield
        runner.run(server.kill())


class RedisComparedToMemory(ComparedToMemory):
    server: RedisServer

    def open(self) -> SessionStore:
        if not hasattr(self, "namespace"):
            self.namespace = f"example-{next(EXAMPLES)}"
        store = RedisStore(f"{self.server.url}?namespace={self.namespace}", clock=self.clock)
        # It counts time from when it first looks.
        self.run(store.expire(float(2**40)))
        return store


TestRedisStore = RedisComparedToMemory.TestCase
TestRedisStore.settings = settings(max_examples=60, stateful_step_count=30)
