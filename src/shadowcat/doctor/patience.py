"""Says what doctor is waiting for, once that takes so long that a person wonders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

PATIENCE_S = 5.0

Tell = Callable[[str], object]


@contextmanager
def telling(tell: Tell, what: str) -> Generator[None]:
    """Once, if what is done inside has not come to its end by then."""
    later = asyncio.get_running_loop().call_later(PATIENCE_S, tell, f"waiting for {what}")
    try:
        yield
    finally:
        later.cancel()
