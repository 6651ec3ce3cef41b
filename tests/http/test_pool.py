"""The pool under every order of events: a machine that plays its connections and waiters."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shadowcat.http.pool import Claim, Grant, Pool

KEEP = 10.0


class PoolMachine(RuleBasedStateMachine):
    """Connections and waiters are numbers. A slot is opening, or used by a connection; the pool may lose neither."""

    @initialize(limit=st.integers(1, 4), max_waiting=st.integers(0, 3), max_idle=st.integers(0, 4))
    def begin(self, limit: int, max_waiting: int, max_idle: int) -> None:
        self.pool: Pool[int, int] = Pool(limit, max_waiting, max_idle)
        self.limit, self.max_waiting, self.max_idle = limit, max_waiting, max_idle
        self.now = 0.0
        self.made = 0
        self.opening = 0
        self.used: set[int] = set()
        self.idle: dict[int, float] = {}
        self.line: deque[int] = deque()

    def carry_out(self, grant: Grant[int, int] | None) -> None:
        if grant is None:
            return
        assert grant.waiter == self.line.popleft(), "first come, first served"
        if grant.connection is None:
            self.opening += 1
        else:
            self.take(grant.connection)

    def take(self, connection: int) -> None:
        assert connection not in self.used, "held by two"
        self.used.add(connection)

    @rule()
    def claim(self) -> None:
        match self.pool.claim():
            case Claim.OPEN:
                assert not self.idle, "an idle connection would have done"
                self.opening += 1
            case Claim.WAIT:
                self.made += 1
                self.line.append(self.made)
                self.pool.wait(self.made)
            case Claim.FULL:
                assert len(self.line) == self.max_waiting
            case connection:
                assert connection == list(self.idle)[-1], "the one used last"
                del self.idle[connection]
                self.take(connection)

    @precondition(lambda self: self.opening)
    @rule()
    def opened(self) -> None:
        self.opening -= 1
        self.made += 1
        self.take(self.made)

    @precondition(lambda self: self.opening)
    @rule()
    def open_failed(self) -> None:
        self.opening -= 1
        self.carry_out(self.pool.drop())

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def lost(self, data: st.DataObject) -> None:
        self.used.remove(data.draw(st.sampled_from(sorted(self.used))))
        self.carry_out(self.pool.drop())

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(sorted(self.used)))
        self.used.remove(connection)
        outcome = self.pool.give_back(connection, self.now + KEEP)
        if isinstance(outcome, Grant):
            assert outcome.connection == connection
            self.carry_out(outcome)
            return
        self.idle[connection] = self.now + KEEP
        if outcome is not None:
            assert len(self.idle) > self.max_idle
            assert outcome == next(iter(self.idle)), "the one unused longest"
            del self.idle[outcome]

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.line)))
        self.line.remove(waiter)
        self.pool.leave(waiter)

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """A connection closes: the pool is asked to forget it, idle or not."""
        connection = data.draw(st.sampled_from([*self.idle, *sorted(self.used), 0]))
        assert self.pool.forget_idle(connection) == (connection in self.idle)
        self.idle.pop(connection, None)

    @rule(seconds=st.sampled_from([0.0, 1.0, KEEP, 2 * KEEP]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        expired = [connection for connection, expires in self.idle.items() if expires <= self.now]
        assert self.pool.expired(self.now) == expired
        for connection in expired:
            del self.idle[connection]

    @invariant()
    def nothing_is_lost(self) -> None:
        seen = self.pool.statistics()
        assert (seen.idle, seen.waiting) == (len(self.idle), len(self.line))
        assert seen.taken == self.opening + len(self.used)
        assert self.pool.is_empty == (seen.idle == seen.taken == seen.waiting == 0)

    @invariant()
    def bounds_hold(self) -> None:
        seen = self.pool.statistics()
        assert seen.taken <= self.limit
        assert seen.idle + seen.taken <= self.limit
        assert seen.idle <= self.max_idle
        assert seen.waiting <= self.max_waiting

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        seen = self.pool.statistics()
        if seen.waiting:
            assert seen.taken == self.limit
            assert seen.idle == 0


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
