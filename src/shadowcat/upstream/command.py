"""A command to run: its words and its environment. No shell is involved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shadowcat.errors import Fault

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

    def why_not_started(self, fault: Fault) -> str:
        """For a person, with what to do."""
        error = fault.__cause__
        if not isinstance(error, OSError):
            return str(error or fault)
        told = error.strerror or str(error)
        if error.filename not in (None, self.argv[0]):
            return f"{told}: {error.filename}"
        if isinstance(error, FileNotFoundError):
            return f"{told}; is it installed, and on the PATH?"
        return f"{told}; it is not an executable program: put its interpreter before it, or chmod +x it"

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        passed_on = {
            name: value
            for name, value in ours.items()
            if self.inherits or name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)
        }
        return passed_on | dict(self.env)
