"""The circuit for restarts: never more failing starts in a window than allowed, whatever the script of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.breaker import Circuit, RestartPolicy

POLICY = RestartPolicy(first_s=1.0, cap_s=8.0, failures=4, window_s=60.0, open_s=30.0)


def test_the_first_failure_costs_no_wait() -> None:
    circuit = Circuit(POLICY)
    circuit.failed(0.0, 1.0)
    assert circuit.wait_s(0.0) == 0.0


def test_the_wait_grows_and_passes() -> None:
    circuit = Circuit(POLICY)
    waits: list[float] = []
    for _ in range(3):
        circuit.failed(0.0, 1.0)
        waits.append(circuit.wait_s(0.0))
    assert waits == [0.0, 1.0, 2.0]
    assert circuit.wait_s(1.5) == 0.5
    assert circuit.wait_s(5.0) == 0.0


def test_it_opens_and_is_tried_once() -> None:
    circuit = Circuit(POLICY)
    for second in range(4):
        circuit.failed(float(second), 0.0)
    assert circuit.is_open
    # Until the first of them is no longer in the window.
    assert circuit.wait_s(3.0) == 57.0
    circuit.failed(70.0, 0.0)
    assert circuit.is_open
    assert circuit.wait_s(70.0) == 30.0
    circuit.succeeded()
    assert not circuit.is_open
    assert circuit.wait_s(70.0) == 0.0


def test_failures_that_are_far_apart_do_not_open_it() -> None:
    circuit = Circuit(POLICY)
    for minute in range(20):
        circuit.failed(minute * 60.0, 1.0)
        assert not circuit.is_open


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(0, 20)), max_size=60))
def test_never_more_failures_in_a_window(script: list[tuple[bool, float, float]]) -> None:
    """Each start works for no time and fails, or fails at once."""
    circuit = Circuit(POLICY)
    now = 0.0
    failures: list[float] = []
    for works, random, pause in script:
        now += max(pause, circuit.wait_s(now))
        if works:
            circuit.succeeded()
        circuit.failed(now, random)
        failures.append(now)
        recent = [at for at in failures if POLICY.window_s - (now - at) > 1e-6]
        assert len(recent) <= POLICY.failures
