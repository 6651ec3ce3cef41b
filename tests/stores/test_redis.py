"""The Redis store keeps to its port, on a real redis-server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shadowcat.clock import ManualClock
from shadowcat.stores.redis import RedisStore
from shadowcat.testing import StoreContract
from tests.rig.redis_server import RedisServer


class TestRedisStore(StoreContract):
    @pytest.fixture
    def make_store(self, redis: RedisServer) -> Callable[[], RedisStore]:
        self.clock = ManualClock()
        return lambda: RedisStore(redis.url, clock=self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
