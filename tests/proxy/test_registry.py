"""The sessions of a proxy, looked after."""

from __future__ import annotations

import pytest

from shadowcat.proxy.registry import look_s
from shadowcat.proxy.shared import SessionLimits


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        (SessionLimits(), 15.0),
        (SessionLimits(linger_s=1.0), 0.25),
        (SessionLimits(linger_s=0.0), 0.05),
        (SessionLimits(linger_s=1e6, idle_s=1e6, call_s=1e6, server_request_s=1e6), 30.0),
    ],
)
def test_they_are_looked_at_often_and_not_all_the_time(limits: SessionLimits, seconds: float) -> None:
    assert look_s(limits) == seconds
