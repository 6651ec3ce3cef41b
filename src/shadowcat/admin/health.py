"""Whether the proxy can do its work and, if not, why, in words that reveal nothing behind it."""

from __future__ import annotations

from enum import Enum

import msgspec

from shadowcat.errors import FaultKind
from shadowcat.proxy.shared import Phase, Shared
from shadowcat.proxy.upstreams import Trouble

RECENT_S = 10.0
"""How long it counts that an upstream could not be reached.

Who is not ready is sent no traffic, and without traffic nobody finds out that the upstream is back.
"""


class NotReady(Enum):
    STARTING = "starting"
    DRAINING = "draining"
    STORE_FAILING = "store_failing"
    NO_UPSTREAM = "no_upstream_reachable"


class Readiness(msgspec.Struct, kw_only=True):
    is_ready: bool
    reasons: list[NotReady]
    degraded: list[NotReady]
    """What is wrong and does not keep the proxy from serving."""


def readiness(shared: Shared) -> Readiness:
    found = _reasons(shared)
    # Unless each event is to be stored first, traffic goes on without the store; and a store that several nodes share
    # fails for all of them, which would leave nobody to send traffic to.
    serves = shared.writer is None or not shared.writer.refuses
    degraded = [NotReady.STORE_FAILING] if serves and NotReady.STORE_FAILING in found else []
    reasons = [reason for reason in found if reason not in degraded]
    return Readiness(is_ready=not reasons, reasons=reasons, degraded=degraded)


def _reasons(shared: Shared) -> list[NotReady]:
    found: list[NotReady] = []
    if shared.phase is Phase.STARTING:
        found.append(NotReady.STARTING)
    elif shared.phase is Phase.DRAINING:
        found.append(NotReady.DRAINING)
    if shared.writer is not None and shared.writer.is_failing:
        found.append(NotReady.STORE_FAILING)
    now = shared.clock.monotonic()
    upstreams = shared.upstreams
    # What clients name is theirs to worry about.
    if not upstreams.are_named_by_clients and all(
        is_unreachable(upstreams.trouble(each.name), now) for each in upstreams
    ):
        found.append(NotReady.NO_UPSTREAM)
    return found


def is_unreachable(trouble: Trouble | None, now: float) -> bool:
    return (
        trouble is not None
        and trouble.kind is FaultKind.UPSTREAM_UNAVAILABLE
        and now - trouble.last_at < RECENT_S
    )
