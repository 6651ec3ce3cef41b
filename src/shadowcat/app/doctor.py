"""`shadowcat doctor`: examines a server within a deadline, from the first question to the findings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from shadowcat.doctor.facts import HttpFacts, StdioFacts
from shadowcat.doctor.finding import Finding, exit_code, told
from shadowcat.doctor.http_probe import HttpProbe
from shadowcat.doctor.judge_http import judge_http
from shadowcat.doctor.judge_stdio import judge_stdio
from shadowcat.doctor.patience import Tell
from shadowcat.doctor.stdio_probe import StdioProbe
from shadowcat.http.client import Client


@dataclass(frozen=True, slots=True)
class Report:
    facts: HttpFacts | StdioFacts
    findings: Sequence[Finding]

    @property
    def exit_code(self) -> int:
        return exit_code(self.findings)

    def as_text(self) -> str:
        return told(self.findings)

    def as_json(self) -> str:
        shown = {"findings": self.findings, "facts": self.facts, "exit_code": self.exit_code}
        return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()


async def examine_url(
    url: str, deadline_s: float, token: str | None, call: tuple[str, dict[str, Any]] | None, tell: Tell
) -> Report:
    more = [(b"authorization", b"Bearer " + token.encode())] if token is not None else []
    client = Client()
    probe = HttpProbe(url, client, more, call, tell)
    try:
        async with asyncio.timeout(deadline_s):
            await probe.run()
    except TimeoutError:
        probe.facts.is_cut_short = True
    finally:
        await client.aclose()
    return Report(probe.facts, judge_http(probe.facts))


async def examine_command(argv: Sequence[str], deadline_s: float, tell: Tell) -> Report:
    probe = StdioProbe(argv, tell)
    try:
        async with asyncio.timeout(deadline_s):
            await probe.run()
    except TimeoutError:
        probe.facts.is_cut_short = True
    return Report(probe.facts, judge_stdio(probe.facts))
