"""How much a test does: enough to show the thing in `make test`, the whole bar in `make soak`.

`make soak` runs the modules that use `sized`, wherever they are; tests/conftest.py marks them.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

SOAK = os.environ.get("SHADOWCAT_SOAK") == "1"


def sized(short: T, long: T) -> T:
    return long if SOAK else short
