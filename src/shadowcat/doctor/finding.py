"""One finding: how bad it is, what was seen, what it means for users, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from shadowcat.wire.text import on_one_line


class Level(Enum):
    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing to repair."""
    WARNING = "warning"
    """Works, and will not under some condition that will come."""
    PROBLEM = "problem"
    """Some client or some situation fails."""


class Finding(msgspec.Struct, frozen=True):
    level: Level
    topic: str
    saw: str
    means: str = ""
    do: str = ""
    is_fatal: bool = False
    """Nobody can use it like this."""


FINE, PROBLEMS, UNUSABLE = 0, 1, 2


def exit_code(findings: Sequence[Finding]) -> int:
    if any(finding.is_fatal for finding in findings):
        return UNUSABLE
    return PROBLEMS if any(finding.level is Level.PROBLEM for finding in findings) else FINE


def told(findings: Sequence[Finding]) -> str:
    """For a person: the worst last, where the eye is when the prompt comes back."""
    order = list(Level)
    lines: list[str] = []
    for finding in sorted(findings, key=lambda finding: order.index(finding.level)):
        lines.append(f"{finding.level.value:<8}{finding.topic}: {on_one_line(finding.saw)}")
        if finding.means:
            lines.append(f"        {on_one_line(finding.means)}")
        if finding.do:
            lines.append(f"        -> {finding.do}")
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    summary = ", ".join(f"{counts[level]} {level.value}" for level in Level if counts[level])
    verdicts = {FINE: "fine", PROBLEMS: "has problems", UNUSABLE: "cannot be used"}
    return "\n".join([*lines, f"{verdicts[exit_code(findings)]}: {summary}"])
