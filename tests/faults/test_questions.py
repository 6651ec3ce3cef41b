"""Questions of the server's (elicitation) across broken connections: asked until answered, and then not again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.caller import Caller, Tally, caller
from tests.faults.child import NumbersChild, ProxyChild, tuned_proxy_before
from tests.faults.numbers import CallPlan
from tests.faults.wire import wire_to
from tests.size import sized

pytestmark = pytest.mark.timeout(sized(120, 1200))

YES = {"action": "accept", "content": {}}


async def _answer(client: Caller, question: Any) -> None:
    await client.accepted({"jsonrpc": "2.0", "id": question["id"], "result": YES})


def _check(tally: Tally, plan: CallPlan) -> None:
    tally.check_result(plan)
    assert tally.response["result"]["structuredContent"]["answer"] == YES


async def test_a_question_asked_while_the_client_was_away_waits_for_it(
    proxy: ProxyChild, counting: NumbersChild
) -> None:
    async with caller(proxy.port) as client:
        for index in range(sized(5, 50)):
            plan = CallPlan(label=f"call-{index}", count=6, hold_after=1, ask_after=3)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.number == 1)
            hearing.reset()
            await counting.control("release", label=plan.label)
            await counting.says(lambda told, plan=plan: told["ready"][plan.label] == 4)
            hearing = await client.begun(await client.listen(tally.last_id))
            await client.follow(hearing, tally, lambda tally=tally: bool(tally.asked))
            assert tally.number == 3
            await _answer(client, tally.asked[0])
            await client.gather(hearing, tally)
            _check(tally, plan)


async def test_an_open_question_is_asked_again_after_a_break_and_an_answered_one_is_not(
    proxy: ProxyChild, counting: NumbersChild
) -> None:
    async with caller(proxy.port) as client:
        plan = CallPlan(label="call", count=6, ask_after=3, hold_after=5)
        tally = Tally(plan.label)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.number == 3)
        before = tally.last_id
        await client.follow(hearing, tally, lambda: bool(tally.asked))
        hearing.reset()

        # Not answered yet: who resumes from before it hears it again, under the same id.
        again = Tally(plan.label, number=3, last_id=before)
        hearing = await client.begun(await client.listen(before))
        await client.follow(hearing, again, lambda: bool(again.asked))
        assert again.asked == tally.asked
        await _answer(client, again.asked[0])
        await client.follow(hearing, again, lambda: again.number == 4)
        hearing.reset()

        # Answered: it is left out, and nothing else is.
        last = Tally(plan.label, number=3, last_id=before, asked=list(again.asked))
        hearing = await client.begun(await client.listen(before))
        await client.follow(hearing, last, lambda: last.number == 4)
        assert last.asked == again.asked
        await counting.control("release", label=plan.label)
        await client.gather(hearing, last)
        _check(last, plan)
        assert (await counting.control("tell"))["answers"][plan.label] == 1


async def test_an_answer_given_twice_reaches_the_server_once(
    proxy: ProxyChild, counting: NumbersChild
) -> None:
    async with caller(proxy.port) as client:
        plan = CallPlan(label="call", count=6, ask_after=3)
        tally = Tally(plan.label)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: bool(tally.asked))
        for _ in range(3):
            await _answer(client, tally.asked[0])
        await client.gather(hearing, tally)
        _check(tally, plan)
        assert await counting.counted("answer") == 1


async def test_a_question_repeated_by_the_server_after_a_break_is_asked_once(counting: NumbersChild) -> None:
    async with (
        wire_to(counting.port) as wire,
        tuned_proxy_before(wire.url) as proxy,
        caller(proxy.port) as client,
    ):
        # The server sends the question, then again what it sent last when it is asked for the rest.
        plan = CallPlan(label="call", count=6, ask_after=3, replay_last=True)
        tally = Tally(plan.label)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: bool(tally.asked))
        wire.reset_all()
        await proxy.says(lambda told: told["duplicates"] == 1)
        await _answer(client, tally.asked[0])
        await client.gather(hearing, tally)
        _check(tally, plan)
        assert len(tally.asked) == 1


async def test_a_question_that_nobody_comes_to_answer_is_given_up(counting: NumbersChild) -> None:
    async with (
        tuned_proxy_before(counting.url, session={"server_request_s": 0.5}) as proxy,
        caller(proxy.port) as client,
    ):
        plan = CallPlan(label="call", count=6, ask_after=3)
        tally = Tally(plan.label, unheard=1)
        hearing = await client.begun(await client.call(plan))
        await client.follow(hearing, tally, lambda: tally.primings == 1)
        hearing.reset()
        await proxy.says(lambda told: told["server_requests_expired"] == 1)
        await client.gather(await client.listen(tally.last_id), tally)
        tally.check_result(plan)
        assert tally.response["result"]["structuredContent"]["answer"]["code"] == -31007
        assert [message["method"] for message in tally.others] in ([], ["notifications/cancelled"])
