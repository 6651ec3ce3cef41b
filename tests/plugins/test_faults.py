"""Faults on purpose, through the real proxy: each does what it says, and a seed does the same again."""

from __future__ import annotations

from typing import Any

import pytest

from shadowcat.plugins.faults import FaultOptions
from tests.rig.client import rpc
from tests.rig.server import Call
from tests.rig.stand import Stand, stand

COUNT = 6


async def counting(call: Call) -> None:
    stream = await call.stream()
    for n in range(COUNT):
        await stream.notify("notifications/vendor", {"n": n})
    await stream.send(call.response({"content": []}))
    await stream.end()


async def numbers(rig: Stand, id: int = 1) -> tuple[list[int], dict[str, Any]]:
    reply = await rig.client.begin("tools/call", {"name": "t"}, id)
    *told, response = await reply.messages()
    return [message["params"]["n"] for message in told], response


async def of_a_call(**faults: Any) -> tuple[list[int], dict[str, Any]]:
    async with stand(faults=FaultOptions(**faults)) as rig:
        rig.server.handlers["tools/call"] = counting
        await rig.client.initialize()
        return await numbers(rig)


async def test_nothing_is_set_and_nothing_happens() -> None:
    told, response = await of_a_call()
    assert told == list(range(COUNT))
    assert "result" in response


async def test_notifications_are_lost_and_answers_are_not() -> None:
    told, response = await of_a_call(drop_chance=1.0)
    assert told == []
    assert "result" in response


async def test_doubled() -> None:
    told, _ = await of_a_call(duplicate_chance=1.0)
    assert told == sorted([*range(COUNT)] * 2)


async def test_reordered() -> None:
    told, response = await of_a_call(reorder_chance=1.0)
    assert told == [1, 0, 3, 2, 5, 4]
    assert "result" in response


async def test_cut() -> None:
    told, response = await of_a_call(cut_after=3)
    assert told == [0, 1, 2]
    assert response["error"]["data"]["reason"] == "injected_fault"


@pytest.mark.parametrize(
    ("faults", "code"),
    [(FaultOptions(refuse_chance=1.0), -31005), (FaultOptions(fail_chance=1.0), -32603)],
    ids=["refused", "failed"],
)
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_refused_and_failed(faults: FaultOptions, code: int, era: str) -> None:
    async with stand(faults=faults) as rig:
        if era == "modern":
            answer = await (await rig.client.ask("tools/call", {"name": "t"}, id=1)).json()
        else:
            initialize = rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 1)
            answer = await (await rig.client.post(initialize)).json()
        assert (answer["error"]["code"], answer["error"]["data"]["reason"]) == (code, "injected_fault")
        assert rig.server.requests == []


async def test_an_expired_session_is_opened_again() -> None:
    """With this seed the call finds its session gone, and what the proxy does about it succeeds."""
    async with stand(faults=FaultOptions(seed=102, expire_chance=0.5)) as rig:
        await rig.client.initialize()
        assert "result" in await rig.client.call()
        assert rig.counters.recoveries == 1
        assert len(rig.server.got("initialize")) == 2


async def test_the_same_seed_makes_the_same_faults() -> None:
    def chances(seed: int) -> dict[str, Any]:
        return {"seed": seed, "drop_chance": 0.3, "duplicate_chance": 0.3, "reorder_chance": 0.3}

    first, again = await of_a_call(**chances(7)), await of_a_call(**chances(7))
    assert first[0] == again[0]
    others = [(await of_a_call(**chances(seed)))[0] for seed in range(3)]
    assert any(told != first[0] for told in others)
