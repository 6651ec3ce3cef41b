"""What is judged alike for HTTP and stdio servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from shadowcat.doctor.facts import Latency, Opened
from shadowcat.doctor.finding import Finding, Level

OK, NOTE, WARNING, PROBLEM = Level
SLOW_MS = 500.0


def judged_offers(opened: Opened, listed: Mapping[str, int]) -> Finding:
    counted = [f"{count} {name.removesuffix('s') if count == 1 else name}" for name, count in listed.items()]
    beside = [name for name in opened.capabilities if name not in listed]
    level = OK if opened.capabilities else NOTE
    return Finding(level, "capabilities", ", ".join([*counted, *beside]) or "nothing")


def judged_latency(latency: Latency | None, ending: str = "") -> Finding:
    """`ending`: how the server ended meanwhile, if it did."""
    if latency is None:
        return Finding(
            PROBLEM,
            "latency",
            f"a harmless request gets no answer{f'; it ended ({ending})' if ending else ''}",
            "Clients give up on a server that does not answer pings.",
            "check the server's log",
        )
    saw = f"{latency.asked} takes {_rounded(latency.p50_ms)} ms (median of {latency.samples})"
    if latency.p50_ms < SLOW_MS:
        return Finding(OK, "latency", saw)
    return Finding(NOTE, "latency", saw, "Every call waits at least that long.")


def _rounded(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 10 else f"{ms:.2g}"


def judged_time(*, is_cut_short: bool) -> Iterator[Finding]:
    if is_cut_short:
        yield Finding(
            WARNING,
            "time",
            "the run was over before everything was asked",
            "",
            "allow more time with --deadline",
        )
