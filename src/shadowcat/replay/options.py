"""The options of a replay."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

_MAX_PAUSE_S = 3_600.0
"""A tape is what somebody sent: one line of it must not stop everything for good."""


class ReplayOptions(msgspec.Struct, frozen=True, kw_only=True):
    ignore: tuple[str, ...] = ()
    """JSON pointers into messages, such as /params/arguments/now: what stands there counts for nothing."""
    strict: bool = False
    """Everything but ids counts, and nothing is answered more often than it was."""
    speed: Annotated[float, Meta(ge=0)] = 0.0
    """1 is as recorded, 10 is ten times as fast; 0 does not wait at all."""
    session: str = ""
    """The beginning of the name of the only session to play."""
    wait_s: Annotated[float, Meta(gt=0)] = 30.0
    """How long the other side may take for what it did on the tape."""

    def pause_s(self, ms: float) -> float:
        """How long to wait for what came so much later on the tape."""
        return min(max(0.0, ms) / 1_000 / self.speed, _MAX_PAUSE_S) if self.speed else 0.0
