from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from shadowcat.core.correlate import (
    MAX_IN_FLIGHT,
    MAX_QUESTION_BYTES,
    MAX_SERVER_REQUESTS,
    Correlator,
    InFlight,
    ServerRequest,
    progress_token,
)
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message


def Ids(last_upstream_id: int = 0) -> Correlator[str]:  # noqa: N802 - stands for the class
    return Correlator(last_upstream_id)


def request(id: Any, token: Any = None, method: str = "tools/call") -> Message:
    params = {"_meta": {"progressToken": token}} if token is not None else {}
    return jsonrpc.request(id, method, params)


def cancelled(id: Any) -> Message:
    return jsonrpc.notification("notifications/cancelled", {"requestId": id, "reason": "r"})


def progress(token: Any) -> Message:
    return jsonrpc.notification("notifications/progress", {"progressToken": token, "progress": 1})


def test_requests_get_fresh_integers() -> None:
    ids = Ids()
    one, first = ids.begin(request(1))
    text, second = ids.begin(request("1"))
    assert (first.id, second.id, ids.next_id()) == (1, 2, 3)
    assert (one.client_id, text.client_id) == (1, "1")
    assert first.raw_params == b"{}"


def test_ids_go_on_from_where_they_are_told_to() -> None:
    ids = Ids(41)
    _, first = ids.begin(request("a"))
    assert (first.id, ids.next_id()) == (42, 43)


def test_an_id_in_flight_is_refused_and_free_again_afterwards() -> None:
    ids = Ids()
    entry, _ = ids.begin(request("a"))
    with pytest.raises(Fault) as caught:
        ids.begin(request("a"))
    assert caught.value.kind is FaultKind.INVALID_REQUEST
    ids.finish(entry)
    ids.finish(entry)
    again, outgoing = ids.begin(request("a"))
    assert outgoing.id == 2
    ids.finish(entry)
    assert ids.in_flight() == [again]


def test_a_renewed_request_has_another_id() -> None:
    ids = Ids()
    entry, outgoing = ids.begin(request("a"))
    renewed = ids.renew(entry, request("a"))
    assert renewed.id != outgoing.id
    assert entry.upstream_id == renewed.id
    assert ids.in_flight() == [entry]
    ids.finish(entry)
    assert ids.is_idle


def test_too_many() -> None:
    ids = Ids()
    for id in range(MAX_IN_FLIGHT):
        ids.begin(request(id))
    with pytest.raises(Fault) as caught:
        ids.begin(request("more"))
    assert caught.value.kind is FaultKind.OVER_CAPACITY
    for id in range(MAX_SERVER_REQUESTS):
        ids.asked_by_upstream(request(id), None, 0.0)
    with pytest.raises(Fault) as caught:
        ids.asked_by_upstream(request("more"), None, 0.0)
    assert caught.value.kind is FaultKind.OVER_CAPACITY


def test_what_questions_hold_is_bounded_too() -> None:
    ids = Ids()
    large = jsonrpc.request("q", "sampling/createMessage", {"text": "x" * (MAX_QUESTION_BYTES // 2)})
    asked, _ = ids.asked_by_upstream(large.with_id(1), None, 0.0)
    with pytest.raises(Fault) as refused:
        ids.asked_by_upstream(large.with_id(2), None, 0.0)
    assert (refused.value.kind, refused.value.reason) == (FaultKind.OVER_CAPACITY, "too_many_server_requests")
    ids.asked_by_upstream(request(3), None, 0.0)
    ids.close(asked)
    ids.asked_by_upstream(large.with_id(2), None, 0.0)


@pytest.mark.parametrize("odd", ["1", None, 1.5, [1], {}, True, 99])
def test_a_cancellation_of_something_else(odd: Any) -> None:
    ids = Ids()
    ids.begin(request(1))
    assert ids.cancelled_by_client(cancelled(odd)) is None
    assert ids.cancelled_by_client(jsonrpc.notification("notifications/cancelled")) is None


def test_a_cancellation_is_renamed_and_counts_once() -> None:
    ids = Ids()
    ids.next_id()
    entry, _ = ids.begin(request("mine"))
    found = ids.cancelled_by_client(cancelled("mine"))
    assert found is not None
    assert found[0] is entry
    assert entry.cancelled
    assert entry.is_stopped
    assert found[1].params() == {"requestId": 2, "reason": "r"}
    assert ids.cancelled_by_client(cancelled("mine")) is None


def test_initialize_cannot_be_cancelled() -> None:
    ids = Ids()
    ids.begin(request(1, method="initialize"))
    assert ids.cancelled_by_client(cancelled(1)) is None


def test_failing_wakes_whoever_waits() -> None:
    ids = Ids()
    entry, _ = ids.begin(request(1))
    fault = Fault(FaultKind.DEADLINE)
    entry.fail(fault)
    assert (entry.is_stopped, entry.fault) == (True, fault)
    woken: list[int] = []
    entry.interrupt = lambda: woken.append(1)
    entry.fail(fault)
    assert woken == [1]


@pytest.mark.parametrize("theirs", [0, 1, "1", ""])
def test_an_answer_finds_its_asker(theirs: Any) -> None:
    ids = Ids()
    ids.begin(request(1))
    asked, outgoing = ids.asked_by_upstream(request(theirs), "stream", 5.0)
    assert (asked.client_id, outgoing.id, asked.stream) == (1, 1, "stream")
    assert ids.is_unanswered(1)
    assert ids.answered_by_client(jsonrpc.result("1", {})) is None
    assert ids.answered_by_client(jsonrpc.result(2, {})) is None
    found = ids.answered_by_client(jsonrpc.result(1, {"a": 1}))
    assert found is not None
    assert found[0] is asked
    answer = found[1]
    assert (answer.id, type(answer.id), answer.result()) == (theirs, type(theirs), {"a": 1})
    assert ids.answered_by_client(jsonrpc.result(1, {})) is None
    assert not ids.is_unanswered(1)
    assert ids.answered_by_client(jsonrpc.error(None, {"code": 1, "message": ""})) is None


def test_an_answer_that_did_not_arrive_can_be_given_again() -> None:
    ids = Ids()
    asked, _ = ids.asked_by_upstream(request("q"), None, 0.0)
    assert ids.answered_by_client(jsonrpc.result(1, {})) is not None
    # On its way: for whoever writes it down it is still open, and it is not overdue.
    assert ids.unanswered() == [asked]
    assert ids.overdue(1.0) == []
    ids.reopen(asked)
    assert ids.is_unanswered(1)
    assert ids.answered_by_client(jsonrpc.result(1, {})) is not None
    ids.close(asked)
    assert ids.unanswered() == []
    assert ids.answered_by_client(jsonrpc.result(1, {})) is None


def test_questions_of_a_lost_upstream_have_no_asker() -> None:
    ids = Ids()
    ids.asked_by_upstream(request("x"), None, 0.0)
    [orphan] = ids.lose_upstream()
    assert orphan.upstream_id == "x"
    assert ids.answered_by_client(jsonrpc.result(orphan.client_id, {})) is None
    asked, _ = ids.asked_by_upstream(request("x"), None, 0.0)
    assert asked.client_id != orphan.client_id
    assert ids.answered_by_client(jsonrpc.result(asked.client_id, {})) is not None


def test_questions_that_wait_too_long() -> None:
    ids = Ids()
    old, _ = ids.asked_by_upstream(request("old"), None, 10.0)
    ids.asked_by_upstream(request("new"), None, 20.0)
    assert ids.overdue(10.0) == []
    assert ids.overdue(15.0) == [old]
    assert ids.overdue(15.0) == []
    assert not ids.is_unanswered(old.client_id)


def test_the_upstream_withdraws_a_question() -> None:
    ids = Ids()
    ids.asked_by_upstream(request(1), None, 0.0)
    text, _ = ids.asked_by_upstream(request("1"), None, 0.0)
    found = ids.cancelled_by_upstream(cancelled("1"))
    assert found is not None
    assert found[0] is text
    assert found[1].params() == {"requestId": 2, "reason": "r"}
    assert ids.cancelled_by_upstream(cancelled("1")) is None
    assert ids.cancelled_by_upstream(cancelled(None)) is None
    assert ids.is_unanswered(1)


@pytest.mark.parametrize("token", [1, "1", 0, "", -5, "é"])
def test_progress_finds_its_request(token: Any) -> None:
    ids = Ids()
    entry, _ = ids.begin(request("a", token))
    assert ids.knows_token(progress(token)) is entry
    assert ids.knows_token(progress("other")) is None
    ids.finish(entry)
    assert ids.knows_token(progress(token)) is None


def test_a_token_used_twice_belongs_to_the_later() -> None:
    ids = Ids()
    first, _ = ids.begin(request(1, "t"))
    second, _ = ids.begin(request(2, "t"))
    ids.finish(first)
    assert ids.knows_token(progress("t")) is second
    ids.finish(second)
    assert ids.knows_token(progress("t")) is None


@pytest.mark.parametrize(
    ("params", "token"),
    [
        (b'{"_meta":{"progressToken":1}}', 1),
        (b'{"_meta":{"progressToken":"a"}}', "a"),
        (b'{"_meta":{"progress\\u0054oken":2}}', 2),
        (b'{"\\u005fmeta":{"progressToken":2}}', 2),
        (b'{"_meta":{}}', None),
        (b'{"_meta":{"progressToken":1.5}}', None),
        (b'{"_meta":{"progressToken":null}}', None),
        (b'{"_meta":{"progressToken":[]}}', None),
        (b'{"_meta":"progressToken"}', None),
        (b'{"arguments":{"progressToken":1}}', None),
        (b"{}", None),
    ],
)
def test_progress_token(params: bytes, token: Any) -> None:
    message = jsonrpc.parse(b'{"jsonrpc":"2.0","id":1,"method":"x","params":%b}' % params)
    assert progress_token(message) == token


ids_of_clients = st.integers(0, 4) | st.sampled_from(["0", "1", "a"])


class Correlating(RuleBasedStateMachine):
    """Against what a person would do with two lists and a pencil."""

    entries = Bundle("entries")
    questions = Bundle("questions")

    def __init__(self) -> None:
        super().__init__()
        self.ids: Correlator[str] = Correlator(0)
        self.running: list[InFlight[str]] = []
        self.open: list[ServerRequest[str]] = []
        self.used: set[int] = set()
        self.given: set[int] = set()

    def _fresh(self, id: Any) -> None:
        assert type(id) is int
        assert id > 0
        assert id not in self.used
        self.used.add(id)

    @rule(target=entries, id=ids_of_clients, token=st.none() | ids_of_clients)
    def begin(self, id: Any, token: Any) -> Any:
        if id in [entry.client_id for entry in self.running]:
            with pytest.raises(Fault):
                self.ids.begin(request(id, token))
            return None
        entry, outgoing = self.ids.begin(request(id, token))
        self._fresh(outgoing.id)
        self.running.append(entry)
        return entry

    @rule(entry=entries)
    def renew(self, entry: InFlight[str] | None) -> None:
        if entry in self.running and entry is not None:
            self._fresh(self.ids.renew(entry, request(entry.client_id)).id)

    @rule(entry=consumes(entries))
    def finish(self, entry: InFlight[str] | None) -> None:
        if entry is not None:
            self.ids.finish(entry)
            if entry in self.running:
                self.running.remove(entry)

    @rule(id=ids_of_clients)
    def cancel(self, id: Any) -> None:
        expected = [e for e in self.running if e.client_id == id and not e.cancelled]
        found = self.ids.cancelled_by_client(cancelled(id))
        if expected:
            assert found is not None
            assert found[0] is expected[0]
            assert found[1].params()["requestId"] == expected[0].upstream_id
        else:
            assert found is None

    @rule(target=questions, id=ids_of_clients)
    def ask(self, id: Any) -> ServerRequest[str]:
        asked, outgoing = self.ids.asked_by_upstream(request(id), "s", 0.0)
        assert outgoing.id == asked.client_id
        assert asked.client_id not in self.given
        self.given.add(asked.client_id)
        self.open.append(asked)
        return asked

    @rule(asked=questions, arrives=st.booleans())
    def answer(self, asked: ServerRequest[str], arrives: bool) -> None:
        found = self.ids.answered_by_client(jsonrpc.result(asked.client_id, {}))
        if asked in self.open:
            assert found is not None
            assert found[0] is asked
            assert (found[1].id, type(found[1].id)) == (asked.upstream_id, type(asked.upstream_id))
            assert not self.ids.is_unanswered(asked.client_id)
            assert self.ids.answered_by_client(jsonrpc.result(asked.client_id, {})) is None
            if arrives:
                self.ids.close(asked)
                self.open.remove(asked)
            else:
                self.ids.reopen(asked)
        else:
            assert found is None

    @rule(id=ids_of_clients)
    def withdraw(self, id: Any) -> None:
        same = [a for a in self.open if a.upstream_id == id and type(a.upstream_id) is type(id)]
        found = self.ids.cancelled_by_upstream(cancelled(id))
        if same:
            assert found is not None
            assert found[0] in same
            self.open.remove(found[0])
        else:
            assert found is None

    @rule()
    def lose(self) -> None:
        assert self.ids.lose_upstream() == self.open
        self.open.clear()

    @rule(token=ids_of_clients)
    def report(self, token: Any) -> None:
        with_token = [e for e in self.running if e.token == token and type(e.token) is type(token)]
        found = self.ids.knows_token(progress(token))
        assert found is None or found in with_token
        if len(with_token) == 1 and [e.token for e in self.running].count(token) == 1:
            # A token used twice may be forgotten with its later user; one used once never is before its time.
            assert found in (with_token[0], None)

    @invariant()
    def counts(self) -> None:
        assert self.ids.in_flight() == sorted(self.running, key=self.ids.in_flight().index)
        assert self.ids.is_idle is (not self.running)
        assert all(self.ids.is_unanswered(asked.client_id) for asked in self.open)


TestCorrelating = Correlating.TestCase
