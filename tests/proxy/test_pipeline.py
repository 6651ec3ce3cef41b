"""The pipeline alone: order, deadlines, failures and their logs, and what is replaced while messages are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from shadowcat import PASS, Context, Interceptor, Message, Reject, Replace, Reply
from shadowcat.core.exchange import Caller, Direction
from shadowcat.core.interceptor import Judgement
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.wire import jsonrpc
from shadowcat.wire.mcp import Era
from tests.rig.wait import happens, soon, until

REQUEST = jsonrpc.request("x", "tools/call", {"name": "t"})
CONTEXT = Context(Era.LEGACY, Direction.TO_SERVER, Caller(), "a")


class Asked(Interceptor):
    def __init__(self, judge: Callable[[Message], Any] = lambda message: PASS) -> None:
        self.seen: list[str] = []
        self._judge = judge

    def on_request(self, message: Message, context: Context) -> Judgement:
        self.seen.append(message.method)
        return self._judge(message)


async def hang(message: Message) -> Any:
    await asyncio.Event().wait()


async def passes_later(message: Message) -> Any:
    return PASS


async def reason_of(pipeline: Pipeline) -> tuple[FaultKind, str]:
    with pytest.raises(Fault) as caught:
        await pipeline.run(REQUEST, CONTEXT)
    return caught.value.kind, caught.value.reason


async def test_a_deadline_refuses_by_a_name_of_its_own() -> None:
    slow = Asked(hang)
    slow.deadline_s = 0.01
    async with soon():
        assert await reason_of(Pipeline([slow])) == (FaultKind.DEADLINE, "interceptor_deadline")


async def passes_when_cancelled(message: Message) -> Any:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return PASS


async def crashes_when_cancelled(message: Message) -> Any:
    try:
        await asyncio.Event().wait()
    finally:
        raise ZeroDivisionError


@pytest.mark.parametrize("judge", [hang, passes_when_cancelled, crashes_when_cancelled])
async def test_a_hook_keeps_no_cancellation_to_itself(judge: Callable[[Message], Any]) -> None:
    hook = Asked(judge)
    judging = asyncio.create_task(Pipeline([hook]).run(REQUEST, CONTEXT))
    await until(lambda: bool(hook.seen))
    await asyncio.sleep(0)
    judging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await judging
    assert judging.cancelled()


async def test_what_a_hook_says_of_its_deadline_counts() -> None:
    slow = Asked(passes_when_cancelled)
    slow.deadline_s = 0.01
    async with soon():
        assert await Pipeline([slow]).run(REQUEST, CONTEXT) is REQUEST


async def test_a_timeout_of_the_hooks_own_is_a_failure_like_any() -> None:
    async def timed_out(message: Message) -> Any:
        raise TimeoutError

    assert (await reason_of(Pipeline([Asked(timed_out)])))[1] == "interceptor_failed"


def crash(message: Message) -> Any:
    raise ZeroDivisionError


async def nothing_later(message: Message) -> Any:
    return None


WRONG: dict[str, tuple[Callable[[Message], Any], str]] = {
    "crash": (crash, "interceptor_failed"),
    "nothing": (lambda message: None, "interceptor_gave_no_verdict"),
    "nothing, later": (nothing_later, "interceptor_gave_no_verdict"),
    "a notification": (
        lambda message: Replace(jsonrpc.notification("notifications/vendor")),
        "interceptor_changed_kind",
    ),
    "a reply that is none": (lambda message: Reply(message), "interceptor_replied_no_response"),
    "hang": (hang, "interceptor_deadline"),
}


@pytest.mark.parametrize("how", WRONG)
async def test_failing_closed_and_open(how: str, caplog: pytest.LogCaptureFixture) -> None:
    judge, reason = WRONG[how]
    closed, opened, last = Asked(judge), Asked(judge), Asked()
    closed.deadline_s = opened.deadline_s = 0.01
    opened.fails_open = True
    async with soon():
        assert (await reason_of(Pipeline([closed, last])))[1] == reason
        assert last.seen == []
        assert await Pipeline([opened, last]).run(REQUEST, CONTEXT) is REQUEST
        assert last.seen == ["tools/call"]


@pytest.mark.parametrize("fails_open", [True, False])
async def test_a_refusal_is_a_judgement_also_of_one_that_fails_open(fails_open: bool) -> None:
    def refuse(message: Message) -> Any:
        raise Fault(FaultKind.REFUSED_BY_RULE)

    interceptor = Asked(refuse)
    interceptor.fails_open = fails_open
    assert (await reason_of(Pipeline([interceptor])))[0] is FaultKind.REFUSED_BY_RULE


async def test_a_failure_is_logged_once_for_each_interceptor_and_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crashing, silent = Asked(crash), Asked(lambda message: None)
    crashing.fails_open = silent.fails_open = True
    pipeline = Pipeline([crashing, silent])
    for _ in range(3):
        await pipeline.run(REQUEST, CONTEXT)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "Asked failed on a request (ZeroDivisionError); what it fails on passes" in told[0]
    assert pipeline.failures == {
        ("Asked", "ZeroDivisionError"): 3,
        ("Asked", "interceptor_gave_no_verdict"): 3,
    }


async def test_a_new_name_does_not_evade_who_wants_it() -> None:
    first = Asked(lambda message: Replace(jsonrpc.request("x", "secrets/read", {})))
    first.methods = ("tools/call", "secrets/read")
    policy, other = Asked(lambda message: Reject.because("no")), Asked()
    policy.methods, other.methods = ("secrets/read",), ("tools/call",)
    pipeline = Pipeline([first, other, policy])
    assert (await reason_of(pipeline))[0] is FaultKind.REFUSED_BY_RULE
    assert (first.seen, other.seen, policy.seen) == (["tools/call"], [], ["secrets/read"])


async def test_the_replaced_one_judges_to_the_end_what_it_began() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: Message) -> Any:
        began.set()
        await happens(go_on)
        return Reject.because("the old one")

    old, new, last = Asked(slow), Asked(), Asked()
    old.deadline_s = 60.0
    pipeline = Pipeline([old, last])
    under_way = asyncio.create_task(reason_of(pipeline))
    await happens(began)
    pipeline.replace(old, new)
    assert await pipeline.run(REQUEST, CONTEXT) is REQUEST
    go_on.set()
    async with soon():
        assert (await under_way)[0] is FaultKind.REFUSED_BY_RULE
    assert (new.seen, last.seen) == (["tools/call"], ["tools/call"])


async def test_hooks_that_have_nothing_to_wait_for_do_not_wait() -> None:
    """Run by hand, without an event loop: whatever waited would come out here."""
    for judge in (lambda message: PASS, passes_later):
        running = Pipeline([Asked(judge)]).run(REQUEST, CONTEXT)
        if judge is passes_later:
            assert await running is REQUEST
        else:
            with pytest.raises(StopIteration) as done:
                running.send(None)
            assert done.value.value is REQUEST
