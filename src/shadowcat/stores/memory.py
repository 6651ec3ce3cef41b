"""Sessions kept in this process and gone with it."""

from __future__ import annotations

from shadowcat.core.session import SessionRecord


class MemoryStore:
    lasts = False

    def __init__(self) -> None:
        self._records: dict[str, SessionRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    async def get(self, session_id: str) -> SessionRecord | None:
        return self._records.get(session_id)

    async def put(self, record: SessionRecord) -> None:
        self._records[record.id] = record

    async def delete(self, session_id: str) -> None:
        self._records.pop(session_id, None)

    async def aclose(self) -> None:
        self._records.clear()
