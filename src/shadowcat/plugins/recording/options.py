"""What a recording can be told."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

_MIB = 1024 * 1024

Bytes = Annotated[int, Meta(ge=1)]


class RecordOptions(msgspec.Struct, frozen=True, kw_only=True):
    directory: str
    """Where the tapes go; made, for its owner alone, if it is not there."""
    redact_keys: tuple[str, ...] = ()
    """Keys whose values are secrets, beside the usual ones."""
    part_bytes: Bytes = 64 * _MIB
    """A tape that has grown to this is ended, and another one begun."""
    part_s: Annotated[float, Meta(gt=0)] = 3_600.0
    """The same for its age."""
    total_bytes: Bytes = 1024 * _MIB
    """All tapes in the directory; the oldest ones are removed to keep to it."""
    queue_messages: Annotated[int, Meta(ge=1)] = 20_000
    """How many may wait to be written; what comes on top of them is left out and counted."""
    queue_bytes: Bytes = 64 * _MIB
    ring_s: Annotated[float, Meta(ge=0)] = 0.0
    """If set, what passed is held this long and written only when something goes wrong."""
    ring_bytes: Bytes = 32 * _MIB
    """What is held at most, the newest first."""
    slow_call_s: Annotated[float, Meta(ge=0)] = 0.0
    """With `ring_s`: an answer that took longer is something gone wrong too; 0 for never."""

    def check(self) -> None:
        """Raises `ValueError` for what contradicts itself."""
        if self.total_bytes < 2 * self.part_bytes:
            raise ValueError("total_bytes must hold two parts: it is less than twice part_bytes")
        if self.slow_call_s and not self.ring_s:
            raise ValueError("slow_call_s is for a recording with ring_s")
