"""What of a difference is expected, and what is not: expected.toml has each with its reason."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance import suite
from tests.conformance.compare import Checks, Difference, differences

EXPECTED = Path(__file__).with_name("expected.toml")


@dataclass(frozen=True, slots=True)
class Expected:
    scenario: str
    check: str
    # As in a Difference.
    direct: str
    proxied: str
    why: str

    def explains(self, found: Difference) -> bool:
        ours = (self.scenario, self.check, self.direct, self.proxied)
        return ours == (found.scenario, found.check, found.direct, found.proxied)


@dataclass(frozen=True, slots=True)
class Verdict:
    scenarios: int
    # Scenarios that do not differ at all.
    same: int
    explained: tuple[Expected, ...]
    problems: tuple[str, ...]


def reasons() -> list[dict[str, Any]]:
    return tomllib.loads(EXPECTED.read_text("utf-8"))["reason"]


def expected(variant: str, revision: str) -> list[Expected]:
    return [
        Expected(*row, why=reason["why"])
        for reason in reasons()
        if variant in reason["variants"] and revision in reason["revisions"]
        for row in reason["rows"]
    ]


async def run(variant: str, revision: str, out: Path) -> Verdict:
    """Both runs at once, each with a fixture server of its own."""
    async with asyncio.TaskGroup() as both:
        direct = both.create_task(suite.direct(variant, revision, out / "direct"))
        proxied = both.create_task(suite.proxied(variant, revision, out / "proxied"))
    return judge(
        direct.result(), proxied.result(), expected(variant, revision), suite.REVISIONS[revision].scenarios
    )


def judge(direct: Checks, proxied: Checks, entries: Sequence[Expected], scenarios: int) -> Verdict:
    found = differences(direct, proxied)
    explained = tuple(entry for entry in entries if any(entry.explains(one) for one in found))
    problems = [_told(one) for one in found if not any(entry.explains(one) for entry in entries)]
    problems += [
        f"{entry.scenario}: {entry.check}: expected {entry.direct or 'absent'} => {entry.proxied or 'absent'}"
        for entry in entries
        if entry not in explained
    ]
    if len(direct) != scenarios:
        problems.append(f"{len(direct)} scenarios ran direct, not {scenarios}")
    same = len(direct.keys() - {one.scenario for one in found})
    return Verdict(len(direct), same, explained, tuple(problems))


def _told(one: Difference) -> str:
    return f"{one.scenario}: {one.check}: {one.direct or 'absent'} => {one.proxied or 'absent'}: {one.detail}"
