"""Two nodes behind a balancer are restarted one after the other, under applications of the official SDKs that call all
the time: none hears of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.busy import Plans, crowds
from tests.faults.child import NumbersChild, numbers
from tests.faults.nodes import Nodes, two_nodes
from tests.rig.nginx import balancing_nginx
from tests.rig.redis_server import redis_server
from tests.size import sized

pytestmark = [
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
    pytest.mark.timeout(sized(240, 1200)),
]

EACH = sized(2, 33)
"""Sessions of each SDK, beside the one that a process of Node's opens for itself."""
ROUNDS = sized(1, 3)
DRAIN_S = sized(1.0, 10.0)
PAUSE_S = sized(0.01, 0.1)
PLANS: Plans = (
    {"count": sized(300, 150), "pause_s": PAUSE_S, "size": 50},
    {"count": sized(150, 50), "pause_s": PAUSE_S, "ask_after": 30},
    {"count": 1, "answers_json": True},
)
"""The first takes longer than a drain. There are no more events than the SDKs can take: those of a hundred sessions
share a core with everything else."""
EMITTED_EVERY_S = sized(0.02, 0.2)
BETWEEN_S = 0.5


class Emitter:
    """Says one thing after another on the standalone stream of every session."""

    def __init__(self, counting: NumbersChild) -> None:
        self.emitted = 0
        self._counting = counting

    async def emit(self) -> None:
        self.emitted += 1
        await self._counting.control("emit", count=1)

    async def run(self) -> None:
        while True:
            await self.emit()
            await asyncio.sleep(EMITTED_EVERY_S)


async def _roll(nodes: Nodes) -> None:
    for node in ROUNDS * [*nodes]:
        await asyncio.sleep(BETWEEN_S)
        await node.end()
        await node.start()


async def test_no_application_hears_of_a_rolling_restart(tmp_path: Path) -> None:
    async with (
        numbers() as counting,
        redis_server(tmp_path, appendonly="yes") as redis,
        two_nodes(counting.url, redis.url, drain_s=DRAIN_S) as nodes,
        balancing_nginx([node.port for node in nodes], tmp_path) as url,
        crowds(url) as apps,
    ):
        await apps.begin(EACH, PLANS)
        emitter = Emitter(counting)
        await emitter.emit()
        await nodes.written()
        emitting = asyncio.create_task(emitter.run())
        try:
            await _roll(nodes)
            await apps.rest()
        finally:
            emitting.cancel()
            await asyncio.wait((emitting,))
        await emitter.emit()
        reports = await apps.report(emitter.emitted)
        counts = (await counting.control("tell"))["counts"]
    for report in reports:
        report.check(emitter.emitted)
    assert len(reports) == 3 * EACH
    assert counts["tools/call"] == sum(len(report.calls) for report in reports)
    assert counts["initialize"] == len(reports) + 2
    assert "notifications/cancelled" not in counts
