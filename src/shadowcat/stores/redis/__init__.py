"""Sessions in Redis, shared by every node that is given the same URL."""

from shadowcat.stores.redis.connections import RedisFailed, RedisLimits
from shadowcat.stores.redis.store import RedisStore

__all__ = ["RedisFailed", "RedisLimits", "RedisStore"]
