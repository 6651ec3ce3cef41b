"""From what was seen of a command to findings, as a table."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shadowcat.doctor.facts import ChildFacts, Latency, Opened, Refused, StdioFacts
from shadowcat.doctor.finding import FINE, PROBLEMS, UNUSABLE, Finding, Level, exit_code, told
from shadowcat.doctor.judge_stdio import judge_stdio

OK, NOTE, WARNING, PROBLEM = Level

HEALTHY = ChildFacts(
    started=True,
    opened=Opened(["2025-11-25"], "server 1", ["tools"], 200.0),
    latency=Latency(1.0, 5, "ping"),
    listed={"tools": 2},
    closed_in_s=0.1,
    exit="exit code 0",
)
MODERN = msgspec.structs.replace(HEALTHY, opened=Opened(["2026-07-28"], "server 1", ["tools"], 200.0))


def judged(modern: ChildFacts = MODERN, **changed: Any) -> list[Finding]:
    return judge_stdio(StdioFacts("server", msgspec.structs.replace(HEALTHY, **changed), modern))


def test_all_is_well() -> None:
    findings = judged()
    assert {finding.level for finding in findings} == {OK}
    assert {finding.topic for finding in findings} == {"era", "capabilities", "latency", "end"}
    assert exit_code(findings) == FINE


@pytest.mark.parametrize(
    ("changed", "topic", "level", "words"),
    [
        ({"modern": ChildFacts(started=True, opened=Refused(0, code=-32601))}, "era", NOTE, "no stateless"),
        (
            {"modern": ChildFacts(started=True, ended_early="exit code 1")},
            "era",
            NOTE,
            "it exits on a request",
        ),
        (
            {"opened": Opened(["2025-11-25"], "", ["tools"], 6000.0)},
            "era",
            WARNING,
            "first answer after 6.0 s",
        ),
        ({"opened": Refused(0, code=-32022)}, "era", NOTE, "no initialize"),
        ({"garbage": 2, "garbage_sample": "Hello"}, "stdout", PROBLEM, "2 lines that are not messages"),
        ({"stderr_lines": 1, "stderr_sample": "ready"}, "stderr", NOTE, "1 line, the first: ready"),
        ({"latency": None}, "latency", PROBLEM, "gets no answer"),
        ({"latency": None, "ended_early": "exit code 1"}, "latency", PROBLEM, "it ended (exit code 1)"),
        ({"latency": Latency(900, 5, "ping")}, "latency", NOTE, "900 ms"),
        ({"latency": Latency(0.042, 5, "ping")}, "latency", OK, "ping takes 0.042 ms"),
        ({"closed_in_s": None}, "end", WARNING, "does not exit when its stdin is closed"),
        ({"exit": "exit code 1"}, "end", NOTE, "exits with exit code 1"),
    ],
)
def test_one_thing_is_different(changed: dict[str, Any], topic: str, level: Level, words: str) -> None:
    findings = judged(**changed)
    [found] = [finding for finding in findings if words in finding.saw]
    assert (found.topic, found.level, found.is_fatal) == (topic, level, False)
    assert exit_code(findings) == (PROBLEMS if level is PROBLEM else FINE)


NOTHING = ChildFacts(started=True)


@pytest.mark.parametrize(
    ("legacy", "words"),
    [
        (ChildFacts(why_not="No such file"), "cannot be started: No such file"),
        (
            ChildFacts(started=True, ended_early="exit code 3"),
            "exited before it answered anything (exit code 3)",
        ),
        (ChildFacts(started=True, opened=Refused(0, code=-32601, message="no")), "error -32601: no"),
        (NOTHING, "does not answer initialize"),
    ],
)
def test_nobody_can_use_it(legacy: ChildFacts, words: str) -> None:
    findings = judge_stdio(StdioFacts("server", legacy, NOTHING))
    [found] = [finding for finding in findings if finding.is_fatal]
    assert words in found.saw
    assert exit_code(findings) == UNUSABLE


def test_a_run_that_was_cut_short_says_so() -> None:
    findings = judge_stdio(StdioFacts("server", HEALTHY, MODERN, is_cut_short=True))
    assert "time" in {finding.topic for finding in findings}


def test_what_a_server_says_cannot_forge_a_line() -> None:
    opened = Opened(["2025-11-25"], "\x1b[2Jserver\nok      era: fine", ["tools"], 200.0)
    said = told(judged(opened=opened))
    assert "\x1b" not in said
    assert not any(line.startswith("ok      era: fine") for line in said.splitlines())
