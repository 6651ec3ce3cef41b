"""A store that can be told to fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shadowcat.core.ledger import Refusal, SessionChange
from shadowcat.proxy.writer import Durability
from shadowcat.stores.memory import MemoryStore

ASYNC = Durability(gather_s=0.0, patience_s=0.5, retry_first_s=0.01, retry_cap_s=0.02)
STRICT = Durability(strict=True, gather_s=0.0, patience_s=0.5, retry_first_s=0.01, retry_cap_s=0.02)


class FailingStore(MemoryStore):
    is_failing = False

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        if self.is_failing:
            raise OSError("no space left on device")
        return await super().write(changes)
