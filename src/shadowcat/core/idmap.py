"""Which session is which at the upstream, looked up either way in constant time.

A session's own id never changes; the upstream's does when it forgets a session. Some upstreams issue none, and
nothing keeps one from issuing the same id to two sessions: those then share it, and it is ended with the last.
"""

from __future__ import annotations


class IdMap:
    def __init__(self) -> None:
        self._upstream_side: dict[str, tuple[str, str]] = {}
        self._own_side: dict[tuple[str, str], set[str]] = {}

    def __len__(self) -> int:
        return len(self._upstream_side)

    def bind(self, session_id: str, upstream: str, upstream_id: str | None) -> None:
        """Replaces what was bound before."""
        self.unbind(session_id)
        if upstream_id is not None:
            self._upstream_side[session_id] = (upstream, upstream_id)
            self._own_side.setdefault((upstream, upstream_id), set()).add(session_id)

    def unbind(self, session_id: str) -> None:
        key = self._upstream_side.pop(session_id, None)
        if key is None:
            return
        sharers = self._own_side[key]
        sharers.discard(session_id)
        if not sharers:
            del self._own_side[key]

    def upstream_side(self, session_id: str) -> tuple[str, str] | None:
        """(upstream, its id); None where the upstream issued none."""
        return self._upstream_side.get(session_id)

    def own_side(self, upstream: str, upstream_id: str) -> frozenset[str]:
        """The sessions behind an upstream's id: one, unless the upstream issued it twice."""
        return frozenset(self._own_side.get((upstream, upstream_id), ()))
