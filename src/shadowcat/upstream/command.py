"""A command to run: its words and its surroundings. No shell reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_PASSED_ON = frozenset(
    {"HOME", "PATH", "LANG", "TERM", "TMPDIR", "USER", "LOGNAME", "SHELL", "TZ"},
)
_PASSED_ON_PREFIX = "LC_"


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Beside the few variables that are passed on: the proxy's own may hold what no server should see."""
    cwd: str | None = None
    inherits: bool = False
    """All of ours is passed on: for a proxy that was started in the command's place, with what is meant for that."""

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        passed_on = {
            name: value
            for name, value in ours.items()
            if self.inherits or name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)
        }
        return passed_on | dict(self.env)
