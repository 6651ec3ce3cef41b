"""A circuit breaker for restarts: when something that keeps failing may be started again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from shadowcat.core.backoff import Backoff


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    first_s: float = 0.5
    cap_s: float = 30.0
    failures: int = 10
    """So many within the window open the circuit."""
    window_s: float = 60.0
    open_s: float = 30.0


class Circuit:
    """Closed, it lets starts through, with a growing wait after failures; open, none; half-open, a single try.

    What works for a moment and fails again is a crash loop like what never works: only the wait is reset by a
    success, not the count of failures. So there are never more than `failures` failing starts in a window.
    """

    def __init__(self, policy: RestartPolicy | None = None) -> None:
        self._policy = policy or RestartPolicy()
        self._backoff = Backoff(self._policy.first_s, self._policy.cap_s)
        self._failures: deque[float] = deque(maxlen=self._policy.failures)
        self._not_before = 0.0
        self.is_open = False
        """Or half-open, once the wait is over."""
        self.is_proven = False
        """The last start was a success: many may be under way together."""

    def wait_s(self, now: float) -> float:
        """How long until a start is allowed."""
        return max(0.0, self._not_before - now)

    def failed(self, now: float, random: float) -> None:
        """`random` is in 0 … 1."""
        policy = self._policy
        is_first = self.is_proven or not self._failures
        self.is_proven = False
        self._failures.append(now)
        loops = len(self._failures) == policy.failures and now - self._failures[0] < policy.window_s
        if loops or self.is_open:
            self.is_open = True
            self._not_before = max(now + policy.open_s, self._failures[0] + policy.window_s)
        elif not is_first:
            self._not_before = now + self._backoff.next_s(random)

    def succeeded(self) -> None:
        self.is_proven = True
        self.is_open = False
        self._backoff.succeeded()
        self._not_before = 0.0
