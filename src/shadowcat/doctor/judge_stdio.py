"""Turns facts about a command into findings. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from shadowcat.doctor.facts import ChildFacts, Opened, Refused, StdioFacts
from shadowcat.doctor.finding import Finding, Level
from shadowcat.doctor.judge_both import judged_latency, judged_offers, judged_time
from shadowcat.wire.mcp import MODERN_VERSIONS
from shadowcat.wire.text import counted

OK, NOTE, WARNING, PROBLEM = Level
SLOW_START_MS = 5_000.0


def judge_stdio(facts: StdioFacts) -> list[Finding]:
    legacy, modern = facts.legacy, facts.modern
    if not legacy.started:
        return [
            Finding(
                PROBLEM,
                "start",
                f"{facts.command} cannot be started: {legacy.why_not}",
                "Clients report that the server does not work, but rarely say why.",
                "check the command's name and the client's PATH; a URL begins with http",
                is_fatal=True,
            )
        ]
    found = [*judged_time(is_cut_short=facts.is_cut_short), *_eras(facts)]
    opened = modern if not isinstance(legacy.opened, Opened) and _is_modern(modern) else legacy
    found += [*_stdout(opened), *_stderr(opened)]
    if isinstance(opened.opened, Opened):
        offers = judged_offers(opened.opened, opened.listed)
        found += [offers, judged_latency(opened.latency, opened.ended_early), *_end(opened)]
    return found


def _is_modern(child: ChildFacts) -> bool:
    return isinstance(child.opened, Opened) and bool(set(child.opened.versions) & set(MODERN_VERSIONS))


def _eras(facts: StdioFacts) -> Iterator[Finding]:
    legacy, modern = facts.legacy, facts.modern
    if isinstance(legacy.opened, Opened):
        yield _began(legacy.opened, f"initialize, version {', '.join(legacy.opened.versions)}")
    if _is_modern(modern) and isinstance(modern.opened, Opened):
        yield _began(modern.opened, f"stateless requests, versions {', '.join(modern.opened.versions)}")
    if isinstance(legacy.opened, Opened) and not _is_modern(modern):
        yield Finding(
            NOTE,
            "era",
            "no stateless requests (2026-07-28)",
            "Clients of both eras fall back to initialize.",
        )
        if modern.ended_early:
            yield Finding(
                NOTE,
                "era",
                f"it exits on a request that it does not know ({modern.ended_early})",
                "A client that first asks what the server speaks has to start it a second time.",
                "answer unknown methods with error -32601",
            )
    elif not isinstance(legacy.opened, Opened) and _is_modern(modern):
        yield Finding(NOTE, "era", "no initialize", "Clients of 2025-11-25 and older cannot use the server.")
    elif not isinstance(legacy.opened, Opened):
        yield _no_era(legacy)


def _began(opened: Opened, what: str) -> Finding:
    by = f" ({opened.server})" if opened.server else ""
    saw = f"{what}{by}; first answer after {opened.took_ms / 1000:.1f} s"
    if opened.took_ms < SLOW_START_MS:
        return Finding(OK, "era", saw)
    return Finding(WARNING, "era", saw, "Some clients wait no longer than 5 to 10 s for a server to start.")


def _no_era(child: ChildFacts) -> Finding:
    if child.ended_early:
        saw = f"it exited before it answered anything ({child.ended_early})"
        do = f"look at its last output: {child.stderr_sample}" if child.stderr_sample else "run it by hand"
    elif isinstance(child.opened, Refused):
        saw = f"initialize is answered with error {child.opened.code}: {child.opened.message}"
        do = "make sure it is an MCP server"
    else:
        saw = "it does not answer initialize"
        do = "make sure it is an MCP server that speaks stdio; some need an argument for that"
    return Finding(PROBLEM, "era", saw, "No client gets any further than this.", do, is_fatal=True)


def _stdout(child: ChildFacts) -> Iterator[Finding]:
    if child.garbage:
        yield Finding(
            PROBLEM,
            "stdout",
            f"{counted(child.garbage, 'line')} that are not messages, the first: {child.garbage_sample}",
            "Only messages may appear on stdout. Strict clients end the connection when anything else does.",
            "print to stderr, or put shadowcat forward stdio in front, which drops such lines",
        )


def _stderr(child: ChildFacts) -> Iterator[Finding]:
    if child.stderr_lines:
        saw = f"{counted(child.stderr_lines, 'line')}, the first: {child.stderr_sample}"
        yield Finding(NOTE, "stderr", saw, "Clients show or drop them; this is not an error.")


def _end(child: ChildFacts) -> Iterator[Finding]:
    if child.ended_early:
        return
    if child.closed_in_s is None:
        yield Finding(
            WARNING,
            "end",
            "it does not exit when its stdin is closed",
            "Clients that do not kill it leave it running, and processes pile up.",
            "exit when stdin ends",
        )
    elif child.exit != "exit code 0":
        yield Finding(NOTE, "end", f"it exits with {child.exit} when its stdin is closed")
    else:
        yield Finding(OK, "end", f"it exits {child.closed_in_s:.1f} s after its stdin is closed")
